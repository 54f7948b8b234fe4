"""A folder of class folders."""

import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasks.sources.layout import MAX_FILE_BYTES, Entry
from tasks.stage import PawlineError


class File(NamedTuple):
    """A file of the folder, as the file system lists it."""

    path: str  # printable, relative to the folder
    file: str  # as the system calls it
    status: os.stat_result


def list_files(folder: Path) -> list[File]:
    """List the files below a folder, sorted by path; symbolic links are listed and not followed.

    Raises:
        PawlineError: It is missing, not a folder, or some folder in it cannot be read.
    """
    if not stat.S_ISDIR(status_of(folder).st_mode):
        raise PawlineError(f"data.path {folder} is not a folder: for a zip or tar set data.source to archive")
    top = str(folder)
    return sorted(_walk(top, len(top.rstrip(os.sep)) + 1))


def entries(folder: Path) -> Iterator[Entry]:
    """Yield the folder's files in the order of their paths."""
    for file in list_files(folder):
        reason = "" if is_regular(file.status) else "symbolic link or special file"
        yield Entry(file.path, functools.partial(read, file.file), reason)


def status_of(path: Path) -> os.stat_result:
    """Return what the file system says of `data.path`.

    Raises:
        PawlineError: It does not exist or cannot be reached.
    """
    try:
        return path.stat()
    except FileNotFoundError:
        raise PawlineError(f"data.path {path} does not exist: correct it in params.yaml") from None
    except OSError as error:
        raise PawlineError(
            f"data.path {path} cannot be read ({error.strerror}): check it and its permissions"
        ) from None


def is_regular(status: os.stat_result) -> bool:
    """Return whether it is a plain file, not a link, pipe or device."""
    return stat.S_ISREG(status.st_mode)


def read(file: str) -> bytes:
    """Return a file's bytes.

    It is a plain file where it was listed: what has taken its place since, such as a link that leads elsewhere or a
    pipe, is not read.

    Raises:
        PawlineError: It cannot be read, is no plain file any more, or is larger than any photo.
    """
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:  # noqa: PTH123 - a handle
            status = os.fstat(opened.fileno())
            if is_regular(status) and status.st_size <= MAX_FILE_BYTES:
                return opened.read()
    except OSError as error:
        raise PawlineError(f"{file!r} cannot be read ({error.strerror}): mend or remove it and try again") from None
    what = f"has {status.st_size:,} bytes, above {MAX_FILE_BYTES:,}" if is_regular(status) else "is no file any more"
    raise PawlineError(f"{file!r} {what}: no photo is like that; move it elsewhere and try again")


def _walk(folder: str, prefix: int) -> Iterator[File]:
    try:
        with os.scandir(folder) as listing:
            for item in listing:
                if item.is_dir(follow_symlinks=False):
                    yield from _walk(item.path, prefix)
                else:
                    yield File(_printable(item.path[prefix:]), item.path, item.stat(follow_symlinks=False))
    except OSError as error:
        raise PawlineError(f"folder {folder!r} cannot be read ({error.strerror}): check its permissions") from None


def _printable(path: str) -> str:
    r"""Spell bytes that are not UTF-8 as `\xe7`; every other name stays as it is."""
    path = path.replace(os.sep, "/")
    return path if path.isprintable() else os.fsencode(path).decode("utf-8", "backslashreplace")
