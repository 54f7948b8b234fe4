"""What the process that leads a stage holds in memory for each photo, and how long it takes over it.

    python -m benchmarks.leading --results docs/performance.json           20,000 and 100,000 photos: a minute

The photos are a few bytes each, and every one was judged before, so that nothing is decoded: what is left is what the
leading process does by itself, whatever the number of workers. Each part is a process of its own in a clone of the last
commit; its bytes and processor seconds a photo are the difference of two sizes over the difference of the photos, so
that what does not depend on the photos is left out. Perceptual hashes are random: no two photos look the same. Linux
only.
"""

import json
import random
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from benchmarks.growth import Usage, measure_stage
from benchmarks.machine import describe_machine
from benchmarks.seed_table import Workplace, make_clone
from tasks import stage, validate, verdicts
from tasks.images import Verdict
from tasks.params import ValidateParams, load_section
from tasks.progress import Progress
from tasks.raw import RawRecord, list_chunks, read_candidates, write_shards

KEY = "leading"
IMPORTS = "from pathlib import Path; from tasks import preprocess, stage, validate, verdicts, duplicates;"
KNOWN = (
    "from tasks.params import ValidateParams, load_section;"
    "params = load_section(Path('params.yaml'), 'validate', ValidateParams);"
    "known = verdicts.read_known(Path('data/verdicts'), validate._keys(params));"
)
PARTS = {  # what is measured, and its program; None: the stage's own command
    "validate: names of files": "files = validate.list_candidates(Path('data/raw'))",
    "validate: verdicts known": KNOWN,
    "validate: rows and near-duplicate pairs": f"{KNOWN} found = validate.examine(Path('data/raw'), params, known)",
    "validate: all of it": None,
    "preprocess: photos and shards": (
        "photos = preprocess.list_photos(Path('data/raw'), Path('data/images.parquet'));"
        "shards = preprocess.plan_shards(photos, Path('data'))"
    ),
}


class Part(TypedDict):
    """A photo's share of a part of the work: memory, and seconds of a processor."""

    bytes: float
    seconds: float


class Leading(TypedDict):
    """What is kept."""

    machine: str
    photos: list[int]  # the two sizes
    parts: dict[str, Part]
    outputs: dict[str, float]  # bytes a photo, by path


def write_project(clone: Path, photos: int) -> None:
    """Write a raw table of so many tiny files, and verdicts on all of them."""
    draw = random.Random(0)  # noqa: S311 - hashes of pictures that do not exist
    for name in ("raw", "verdicts"):
        shutil.rmtree(clone / "data" / name, ignore_errors=True)
        (clone / "data" / name).mkdir(parents=True)
    write_shards(_records(photos), clone / "data" / "raw")
    files = [file for chunk in list_chunks(clone / "data" / "raw") for file in read_candidates(chunk)]
    seen = Verdict(width=500, height=375, format="JPEG", mode="RGB", bytes=40_000, jfif=True)
    found = {file.id: replace(seen, perceptual_hash=f"{draw.getrandbits(64):016x}") for file in files}
    keys = validate._keys(load_section(clone / "params.yaml", "validate", ValidateParams))
    verdicts.write_known(found, np.zeros((0, 2), np.uint64), clone / "data" / "verdicts", keys)
    pairs = clone / "data" / "verdicts" / "pairs.parquet"
    pairs.unlink()  # so that they are looked for


def _records(photos: int) -> Iterator[RawRecord]:
    for number in range(photos):
        label = ("cat", "dog")[number % 2]
        yield RawRecord(f"PetImages/{label}/{number:09d}.jpg", label, "", str(number).encode())


def measure_parts(workplace: Workplace, progress: Progress) -> dict[str, Usage]:
    """Run each part in the clone."""
    found = {}
    for name, program in PARTS.items():
        command = "python -m tasks.validate" if program is None else shlex.join(["python", "-c", IMPORTS + program])
        found[name] = measure_stage({"cmd": command}, workplace)
        progress.advance()
    return found


def measure(sizes: tuple[int, int]) -> Leading:
    """Measure both sizes, and return what a photo more costs."""
    workplace = Workplace(Path(tempfile.mkdtemp(prefix="pawline-leading-")))
    make_clone(workplace)
    found, outputs = [], []
    with Progress("leading", total=2 * len(PARTS), unit="parts") as progress:
        for photos in sizes:
            write_project(workplace.clone, photos)
            found.append(measure_parts(workplace, progress))
            paths = [workplace.clone / "data/images.parquet", workplace.clone / "data/verdicts/verdicts.parquet"]
            outputs.append({path.name: path.stat().st_size for path in paths})
    shutil.rmtree(workplace.root)
    more = sizes[1] - sizes[0]
    parts: dict[str, Part] = {
        name: {
            "bytes": round((large["memory"] - found[0][name]["memory"]) / more, 1),
            "seconds": round((large["cpu_seconds"] - found[0][name]["cpu_seconds"]) / more, 7),
        }
        for name, large in found[1].items()
    }
    grown = {name: round((size - outputs[0][name]) / more, 1) for name, size in outputs[1].items()}
    return {"machine": describe_machine(), "photos": list(sizes), "parts": parts, "outputs": grown}


def describe(found: Leading) -> list[str]:
    """Return a line for each part."""
    smaller, larger = found["photos"]
    lines = [f"a photo's share, from {smaller:,} to {larger:,} photos ({found['machine']})"]
    lines += [
        f"{name:<42}{part['bytes']:>8,.0f} bytes{part['seconds'] * 1e6:>8,.0f} us"
        for name, part in found["parts"].items()
    ]
    return lines + [f"{name:<42}{size:>8,.0f} bytes on disk" for name, size in found["outputs"].items()]


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = stage.parser(__doc__)
    sizes = [20_000, 100_000]
    parser.add_argument("--photos", type=int, nargs=2, default=sizes, metavar="N", help="(default: 20000 100000)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="adds the figures to this JSON file")
    args = parser.parse_args(argv)
    found = measure(tuple(sorted(args.photos)))
    print("\n".join(describe(found)))
    if args.results is not None:
        known = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
        stage.write_json(known | {KEY: found}, args.results)


if __name__ == "__main__":
    stage.run(main)
