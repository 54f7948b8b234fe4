"""Validation of photos of original size, against cleanvision, a plain Pillow loop, and libjpeg-turbo alone.

    python -m benchmarks.validation                                    the photos of petimages.zip
    python -m benchmarks.validation --archive photos.zip --images 300  300 of another archive's

Ours is what the stage `validate` does with the raw table: decode, SHA-256, perceptual hash, checks, duplicates, splits.
The start of its worker processes is timed, Great Expectations is not: `benchmarks.tfrecords` times the whole stage.

cleanvision scans the same photos as files for the same findings, on as many processes. The Pillow loop is one process:
open, load, convert to RGB, SHA-256, perceptual hash, standard deviation. libjpeg-turbo decodes every JPEG of the same
raw table to RGB and does nothing else, in worker processes that start as ours do.

Files that cannot be decoded are left out: cleanvision stops at them. What each side found is printed below its figures.
"""

import argparse
import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageStat

from benchmarks.rounds import Result, add_options, compare, report
from tasks.close_hashes import find_close_pairs
from tasks.duplicates import hashes_of, near_duplicate_groups
from tasks.image_table import ImageRow
from tasks.images import judge
from tasks.parallel import available_processors, map_processes
from tasks.params import ValidateParams, load_section
from tasks.raw import Chunk, RawRecord, list_chunks, read_chunk, write_shards
from tasks.sources import archive
from tasks.sources.layout import find_layout, left_out
from tasks.stage import PawlineError
from tasks.validate import decide, examine
from tasks.verdicts import NOTHING

# What cleanvision calls our exact duplicates, photos that look the same, `blank` and `too_small`.
CLEANVISION_ISSUES = ("exact_duplicates", "near_duplicates", "low_information", "odd_size")
CLEANVISION_BAR, PILLOW_BAR, LIBJPEG_BAR = 3.0, 3.0, 0.8


class Findings(NamedTuple):
    """How many photos a side found something about."""

    duplicates: int  # of the same bytes as another; cleanvision compares pixels
    alike: int  # of the same perceptual hash as another; ours: of nearly the same
    blank: int
    small: int

    def __str__(self) -> str:
        return (
            f"{self.duplicates} with an exact duplicate, {self.alike} that look like another, "
            f"{self.blank} blank, {self.small} small"
        )


class Photos(NamedTuple):
    """The same photos in both forms."""

    raw_dir: Path
    files: list[Path]
    jpegs: int
    unreadable: int  # left out


def read_photos(archive_path: Path, images: int | None) -> Iterator[RawRecord]:
    """Yield an archive's candidates as `ingest` takes them, or so many of them, evenly spread.

    Raises:
        PawlineError: It is missing or no archive of photos in class folders, or holds fewer.
    """
    names = [entry.path for entry in archive.entries(archive_path) if not left_out(entry.path)]
    layout = find_layout(names, str(archive_path))
    if images is not None and not 0 < images <= len(names):
        raise PawlineError(
            f"{archive_path} holds {len(names):,} photos: give --images from 1 to that, or an archive that "
            "`python -m benchmarks.photos` wrote"
        )
    count = images or len(names)
    chosen = {names[number * len(names) // count] for number in range(count)}
    for entry in archive.entries(archive_path):
        place = layout.place(entry.path)
        if entry.path in chosen and place:
            yield RawRecord(entry.path, place.label, place.split, entry.read())


def is_readable(content: bytes, params: ValidateParams) -> bool:
    """Say whether a file's bytes become a picture of no more pixels than are allowed."""
    verdict = judge(content, min_side_px=1, max_pixels=params.max_pixels, blank_max_stddev=0)
    return bool(verdict.perceptual_hash)


def prepare(archive_path: Path, images: int | None, folder: Path, params: ValidateParams) -> Photos:
    """Write the readable photos as a raw table and as files."""
    raw_dir, files_dir = folder / "raw", folder / "files"
    raw_dir.mkdir()
    files_dir.mkdir()
    files: list[Path] = []
    counts: Counter[str] = Counter()

    def kept() -> Iterator[RawRecord]:
        for record in read_photos(archive_path, images):
            if not is_readable(record.content, params):
                counts["unreadable"] += 1
                continue
            counts["jpegs"] += _is_jpeg(record.content)
            files.append(files_dir / f"{len(files):06d}.jpg")
            files[-1].write_bytes(record.content)
            yield record

    write_shards(kept(), raw_dir)
    if not files:
        raise PawlineError(f"none of these photos of {archive_path} can be decoded: give another --archive")
    return Photos(raw_dir, files, counts["jpegs"], counts["unreadable"])


def scan(photos: Photos, params: ValidateParams) -> list[ImageRow]:
    """Validate as the stage does, up to where Great Expectations comes in."""
    files, _, pairs = examine(photos.raw_dir, params, NOTHING)
    return decide(files, params, pairs)


def count_findings(rows: list[ImageRow], params: ValidateParams) -> Findings:
    """Count what our rows say, as the other sides count it."""
    reasons = Counter(row.reason for row in rows)
    pairs = find_close_pairs(
        hashes_of(rows), max_bits=params.near_duplicate_bits, known=NOTHING.hashes, known_pairs=NOTHING.pairs
    )
    groups = near_duplicate_groups(rows, pairs)
    return Findings(
        duplicates=_not_alone(row.id for row in rows),
        alike=sum(len(group) for group in groups if len(group) > 1),
        blank=reasons["blank"],
        small=reasons["too_small"],
    )


def scan_with_cleanvision(photos: Photos) -> Findings:
    """Scan the files with cleanvision, with its own thresholds."""
    from cleanvision import Imagelab

    lab = Imagelab(filepaths=[str(path) for path in photos.files])
    with redirect_stderr(io.StringIO()):  # its progress bars
        lab.find_issues({issue: {} for issue in CLEANVISION_ISSUES}, n_jobs=available_processors(), verbose=False)
    exact, near, blank, small = (lab.issues[f"is_{issue}_issue"] for issue in CLEANVISION_ISSUES)
    return Findings(*(int(found.sum()) for found in (exact, exact | near, blank, small)))


def scan_with_pillow(photos: Photos, params: ValidateParams) -> Findings:
    """Scan the files one after the other, as a first script would."""
    import imagehash

    ids, hashes, reasons = [], [], Counter[str]()
    for path in photos.files:
        content = path.read_bytes()
        rgb = Image.open(io.BytesIO(content)).convert("RGB")
        ids.append(hashlib.sha256(content).hexdigest())
        hashes.append(str(imagehash.phash(rgb)))
        stddev = ImageStat.Stat(rgb.convert("L")).stddev[0]
        if min(rgb.size) < params.min_side_px:
            reasons["small"] += 1
        elif stddev <= params.blank_max_stddev:
            reasons["blank"] += 1
    return Findings(_not_alone(ids), _not_alone(hashes), reasons["blank"], reasons["small"])


def decode_with_libjpeg(photos: Photos) -> int:
    """Decode every JPEG of the raw table to RGB in worker processes; return how many there were."""
    return sum(map_processes(decode_chunk, list_chunks(photos.raw_dir)))


def decode_chunk(chunk: Chunk) -> int:
    """Decode the JPEGs of one row group, those of four inks to their inks; return how many."""
    import simplejpeg  # type: ignore[import-untyped]

    jpegs = [record.content for record in read_chunk(chunk) if _is_jpeg(record.content)]
    for content in jpegs:
        inks = simplejpeg.decode_jpeg_header(content, strict=False)[2] in ("CMYK", "YCCK")
        simplejpeg.decode_jpeg(content, "CMYK" if inks else "RGB", strict=False)
    return len(jpegs)


def measure(photos: Photos, params: ValidateParams, rounds: int) -> dict[str, Result]:
    """Run each comparison; before it each side once, which says what it finds and warms it up."""
    others: dict[str, tuple[Callable[[], Findings | int], str, float]] = {
        "cleanvision": (lambda: scan_with_cleanvision(photos), "cleanvision", CLEANVISION_BAR),
        "pillow": (lambda: scan_with_pillow(photos, params), "a plain Pillow loop", PILLOW_BAR),
        "libjpeg": (lambda: decode_with_libjpeg(photos), "libjpeg-turbo's decoder alone", LIBJPEG_BAR),
    }
    ours, count = count_findings(scan(photos, params), params), len(photos.files)
    results = {}
    for name, (theirs, against, bar) in others.items():
        found = theirs()
        result = compare(
            lambda: scan(photos, params),
            theirs,
            what=f"validation of {count:,} photos",
            against=against,
            rounds=rounds,
            images=count,
            bar=bar,
        )
        said = f"{found:,} JPEGs decoded, {count - photos.jpegs:,} others not" if isinstance(found, int) else str(found)
        result["notes"] = [f"Pawline: {ours}", f"{against}: {said}"]
        results[f"validation_{name}"] = result
    if photos.unreadable:
        results["validation_cleanvision"]["notes"].append(f"{photos.unreadable:,} files that nobody can read left out")
    return results


def _is_jpeg(content: bytes) -> bool:
    return content.startswith(b"\xff\xd8")


def _not_alone(keys: Iterable[Hashable]) -> int:
    """Count those that are there more than once."""
    return sum(times for times in Counter(keys).values() if times > 1)


def main(argv: list[str] | None = None) -> None:
    """Run the comparisons from the command line."""
    from benchmarks.seed_table import ROOT, SHARED_DATA  # not what worker processes should have to import

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=SHARED_DATA / "petimages.zip", help="zip or tar of photos")
    parser.add_argument("--images", type=int, help="how many of its photos (default: all)")
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml", help="thresholds (default: the project's)")
    add_options(parser)
    args = parser.parse_args(argv)
    try:
        params = load_section(args.params, "validate", ValidateParams)
        with tempfile.TemporaryDirectory(prefix="pawline-validation-") as folder:
            photos = prepare(args.archive, args.images, Path(folder), params)
            results = measure(photos, params, args.rounds)
    except PawlineError as error:
        parser.exit(1, f"error: {error}\n")
    report(results, args.results)


if __name__ == "__main__":
    main()
