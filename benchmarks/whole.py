"""From the photos to an evaluated model: Pawline against the same recipe as one plain Keras program.

    python -m benchmarks.whole                                petimages.zip as it is, three seeds: 15 minutes
    python -m benchmarks.whole --files 5140 --seeds 1         its photos repeated to as many files
    python -m benchmarks.whole --preset s3 --archive photos.zip

A round has a seed. Pawline's side is `dvc repro evaluate` in a fresh clone of the last commit with the preset over its
params.yaml, nothing cached; the plain program (benchmarks/reference.py: decode, resize, augment and run the frozen part
in every epoch) then trains on the same photos and split, and validates after each epoch. Both are timed as whole
processes, imports included. After the rounds one setting of the head is changed, and `dvc repro train_head` (train it
anew, validate) is timed against the plain program's stage 1.

Four fifths of the good photos are trained on; repeated photos have other bytes and the same pixels.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks import photos, rounds, seed_table
from benchmarks.rounds import Result
from benchmarks.seed_page import Side
from benchmarks.seed_table import Workplace
from flows import presets
from tasks.progress import Progress
from tasks.stage import PawlineError

WHOLE_BAR, HEAD_BAR = 4.0, 25.0
LEARNING_RATES = (0.002, 0.003, 0.0005, 0.0015)  # of the changed heads, none of which a preset has


class Bench:
    """A recipe on an archive's photos."""

    def __init__(self, archive: Path, preset: str, workplace: Workplace) -> None:
        """Unpack the photos for the plain program."""
        self._archive, self._preset, self._workplace = archive, seed_table.read_preset(preset), workplace
        if not workplace.photos(archive).exists():
            seed_table.unpack(archive, workplace.photos(archive))

    def run_round(self, seed: int) -> tuple[Side, Side]:
        """Run both sides from nothing; return what came out of ours and theirs."""
        seed_table.make_clone(self._workplace)
        self.write_params(seed)
        took = self._repro("evaluate")
        ours = seed_table.read_pawline(self._workplace.clone, took)
        return ours, seed_table.run_plain(self._workplace, self._archive, seed)

    def change_head(self, seed: int, learning_rate: float) -> tuple[float, float]:
        """Train another head in the clone of the last round; return its seconds and those of the plain stage 1."""
        self.write_params(seed, {"train_head.learning_rate": learning_rate})
        ours = self._repro("train_head")
        self.write_params(seed, {"train_head.learning_rate": learning_rate, "fine_tune.unfrozen_layers": 0})
        return ours, seed_table.run_plain(self._workplace, self._archive, seed)["seconds"]

    def write_params(self, seed: int, settings: dict[str, Any] | None = None) -> None:
        """Write the clone's params.yaml: the preset, the photos, the seeds, and these settings over all."""
        path, yaml = self._workplace.clone / "params.yaml", YAML(typ="safe", pure=True)
        seed_table.apply_preset(path, self._preset, self._archive, seed)
        yaml.dump(presets.apply_settings(yaml.load(path), settings or {}), path)

    def _repro(self, stage: str) -> float:
        command = [sys.executable, "-m", "dvc", "repro", stage]
        return seed_table.run_timed(command, self._workplace, cwd=self._workplace.clone)


def measure(archive: Path, preset: str, seeds: list[int], head_rounds: int, workplace: Workplace) -> list[Result]:
    """Measure whole runs, a seed a round, and then changes of the head."""
    bench = Bench(archive, preset, workplace)
    sides = []
    with Progress("whole runs", total=len(seeds), unit="rounds") as progress:
        for seed in seeds:
            sides.append(bench.run_round(seed))
            progress.advance()
    whole = rounds.make_result(
        [ours["seconds"] for ours, _ in sides],
        [theirs["seconds"] for _, theirs in sides],
        what=f"source to evaluated model, {sides[0][0]['train']:,} training photos",
        against="plain Keras",
        bar=WHOLE_BAR,
    )
    whole["notes"] = [
        f"validation accuracy, {sides[0][0]['val']:,} photos, seeds {', '.join(map(str, seeds))}: "
        f"{_accuracies([ours for ours, _ in sides])}; plain Keras {_accuracies([theirs for _, theirs in sides])}"
    ]
    changes = [bench.change_head(seeds[-1], rate) for rate in LEARNING_RATES[:head_rounds]]
    head = rounds.make_result(
        [ours for ours, _ in changes],
        [theirs for _, theirs in changes],
        what=f"another head, trained and validated, {sides[0][0]['train']:,} training photos",
        against="plain Keras's stage 1",
        bar=HEAD_BAR,
    )
    return [whole, head]


def _accuracies(sides: list[Side]) -> str:
    chosen = [side["chosen"] for side in sides]
    return f"{', '.join(f'{accuracy:.4f}' for accuracy in chosen)} (mean {statistics.mean(chosen):.4f})"


def find_archive(archive: Path, files: int | None, folder: Path) -> Path:
    """Return the archive itself, or one with its photos repeated to so many files."""
    if not archive.is_file():
        raise PawlineError(f"there is no {archive}: name an archive of photos in class folders with --archive")
    return archive if files is None else photos.repeat_archive(archive, files, folder / f"photos-{files}.zip")


def main(argv: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=seed_table.SHARED_DATA / "petimages.zip", metavar="ZIP")
    parser.add_argument("--files", type=int, help="repeat the archive's photos to so many (default: as it is)")
    parser.add_argument("--preset", default="s4", help="(default: s4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="one a round (default: 1 2 3)")
    parser.add_argument("--head-rounds", type=int, default=3, choices=range(1, len(LEARNING_RATES) + 1))
    parser.add_argument("--results", type=Path, metavar="FILE", help="adds the figures to this JSON file")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="pawline-whole-") as folder:
        try:
            archive = find_archive(args.archive, args.files, Path(folder))
            whole, head = measure(archive, args.preset, args.seeds, args.head_rounds, Workplace(Path(folder)))
        except PawlineError as error:
            parser.exit(1, f"error: {error}\n")
    suffix = f"_{args.files}" if args.files else ""
    rounds.report({f"whole{suffix}": whole, f"head{suffix}": head}, args.results)


if __name__ == "__main__":
    main()
