"""Files that `--sort` and `--explain` write: inside their folder whatever a photo is called, and over no other file."""

import hashlib
import os
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from inference.answers import Answer
from inference.inputs import STDIN
from inference.web import IS_URL

UNREADABLE = "unreadable"
MOST_BYTES = 240  # of a name, so that a number still fits into the 255 that file systems allow


class Copies:
    """Writes files, each whole or not at all, over no other: where the name is taken, under the next free number.

    What lies there under a name is read once, so that a file of a name that thousands have takes no longer.
    """

    def __init__(self) -> None:
        self._families: dict[Path, _Family] = {}  # by the name that all of them wanted

    def sort(self, answer: Answer, folder: Path) -> None:
        """Copy a photo into a folder named after its class, `unsure` or `unreadable`; one with no bytes is left out."""
        if answer.content is None:
            return
        within = folder / safe_name(answer.label or UNREADABLE)
        copied = self.write(within / name_of(answer), answer.content)
        original = Path(answer.photo.name)
        if answer.photo.content is None and not IS_URL.match(answer.photo.name) and original.is_file():
            shutil.copystat(original, copied)

    def write(self, path: Path, content: bytes) -> Path:
        """Write a file, unless one of that name, or of that name and a number, has this content already.

        Returns:
            Where the content is now.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path not in self._families and not os.path.lexists(path) and _is_written(path, content):
            return path
        if path not in self._families:
            self._families[path] = _Family(path)
        return self._families[path].write(content)


class _Family:
    """The files of one name: the one that has it, and those that have it with a number."""

    def __init__(self, path: Path) -> None:
        self._path, self._number = path, 1  # the first that is free
        self._where: dict[bytes, Path] = {}  # by SHA-256
        while os.path.lexists(numbered := self._numbered()):
            if numbered.is_file():
                self._where.setdefault(hashlib.sha256(numbered.read_bytes()).digest(), numbered)
            self._number += 1

    def write(self, content: bytes) -> Path:
        digest = hashlib.sha256(content).digest()
        while digest not in self._where:
            numbered = self._numbered()
            if _is_written(numbered, content):  # another process may have taken it
                self._where[digest] = numbered
            self._number += 1
        return self._where[digest]

    def _numbered(self) -> Path:
        number = f"-{self._number}" if self._number > 1 else ""
        return self._path.with_name(f"{self._path.stem}{number}{self._path.suffix}")


def _is_written(path: Path, content: bytes) -> bool:
    """Write a file that appears whole, unless there is one of that name."""
    unfinished = path.with_name(f".unfinished.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        _name_it(unfinished, path)
    except FileExistsError:
        return False
    finally:
        unfinished.unlink(missing_ok=True)
    return True


def _name_it(unfinished: Path, path: Path) -> None:
    try:
        path.hardlink_to(unfinished)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        path.open("xb").close()
        unfinished.replace(path)


def name_of(answer: Answer) -> str:
    """Return the photo's own name, without its folders; of a URL, the end of its path."""
    name = answer.photo.name
    if IS_URL.match(name):
        last = unquote(PurePosixPath(urlsplit(name).path).name)
        name = "".join(char if char.isprintable() else "_" for char in last)
    return safe_name("standard-input" if name == STDIN else PurePosixPath(name).name)


def safe_name(text: str) -> str:
    """Return text that is the name of one file in its folder: no separators, not `..`, not too long, not empty."""
    name = "".join("_" if char in "/\\\0" else char for char in text)
    if not name.strip(". "):
        return "unnamed"
    ending = PurePosixPath(name).suffix
    kept = os.fsencode(ending) if len(os.fsencode(ending)) < MOST_BYTES // 2 else b""
    stem = os.fsencode(name).removesuffix(kept)
    return os.fsdecode(stem[: MOST_BYTES - len(kept)] + kept)
