"""As many photos of original size as a comparison asks for: the JPEGs of an archive, over and over, in a zip.

    python -m benchmarks.photos petimages.zip 25000 photos-25000.zip

Each copy has other bytes and the same pixels: a JPEG comment with the copy's number. So no copy is an exact duplicate,
but all copies of a photo are near-duplicates, which is one group and stays in one split. Class folders stay; photos in
other formats, which have no place for a comment in common, are left out. Files that begin like a JPEG and are damaged
further on are repeated like the others.
"""

import argparse
import hashlib
import zipfile
from pathlib import Path

from tasks import stage
from tasks.progress import Progress
from tasks.sources import archive
from tasks.sources.layout import left_out
from tasks.stage import PawlineError

JPEG_START = b"\xff\xd8"
# JFIF 1.02 and EXIF 2.32 are told by their segment coming first.
APP0, APP1, COMMENT = b"\xff\xe0", b"\xff\xe1", b"\xff\xfe"


def repeat_archive(archive_path: Path, count: int, out: Path) -> Path:
    """Write a zip of so many photos, one of them in memory at a time, and return where it is.

    Every photo of the archive comes equally often, but for the rest of a division, which is drawn from all classes.
    The bytes depend on the archive and the count alone. Nothing is done if `out` holds so many already.

    Raises:
        PawlineError: The archive is unusable or has no JPEG, or the count is below 1.
    """
    if count < 1:
        raise PawlineError(f"cannot write {count} photos: ask for 1 or more")
    if count_files(out) == count:
        return out
    copies = _share_out(_jpeg_paths(archive_path), count, archive_path)
    with (
        stage.whole_file(out) as unfinished,
        zipfile.ZipFile(unfinished, "w") as zipped,  # stored: photos are compressed already
        Progress(f"write {out.name}", total=count) as progress,
    ):
        for entry in archive.entries(archive_path):
            if entry.path in copies:
                _write_copies(zipped, entry.path, entry.read(), copies[entry.path])
                progress.advance(copies[entry.path])
    return out


def append_photos(archive_path: Path, more: int, out: Path) -> None:
    """Add photos of an archive, at most all, to a zip of repeated ones: other bytes, behind the others of a class."""
    chosen = [path for path, copies in _share_out(_jpeg_paths(archive_path), more, archive_path).items() if copies]
    with zipfile.ZipFile(out, "a") as zipped:
        for entry in archive.entries(archive_path):
            if entry.path in chosen:
                folder, slash, name = entry.path.rpartition("/")
                zipped.writestr(f"{folder}{slash}zz-new-{name}", add_comment(entry.read(), "new"))


def count_files(zip_path: Path) -> int:
    """Return how many files a zip holds; 0 if there is none."""
    if not zip_path.exists():
        return 0
    with zipfile.ZipFile(zip_path) as zipped:
        return len(zipped.infolist())


def add_comment(photo: bytes, text: str) -> bytes:
    """Return a JPEG with a comment after its APP0 and APP1 segments, or at its end if one of them is cut off."""
    position = len(JPEG_START)
    while photo[position : position + 2] in (APP0, APP1):
        position += 2 + int.from_bytes(photo[position + 2 : position + 4], "big")
    comment = COMMENT + (2 + len(text.encode())).to_bytes(2, "big") + text.encode()
    return photo[:position] + comment + photo[position:]


def _jpeg_paths(archive_path: Path) -> list[str]:
    return [
        entry.path
        for entry in archive.entries(archive_path)
        if not left_out(entry.path) and entry.read().startswith(JPEG_START)
    ]


def _share_out(paths: list[str], count: int, archive_path: Path) -> dict[str, int]:
    """Return how often each photo comes; which ones come once more is as good as random."""
    if not paths:
        raise PawlineError(f"{archive_path} holds no JPEG to repeat: give an archive of JPEG photos")
    shuffled = sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())
    rounds, rest = divmod(count, len(paths))
    return {path: rounds + (place < rest) for place, path in enumerate(shuffled)}


def _write_copies(zipped: zipfile.ZipFile, path: str, photo: bytes, copies: int) -> None:
    """Write a photo so often, the first time as it is."""
    folder, slash, name = path.rpartition("/")
    for number in range(copies):
        member = zipfile.ZipInfo(f"{folder}{slash}{number:05d}-{name}")  # of 1980, whenever it is written
        member.external_attr = 0o644 << 16
        zipped.writestr(member, add_comment(photo, f"copy {number}") if number else photo)


def main(argv: list[str] | None = None) -> None:
    """Write the zip from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="zip or tar with a folder of photos for each class")
    parser.add_argument("count", type=int, help="photos to write")
    parser.add_argument("out", type=Path, help="the zip to write")
    args = parser.parse_args(argv)
    out = repeat_archive(args.archive, args.count, args.out)
    print(f"{args.count:,} photos, {out.stat().st_size / 1e6:,.0f} MB, in {out}")


if __name__ == "__main__":
    stage.run(main)
