"""What new photos cost: a run on many, then one on a few more, by the stages' own commands.

    python -m benchmarks.new_photos                          20,000 photos, then 200 more: ten minutes, 8 GB
    python -m benchmarks.new_photos --among                  the new ones lie among the others
    python -m benchmarks.new_photos --images 300 --more 3 --anew

The photos are of original size, repeated with changed bytes (benchmarks/photos.py). The new ones come after the others
of their class, as a camera names them, so that most shards stay as they are; with --among nearly every shard has a new
one. The project is a fresh clone of the last commit with the committed settings. Each stage is timed by itself, without
DVC, imports included. With --anew a third run on all photos begins from nothing, and has to write the same.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypedDict

from benchmarks.growth import measure_stage, output_files, read_stages
from benchmarks.machine import describe_machine
from benchmarks.photos import append_photos, repeat_archive
from benchmarks.seed_table import SHARED_DATA, Workplace, apply_preset, make_clone
from tasks import stage
from tasks.progress import Progress
from tasks.stage import PawlineError

KEYS = {"after": "new_photos", "among": "new_photos_among"}
STAGES = ("source", "ingest", "validate", "preprocess", "backbone", "features")
JUDGED = ("validate", "preprocess", "features")  # those that the bar is about
MOST = 0.08
Described = dict[str, dict[str, Any]]


class NewPhotos(TypedDict):
    """What is kept: seconds by stage of the first run and of the one after it."""

    machine: str
    images: int
    more: int
    where: str  # they lie: after the others of their class, or among them
    first: dict[str, float]
    second: dict[str, float]


def share(found: NewPhotos) -> float:
    """Return what the second run took of the first one's time, over the stages that are judged."""
    return sum(found["second"][name] for name in JUDGED) / sum(found["first"][name] for name in JUDGED)


def run_stages(stages: Described, workplace: Workplace, progress: Progress) -> dict[str, float]:
    """Run the stages in the clone; return the seconds of each."""
    seconds = {}
    for name in STAGES:
        seconds[name] = measure_stage(stages[name], workplace)["seconds"]
        progress.advance()
    return seconds


def digests(stages: Described, workplace: Workplace) -> dict[str, str]:
    """Return the SHA-256 of every output."""
    files = [file for name in STAGES for file in output_files(stages[name], workplace.clone)]
    return {str(file.relative_to(workplace.clone)): stage.sha256_of(file) for file in files}


def measure(archive: Path, images: int, more: int, *, among: bool, anew: bool) -> NewPhotos:
    """Run the stages on some photos, then on a few more, which lie among the others or after them.

    Raises:
        PawlineError: A stage failed, or taking over gave other bytes than a run from nothing.
    """
    workplace = Workplace(Path(tempfile.mkdtemp(prefix="pawline-new-photos-")))
    make_clone(workplace)
    photos = repeat_archive(archive, images, workplace.root / "photos.zip")
    apply_preset(workplace.clone / "params.yaml", {}, photos, seed=0)
    stages = read_stages(workplace.clone)
    with Progress("new photos", total=(3 if anew else 2) * len(STAGES), unit="stages") as progress:
        first = run_stages(stages, workplace, progress)
        if among:
            repeat_archive(archive, images + more, photos)
        else:
            append_photos(archive, more, photos)
        second = run_stages(stages, workplace, progress)
        if anew:
            written = digests(stages, workplace)
            shutil.rmtree(workplace.clone / "data")
            run_stages(stages, workplace, progress)
            different = sorted(dict(written.items() ^ digests(stages, workplace).items()))
            if different:
                raise PawlineError(f"a run from nothing writes another {different[0]}; it is in {workplace.clone}")
    shutil.rmtree(workplace.root)
    return {
        "machine": describe_machine(),
        "images": images,
        "more": more,
        "where": "among" if among else "after",
        "first": first,
        "second": second,
    }


def describe(found: NewPhotos) -> list[str]:
    """Return a line for each stage, and one for those that are judged."""
    lines = [f"{found['images']:,} photos, then {found['more']:,} more {found['where']} them ({found['machine']})"]
    lines += [f"{name:<12}{found['first'][name]:>8.1f} s{found['second'][name]:>8.1f} s" for name in STAGES]
    verdict = "" if share(found) <= MOST else f", above {MOST:.0%}"
    return [*lines, f"{', '.join(JUDGED)}: {share(found):.1%} of the first run's time{verdict}"]


def main(argv: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=SHARED_DATA / "petimages.zip", metavar="ZIP")
    parser.add_argument("--images", type=int, default=20_000, metavar="N", help="(default: 20000)")
    parser.add_argument("--more", type=int, default=200, metavar="N", help="(default: 200)")
    parser.add_argument("--among", action="store_true", help="lets the new ones lie among the others")
    parser.add_argument("--anew", action="store_true", help="compares the bytes with those of a run from nothing")
    parser.add_argument("--results", type=Path, metavar="FILE", help="adds the figures to this JSON file")
    args = parser.parse_args(argv)
    try:
        found = measure(args.archive, args.images, args.more, among=args.among, anew=args.anew)
    except PawlineError as error:
        parser.exit(1, f"error: {str(error).removeprefix('error: ')}\n")
    print("\n".join(describe(found)))
    if args.results is not None:
        known = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
        stage.write_json(known | {KEYS[found["where"]]: found}, args.results)


if __name__ == "__main__":
    main()
