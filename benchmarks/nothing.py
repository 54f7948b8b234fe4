"""`dvc repro` with nothing to do: Pawline against DVC's example project, on the same photos.

    python -m benchmarks.nothing                                     25,000 photos: half an hour to build, 12 GB
    python -m benchmarks.nothing --images 300 --keep /tmp/nothing    built once; the next time only the rounds

Pawline is a fresh clone of the last commit that has run once, with the cheapest settings there are (CHEAPEST): what is
timed depends on how many files and bytes DVC has to look after, and not on what trained them. The other side is a plain
DVC project in the shape of `example-get-started`: photos tracked with `dvc add`, then prepare, featurize, train and
evaluate, which copy bytes. With --one-file its photos are one file, a zip, as the example's `data.xml` is one.

Where it is built: the folder of --keep, or a temporary one (TMPDIR), which is removed when all went well.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from benchmarks import rounds
from benchmarks.photos import repeat_archive
from benchmarks.rounds import Result
from benchmarks.seed_table import ROOT, SHARED_DATA, Workplace, apply_preset, make_clone, run_timed, unpack
from tasks import stage
from tasks.stage import PawlineError

MOST_SECONDS = 3.0
CHEAPEST: dict[str, Any] = {
    "image.size_px": 96,
    "features.views": 1,
    "train_head.epochs": 1,
    "fine_tune.unfrozen_layers": 0,
    "export.formats": ["keras"],
}
Builder = Callable[[Path, Workplace], None]

DVC = [sys.executable, "-m", "dvc"]
# Where the time of the plain project's stages goes does not matter: they run once, before anything is timed.
SCRIPT = '''"""Write of each input file the first of so many parts, one after the other."""

import sys
from pathlib import Path

given, parts, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
out.parent.mkdir(parents=True, exist_ok=True)
with out.open("wb") as file:
    for path in [given] if given.is_file() else sorted(given.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            file.write(content[: len(content) // parts])
'''
PARAMS = {"prepare": {"parts": 1}, "featurize": {"parts": 4}, "train": {"parts": 400}, "evaluate": {"parts": 400}}


class Sides(NamedTuple):
    """Two built projects, each the `clone` of a folder of its own."""

    ours: Workplace
    theirs: Workplace


def build(folder: Path, archive_path: Path, images: int, *, one_file: bool) -> Sides:
    """Build and run once what is not there yet; what is there is known by its name.

    Raises:
        PawlineError: A command failed; with the error it gave.
    """
    folder.mkdir(parents=True, exist_ok=True)
    photos = repeat_archive(archive_path, images, folder / f"{archive_path.stem}-{images}.zip")
    names = (f"pawline-{images}-{_commit()}", f"plain-{images}{'-one-file' if one_file else ''}")
    sides = Sides(*(Workplace(folder / name) for name in names))
    builders: tuple[Builder, ...] = (build_ours, partial(build_plain, one_file=one_file))
    for workplace, build_side in zip(sides, builders, strict=True):
        finished = workplace.root / "finished"  # a file and no renaming: DVC knows what it has hashed by its path
        if not finished.exists():
            workplace.root.mkdir(exist_ok=True)
            build_side(photos, workplace)
            finished.touch()
    return sides


def build_ours(photos: Path, workplace: Workplace) -> None:
    """Clone Pawline and run it once on a zip of photos."""
    make_clone(workplace)
    apply_preset(workplace.clone / "params.yaml", CHEAPEST, photos, seed=0)
    run_timed([*DVC, "repro"], workplace, cwd=workplace.clone)


def build_plain(photos: Path, workplace: Workplace, *, one_file: bool) -> None:
    """Make the plain project on a zip of photos and run it once.

    Args:
        photos: The zip.
        workplace: Where it is to be.
        one_file: Track the zip itself, and not its photos.
    """
    project = workplace.clone
    if project.exists():
        shutil.rmtree(project)
    for name in PARAMS:
        script = project / "src" / f"{name}.py"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(SCRIPT, encoding="utf-8")
    data = project / "data" / ("photos.zip" if one_file else "photos")
    data.parent.mkdir()
    if one_file:
        shutil.copyfile(photos, data)
    else:
        unpack(photos, data)
    yaml = YAML(typ="safe", pure=True)
    yaml.dump(PARAMS, project / "params.yaml")
    yaml.dump({"stages": plain_stages(f"data/{data.name}")}, project / "dvc.yaml")
    for command in (["git", "init", "--quiet"], [*DVC, "init"], [*DVC, "add", str(data)], [*DVC, "repro"]):
        run_timed(command, workplace, cwd=project)


def plain_stages(data: str) -> dict[str, Any]:
    """Return the stages of the plain project's dvc.yaml, a chain like that of DVC's example project."""
    stages: dict[str, Any] = {}
    given = data
    for name, out in (
        ("prepare", "data/prepared/photos.bin"),
        ("featurize", "data/features/features.bin"),
        ("train", "model.bin"),
        ("evaluate", "evaluation/answers.bin"),
    ):
        stages[name] = {
            "cmd": f"python src/{name}.py {given} ${{{name}.parts}} {out}",
            "deps": [given, f"src/{name}.py"],
            "params": [f"{name}.parts"],
            "outs": [out],
        }
        given = out
    return stages


def repro(workplace: Workplace, *, always: frozenset[str] = frozenset()) -> None:
    """Run `dvc repro` in a project that has nothing to do.

    Args:
        workplace: Where the project is.
        always: Stages that run although nothing changed.

    Raises:
        PawlineError: Something else ran, so that the time would be of something else.
    """
    run_timed([*DVC, "repro"], workplace, cwd=workplace.clone)
    ran = set(re.findall(r"^Running stage '([^']+)'", workplace.output.read_text(encoding="utf-8"), re.MULTILINE))
    if ran != always:
        differ = ", ".join(sorted(ran ^ always))
        raise PawlineError(f"{workplace.clone} was not up to date ({differ}): remove {workplace.root} and run again")


def measure(sides: Sides, *, images: int, one_file: bool, repeats: int) -> Result:
    """Time both projects in turn."""
    megabytes = sum(path.stat().st_size for path in (sides.ours.clone / "data" / "raw").iterdir()) / 1e6
    result = rounds.compare(
        partial(repro, sides.ours, always=frozenset({"source"})),
        partial(repro, sides.theirs),
        what=f"`dvc repro` with nothing to do, {images:,} photos of {megabytes:,.0f} MB",
        against=f"a plain DVC project with them in {'one file' if one_file else f'{images:,} files'}",
        rounds=repeats,
        bar=1.0,
    )
    seconds = statistics.median(result["ours"])
    verdict = "within" if seconds <= MOST_SECONDS else "ABOVE"
    result["notes"].append(f"{seconds:.2f} s is {verdict} the {MOST_SECONDS:g} s that it may take")
    result["notes"].append("in ours the stage `source` runs each time and looks for new photos; in theirs nothing does")
    return result


def _commit() -> str:
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - fixed command
    return done.stdout.strip()


def main(argv: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--archive", str(SHARED_DATA / "petimages.zip"), "photos, which are repeated")
    parser.add_argument("--images", type=int, default=25_000, help="(default: 25000)")
    parser.add_argument("--one-file", action="store_true", help="the plain project's photos in one file")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to build, and to find what was built before")
    rounds.add_options(parser, rounds=5)
    args = parser.parse_args(argv)
    folder = (args.keep or Path(tempfile.mkdtemp(prefix="pawline-nothing-"))).resolve()
    sides = build(folder, args.archive, args.images, one_file=args.one_file)
    result = measure(sides, images=args.images, one_file=args.one_file, repeats=args.rounds)
    if args.keep is None:
        shutil.rmtree(folder)
    rounds.report({"nothing_to_do_one_file" if args.one_file else "nothing_to_do": result}, args.results)


if __name__ == "__main__":
    stage.run(main)
