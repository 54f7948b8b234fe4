"""Hashing many files: each read once, for all hashes at a time, on all processors."""

import hashlib
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from tasks.parallel import available_processors
from tasks.progress import Progress
from tasks.stage import PawlineError

PIECE_BYTES = 1 << 20


class Digest(NamedTuple):
    """A file's content: hashes in hex (`sha256` only where it was asked for) and size in bytes."""

    md5: str
    sha256: str | None
    size: int


class Hasher:
    """Knows the digest of every file it was given; two names of one file (links of DVC's cache) are read once.

    Attributes:
        bytes_read: How much was read from disk so far.
    """

    def __init__(self, *, sha256: bool, progress: bool = False) -> None:
        self.bytes_read = 0
        self._sha256, self._progress = sha256, progress
        self._digests: dict[tuple[int, int], Digest] = {}  # by device and inode

    def add(self, paths: Iterable[Path]) -> None:
        """Hash files in parallel; paths that are no file are passed over.

        Raises:
            PawlineError: A file cannot be read.
        """
        sizes: dict[tuple[int, int], tuple[int, Path]] = {}
        for path in paths:
            if (found := _stat_file(path)) is not None:
                sizes[found.st_dev, found.st_ino] = (found.st_size, path)
        new = sorted((size, key, path) for key, (size, path) in sizes.items() if key not in self._digests)
        new.reverse()  # the largest first, so that no processor is left with one in the end
        total = sum(size for size, _, _ in new)
        shown = Progress("verify", total=total, unit="B", scale=True) if self._progress and new else None
        # hashlib lets other threads run while it hashes
        with shown or nullcontext(), ThreadPoolExecutor(available_processors()) as pool:
            digests = pool.map(lambda item: digest_file(item[2], sha256=self._sha256), new)
            for (_, key, _), digest in zip(new, digests, strict=True):
                self._digests[key] = digest
                self.bytes_read += digest.size
                if shown is not None:
                    shown.advance(digest.size)

    def digest(self, path: Path) -> Digest | None:
        """Return the digest of a file; None if there is none."""
        found = _stat_file(path)
        if found is None:
            return None
        key = (found.st_dev, found.st_ino)
        if key not in self._digests:
            self._digests[key] = digest_file(path, sha256=self._sha256)
            self.bytes_read += found.st_size
        return self._digests[key]


def digest_file(path: Path, *, sha256: bool) -> Digest:
    """Hash a file in one reading.

    Raises:
        PawlineError: It cannot be read.
    """
    hashes = [hashlib.md5(usedforsecurity=False), *([hashlib.sha256()] if sha256 else [])]
    size, piece = 0, bytearray(PIECE_BYTES)
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(piece):
                size += count
                for one in hashes:
                    one.update(memoryview(piece)[:count])
    except OSError as error:
        raise unreadable(path, error) from error
    return Digest(hashes[0].hexdigest(), hashes[1].hexdigest() if sha256 else None, size)


def unreadable(path: Path, error: OSError) -> PawlineError:
    """Return the error of a file or folder that is there and cannot be read."""
    return PawlineError(f"{path}: {error.strerror}: make it readable, then `pawline verify` again")


def _stat_file(path: Path) -> os.stat_result | None:
    """Return what the system says of a regular file; None if there is none, or the name can be no file's."""
    try:
        found = path.stat()
    except PermissionError as error:
        raise unreadable(path, error) from error
    except (OSError, ValueError):  # such as a forged name that is too long
        return None
    return found if stat.S_ISREG(found.st_mode) else None
