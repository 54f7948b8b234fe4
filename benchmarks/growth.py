"""How time, memory and disk of each stage grow with the photos.

    python -m benchmarks.growth --results figures.json               2,000, 8,000 and 32,000 photos: hours, 20 GB
    python -m benchmarks.growth --images 100 200                     a first look, in minutes

For each size a fresh clone of the last commit runs every stage of dvc.yaml in turn, on that many photos of original
size (benchmarks/photos.py), by the stage's own command: without DVC, whose hashing is not the stage's. The settings are
the committed ones, with fewer epochs and nothing exported but Keras's own format. With --results each size is kept as
soon as it is measured, and a size that is there with the same settings is not measured again.

    seconds    of the command, from start to end, imports included
    CPU        seconds of all its processes
    memory     the most that all its processes together hold and the system cannot drop: anonymous and shared memory,
               looked at 50 times a second; the processes of a stage have none of it in common
    resident   the same with the pages of mapped files, which the system drops when memory is short; libraries count
               once for each process
    outputs    bytes of the stage's outputs; what DVC's cache keeps of them is worked out, and not written

The exponent is the slope of log seconds over log photos (least squares); the seconds that do not depend on the photos
are not taken off. Copies of a photo look the same: the search for near-duplicates has no more distinct photos to
compare than the archive has. Linux only.
"""

import argparse
import json
import math
import resource
import shlex
import shutil
import statistics
import tempfile
import threading
from pathlib import Path
from typing import Any, Self, TypedDict

import psutil
from ruamel.yaml import YAML

from benchmarks.machine import describe_machine
from benchmarks.photos import repeat_archive
from benchmarks.seed_table import SHARED_DATA, Workplace, apply_preset, make_clone, run_timed
from tasks import stage
from tasks.progress import Progress

KEY = "growth"
LOOKS_PER_SECOND = 50
MEMORY_FIELDS = ("RssAnon", "RssShmem", "VmRSS")
MOST_EXPONENT = 1.05
MOST_GROWTH = 0.10  # of memory, from the smallest size to the largest
MOST_GROWTH_OF = {"train_head": 0.25, "fine_tune": 0.25}
MOST_DISK = 5.0  # times the photos


class Usage(TypedDict):
    """What one stage took at one size; see the module's docstring. Sizes are in bytes."""

    seconds: float
    cpu_seconds: float
    memory: int
    resident: int
    outputs: int


class Size(TypedDict):
    """The run at one size."""

    photos: int  # bytes of the photos
    outputs: int  # bytes of all stages' outputs
    cache: int  # of them, those with different content: what DVC keeps a copy of
    settings: dict[str, Any]
    stages: dict[str, Usage]


class Growth(TypedDict):
    """What is kept: `sizes` by the number of photos, as text."""

    machine: str
    sizes: dict[str, Size]


class Trend(TypedDict):
    """How one stage grows: None where there is one size only."""

    exponent: float | None
    memory_growth: float | None  # 0.1: a tenth more at the largest size than at the smallest
    resident_growth: float | None


class MemoryWatch:
    """The most memory that the processes started in the block held together; see the module's docstring."""

    def __init__(self) -> None:
        self.memory = self.resident = 0
        self._older = {process.pid for process in psutil.Process().children(recursive=True)}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        before: set[int] = set()
        while not self._end.wait(1 / LOOKS_PER_SECOND):
            listed = {process.pid for process in psutil.Process().children(recursive=True)} - self._older
            # Until it begins its own program, a new process shows its parent's memory: seen twice, it has begun.
            held = [read_memory(pid) for pid in listed & before]
            self.memory = max(self.memory, sum(memory for memory, _ in held))
            self.resident = max(self.resident, sum(resident for _, resident in held))
            before = listed


def read_memory(pid: int) -> tuple[int, int]:
    """Return a process's anonymous and shared memory, and all its resident memory, in bytes (proc(5))."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
        return 0, 0
    # One that has ended and waits to be asked for its exit code has none.
    fields = (line.partition(":") for line in lines)
    kilobytes = {name: int(value.split()[0]) for name, _, value in fields if name in MEMORY_FIELDS}
    return 1024 * (kilobytes.get("RssAnon", 0) + kilobytes.get("RssShmem", 0)), 1024 * kilobytes.get("VmRSS", 0)


def read_stages(clone: Path) -> dict[str, dict[str, Any]]:
    """Return the stages of a dvc.yaml in its order, in which each comes after those that it reads."""
    stages: dict[str, dict[str, Any]] = YAML(typ="safe", pure=True).load(clone / "dvc.yaml")["stages"]
    return stages


def measure_stage(described: dict[str, Any], workplace: Workplace) -> Usage:
    """Run a stage of dvc.yaml in the clone.

    Raises:
        PawlineError: It failed; with the error it gave.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with MemoryWatch() as watch:
        seconds = run_timed(shlex.split(described["cmd"]), workplace, cwd=workplace.clone)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
        "memory": watch.memory,
        "resident": watch.resident,
        "outputs": sum(path.stat().st_size for path in output_files(described, workplace.clone)),
    }


def output_paths(described: dict[str, Any]) -> list[str]:
    """Return the paths of a stage's outputs, metrics included; one with options is a mapping from its path."""
    entries = [*described.get("outs", []), *described.get("metrics", [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def remove_outputs(described: dict[str, Any], clone: Path) -> None:
    """Remove a stage's outputs, so that its next run begins from nothing."""
    for path in output_paths(described):
        if (clone / path).is_dir():
            shutil.rmtree(clone / path)
        else:
            (clone / path).unlink(missing_ok=True)


def output_files(described: dict[str, Any], clone: Path) -> list[Path]:
    """Return the files of a stage's outputs."""
    return files_of(output_paths(described), clone)


def files_of(paths: list[str], clone: Path) -> list[Path]:
    """Return the files that paths of dvc.yaml mean: themselves, or all below them."""
    return [file for path in paths for file in [clone / path, *(clone / path).rglob("*")] if file.is_file()]


def measure_size(images: int, archive_path: Path, settings: dict[str, Any]) -> Size:
    """Run every stage once on so many photos; after a failure the run's folder stays, as the error says."""
    workplace = Workplace(Path(tempfile.mkdtemp(prefix=f"pawline-growth-{images}-")))
    photos = repeat_archive(archive_path, images, workplace.root / "photos.zip")
    make_clone(workplace)
    apply_preset(workplace.clone / "params.yaml", settings, photos, seed=0)
    stages = read_stages(workplace.clone)
    usages = {}
    with Progress(f"{images:,} photos", total=len(stages), unit="stages") as progress:
        for name, described in stages.items():
            usages[name] = measure_stage(described, workplace)
            print(describe_usage(images, name, usages[name]), flush=True)
            progress.advance()
    files = [file for described in stages.values() for file in output_files(described, workplace.clone)]
    size: Size = {
        "photos": photos.stat().st_size,
        "outputs": sum(file.stat().st_size for file in files),
        "cache": sum({stage.sha256_of(file): file.stat().st_size for file in files}.values()),
        "settings": settings,
        "stages": usages,
    }
    shutil.rmtree(workplace.root)
    return size


def describe_usage(images: int, name: str, usage: Usage) -> str:
    """Say in one line what a stage took."""
    return (
        f"{images:,} photos, {name}: {usage['seconds']:.1f} s, CPU {usage['cpu_seconds']:.1f} s, "
        f"memory {usage['memory'] / 1e6:,.0f} MB, resident {usage['resident'] / 1e6:,.0f} MB, "
        f"outputs {usage['outputs'] / 1e6:,.1f} MB"
    )


def trend(growth: Growth, name: str) -> Trend:
    """Return how a stage grows over the sizes there are."""
    counts = sorted(growth["sizes"], key=int)
    if len(counts) < 2:
        return {"exponent": None, "memory_growth": None, "resident_growth": None}
    usages = [growth["sizes"][count]["stages"][name] for count in counts]
    logs = [math.log(int(count)) for count in counts], [math.log(usage["seconds"]) for usage in usages]
    return {
        "exponent": statistics.linear_regression(*logs).slope,
        "memory_growth": usages[-1]["memory"] / usages[0]["memory"] - 1,
        "resident_growth": usages[-1]["resident"] / usages[0]["resident"] - 1,
    }


def times_the_photos(size: Size) -> tuple[float, float]:
    """Return the bytes of all outputs, and of what DVC's cache keeps of them, over those of the photos."""
    return size["outputs"] / size["photos"], size["cache"] / size["photos"]


def failures(growth: Growth) -> list[str]:
    """Return the bars that are not passed, each in a line."""
    lines = []
    largest = growth["sizes"][max(growth["sizes"], key=int)]
    for name in largest["stages"]:
        found, bar = trend(growth, name), MOST_GROWTH_OF.get(name, MOST_GROWTH)
        if found["exponent"] is not None and found["exponent"] > MOST_EXPONENT:
            lines.append(f"{name}: the exponent of its time is {found['exponent']:.2f}, above {MOST_EXPONENT}")
        if found["memory_growth"] is not None and found["memory_growth"] > bar:
            lines.append(f"{name}: its memory grows by {found['memory_growth']:.0%}, more than {bar:.0%}")
    disk = sum(times_the_photos(largest))
    if disk > MOST_DISK:
        lines.append(f"disk: outputs and DVC's cache are {disk:.2f} times the photos, above {MOST_DISK:g}")
    return lines


def describe(growth: Growth) -> list[str]:
    """Return a table of the stages, the disk used, and the bars that are not passed, as lines."""
    counts = sorted(growth["sizes"], key=int)
    sizes = [growth["sizes"][count] for count in counts]
    lines = [f"at {', '.join(f'{int(count):,}' for count in counts)} photos ({growth['machine']})"]
    lines.append(f"{'stage':<14}{'exponent':>10}{'memory':>9}{'resident':>10}   seconds; memory in MB; outputs in MB")
    for name in sizes[-1]["stages"]:
        usages = [size["stages"][name] for size in sizes]
        found = trend(growth, name)
        shares = "".join(
            f"{value:>{width}.0%}" if value is not None else f"{'-':>{width}}"
            for value, width in ((found["memory_growth"], 9), (found["resident_growth"], 10))
        )
        exponent = "-" if found["exponent"] is None else f"{found['exponent']:.2f}"
        seconds = " ".join(f"{usage['seconds']:.1f}" for usage in usages)
        memory = " ".join(f"{usage['memory'] / 1e6:,.0f}" for usage in usages)
        outputs = " ".join(f"{usage['outputs'] / 1e6:,.1f}" for usage in usages)
        lines.append(f"{name:<14}{exponent:>10}{shares}   {seconds}; {memory}; {outputs}")
    for kind, ratios in zip(("outputs", "DVC's cache"), zip(*map(times_the_photos, sizes), strict=True), strict=True):
        lines.append(f"{kind}: {', '.join(f'{ratio:.2f}' for ratio in ratios)} times the photos' bytes")
    return lines + [f"FAIL  {line}" for line in failures(growth)]


def keep(growth: Growth, path: Path | None) -> None:
    """Write what was measured so far under its key, beside what else the file has."""
    if path is not None:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        stage.write_json(known | {KEY: growth}, path)


def measure(args: argparse.Namespace, growth: Growth) -> None:
    """Measure the sizes that are not there yet, smallest first."""
    settings = {
        "train_head.epochs": args.epochs_head,
        "fine_tune.epochs": args.epochs_fine_tune,
        "export.formats": ["keras"],
    }
    for images in sorted(args.images):
        known = growth["sizes"].get(str(images))
        if args.again or known is None or known["settings"] != settings:
            growth["sizes"][str(images)] = measure_size(images, args.archive, settings)
            growth["machine"] = describe_machine()
            keep(growth, args.results)


def main(argv: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = stage.parser(__doc__)
    sizes = [2_000, 8_000, 32_000]
    stage.add_path(parser, "--archive", str(SHARED_DATA / "petimages.zip"), "photos, which are repeated")
    parser.add_argument("--images", nargs="+", type=int, default=sizes, metavar="N", help="(default: 2000 8000 32000)")
    parser.add_argument("--epochs-head", type=int, default=2, metavar="N", help="of stage 1 (default: 2)")
    parser.add_argument("--epochs-fine-tune", type=int, default=1, metavar="N", help="of stage 2 (default: 1)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="adds the figures to this JSON file")
    parser.add_argument("--again", action="store_true", help="measures what the file has already, too")
    args = parser.parse_args(argv)
    known = json.loads(args.results.read_text("utf-8")) if args.results and args.results.exists() else {}
    growth: Growth = known.get(KEY, {"machine": "", "sizes": {}})
    measure(args, growth)
    print("\n".join(describe(growth)))


if __name__ == "__main__":
    stage.run(main)
