"""TFRecords from an archive of cats and dogs: Pawline's first four stages against TFDS's `cats_vs_dogs` builder.

    python -m benchmarks.tfrecords                                     the photos of petimages.zip
    python -m benchmarks.tfrecords --archive photos.zip --images 300   300 of another archive's

Both sides read the same zip, in the layout of PetImages, and are timed as whole processes, imports included. Ours are
`source`, `ingest`, `validate` and `preprocess`, one process each, in a project folder that holds a params.yaml and
nothing else. TFDS runs its own code, but for where the archive comes from (it is there, not downloaded) and how many
photos without a JFIF header it expects.

The sides do not write the same: ours judges every photo, keeps those without a JFIF header, drops duplicates, assigns
splits and writes upright squares as PNG; TFDS writes what it keeps in its own size, as JPEG encoded anew. So the notes
say how long `preprocess` takes alone. Files that cannot be decoded are left out of the zip: TFDS's builder fails at a
truncated JPEG.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML

from benchmarks.rounds import Result, add_options, make_result, report
from benchmarks.seed_table import ROOT, SHARED_DATA, Workplace, run_timed
from benchmarks.validation import is_readable, read_photos
from flows.presets import apply_settings
from tasks import stage
from tasks.params import ValidateParams, load_section
from tasks.progress import Progress
from tasks.stage import PawlineError

STAGES = ("source", "ingest", "validate", "preprocess")
FOLDERS = {"cat": "PetImages/Cat", "dog": "PetImages/Dog"}
BAR = 3.0

TFDS_PROGRAM = """
import sys

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.image_classification import cats_vs_dogs

archive, out_dir, without_jfif = sys.argv[1:]
tfds.download.DownloadManager.download = lambda manager, url: epath.Path(archive)
cats_vs_dogs._NUM_CORRUPT_IMAGES = int(without_jfif)
tfds.builder("cats_vs_dogs", data_dir=out_dir).download_and_prepare()
"""


class Zipped(NamedTuple):
    """The archive that both sides read."""

    path: Path
    photos: int
    without_jfif: int
    unreadable: int  # left out


class Written(NamedTuple):
    """What a side made of the archive's photos."""

    images: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.images:,} images in {self.bytes / 1e6:,.1f} MB"


def write_archive(archive_path: Path, images: int | None, out: Path) -> Zipped:
    """Write an archive's readable photos, or so many of all, to a zip in the layout of PetImages.

    Raises:
        PawlineError: It is no archive of cats and dogs, or holds fewer.
    """
    params = load_section(ROOT / "params.yaml", "validate", ValidateParams)
    written: Counter[str] = Counter()
    with zipfile.ZipFile(out, "w") as zipped:
        for record in read_photos(archive_path, images):
            if record.label not in FOLDERS:
                raise PawlineError(
                    f"{archive_path} has a class {record.label!r}: TFDS's builder takes cat and dog only"
                )
            if not is_readable(record.content, params):
                written["unreadable"] += 1
                continue
            written["without_jfif"] += b"JFIF" not in record.content[:10]
            zipped.writestr(f"{FOLDERS[record.label]}/{written['photos']}.jpg", record.content)
            written["photos"] += 1
    return Zipped(out, written["photos"], written["without_jfif"], written["unreadable"])


def start_project(zipped: Zipped, workplace: Workplace) -> None:
    """Make an empty project on the archive and an empty cache of its user."""
    for folder in (workplace.clone, workplace.cache):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    yaml = YAML(typ="safe", pure=True)
    settings = {"data.source": "archive", "data.path": str(zipped.path), "data.sha256": None}
    params = apply_settings(yaml.load(ROOT / "params.yaml"), settings)
    yaml.dump(params, workplace.clone / "params.yaml")


def run_stages(workplace: Workplace) -> dict[str, float]:
    """Run our stages in the project; return the seconds of each."""
    return {name: run_timed([sys.executable, "-m", f"tasks.{name}"], workplace, cwd=workplace.clone) for name in STAGES}


def run_tfds(zipped: Zipped, workplace: Workplace) -> float:
    """Run TFDS's builder; return its seconds."""
    out_dir = tfds_dir(workplace)
    shutil.rmtree(out_dir, ignore_errors=True)
    arguments = [str(zipped.path), str(out_dir), str(zipped.without_jfif)]
    return run_timed([sys.executable, "-c", TFDS_PROGRAM, *arguments], workplace, cwd=workplace.root)


def tfds_dir(workplace: Workplace) -> Path:
    """Return where TFDS's side writes."""
    return workplace.root / "tfds"


def read_written(folder: Path) -> Written:
    """Read how many images, and bytes of them, TFRecords below a folder hold, by their dataset_info.json."""
    (path,) = folder.rglob("dataset_info.json")
    splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
    return Written(
        sum(int(length) for split in splits for length in split["shardLengths"]),
        sum(int(split["numBytes"]) for split in splits),
    )


def measure(zipped: Zipped, workplace: Workplace, rounds: int) -> Result:
    """Run both sides in turn, each from nothing."""
    ours: list[dict[str, float]] = []
    theirs: list[float] = []
    with Progress("TFRecords", total=2 * rounds, unit="runs") as progress:
        for _ in range(rounds):
            start_project(zipped, workplace)
            ours.append(run_stages(workplace))
            progress.advance()
            theirs.append(run_tfds(zipped, workplace))
            progress.advance()
    result = make_result(
        [sum(seconds.values()) for seconds in ours],
        theirs,
        what=f"TFRecords from an archive of {zipped.photos:,} photos",
        against="TFDS's cats_vs_dogs builder",
        images=zipped.photos,
        bar=BAR,
    )
    result["notes"] = describe_sides(zipped, workplace, ours)
    return result


def describe_sides(zipped: Zipped, workplace: Workplace, ours: list[dict[str, float]]) -> list[str]:
    """Say where our time went, and what each side kept and dropped in the last round."""
    medians = {name: statistics.median(seconds[name] for seconds in ours) for name in STAGES}
    reasons = stage.read_json(workplace.clone / "reports" / "metrics" / "validation.json")["by_reason"]
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items()) or "none"
    left_out = f", {zipped.unreadable:,} files that nobody can read left out of it" if zipped.unreadable else ""
    return [
        f"our stages: {', '.join(f'{name} {seconds:.2f} s' for name, seconds in medians.items())}",
        f"Pawline: {read_written(workplace.clone / 'data' / 'tfrecords')}, PNG; dropped: {dropped}",
        f"TFDS: {read_written(tfds_dir(workplace))}, JPEG; dropped: no JFIF header {zipped.without_jfif:,}",
        f"the archive: {zipped.path.stat().st_size / 1e6:,.1f} MB{left_out}",
    ]


def main(argv: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=SHARED_DATA / "petimages.zip", help="zip or tar of photos")
    parser.add_argument("--images", type=int, help="how many of its photos (default: all)")
    add_options(parser)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="pawline-tfrecords-") as folder:
        try:
            zipped = write_archive(args.archive, args.images, Path(folder) / "photos.zip")
            result = measure(zipped, Workplace(Path(folder)), args.rounds)
        except PawlineError as error:
            parser.exit(1, f"error: {str(error).removeprefix('error: ')}\n")
    report({"tfrecords": result}, args.results)


if __name__ == "__main__":
    main()
