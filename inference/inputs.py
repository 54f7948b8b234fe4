"""What is to be answered: files, folders, globs, URLs and standard input, one photo at a time, in the order given."""

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import IO

from inference import web
from inference.web import IS_ADDRESS, IS_URL, download
from tasks.images import SIGNATURES, UndecodableError
from tasks.sources.layout import left_out
from tasks.store_urls import without_secrets

STDIN = "-"
HEAD_BYTES = 4096  # what tells an image on standard input from a list
MAX_LINE_BYTES = 1 << 16  # of a list on standard input; no path and no URL is longer
CHUNK_BYTES = 1 << 20
SHELLS_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # what `<(...)` becomes; another pipe may have no writer
CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f]")  # no list of paths has these; an image of whatever kind does


@dataclass(frozen=True)
class Photo:
    """Something to answer.

    Attributes:
        name: As the user named it: a path, a URL without its secrets, or `-`.
        content: Its bytes, if they are known already.
        problem: Why there is nothing to read.
        source: The path or URL to read, if it is not the name; never shown.
    """

    name: str
    content: bytes | None = None
    problem: UndecodableError | None = None
    source: str = field(default="", repr=False)

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            UndecodableError: They cannot be had; `reason` is `missing`, `unreadable`, `not_a_file`, `unreachable` or
                `too_large`.
        """
        if self.problem is not None:
            raise self.problem
        if self.content is not None:
            return self.content
        source = self.source or self.name
        return download(source) if IS_URL.match(source) else _read_file(source)


class Walk:
    """Turns what the user named into photos, lazily: a folder of a million files is never held as a whole.

    Of folders, what is named as ingest would take it is taken: nothing hidden, and nothing that is named as something
    else than an image. Symbolic links in them are not followed but counted. What turns out to be no file, such as a
    pipe, is a photo that cannot be read. A file that is named itself is read whatever its name, and a link followed.

    Attributes:
        links: How many symbolic links were left out so far.
    """

    def __init__(self, named: Sequence[str], stdin: IO[bytes], leave_out: Iterable[Path] = ()) -> None:
        """Take what was named.

        Args:
            named: Paths, globs, URLs, or `-`.
            stdin: Where `-` is read from. Unbuffered if it may be a pipe: then a photo comes as soon as it is named.
            leave_out: Folders of which nothing is taken that is not named itself: those that the same command writes.
        """
        self._named, self._stdin = named, stdin
        self._leave_out = {folder.resolve() for folder in leave_out}
        self.links = 0

    def __iter__(self) -> Iterator[Photo]:
        self.links = 0
        for name in self._named:
            yield from self._from_stdin() if name == STDIN else self._expand(name)

    def count(self) -> int | None:
        """Return how many there are, by listing the folders; None where standard input has to be read for it."""
        return None if STDIN in self._named else sum(1 for _ in self)

    def _expand(self, name: str) -> Iterator[Photo]:
        shown = without_secrets(name)
        if IS_URL.match(name):
            yield Photo(shown, source=name)
        elif _is_dir(name):
            yield from self._some(shown, self._in_folder(name), "empty_folder", "holds no file named as an image")
        elif os.path.lexists(name):
            yield Photo(name)
        elif IS_ADDRESS.match(name):
            yield Photo(shown, problem=UndecodableError("unsupported", "only http:// and https:// are fetched"))
        elif glob.has_magic(name):
            yield from self._some(shown, self._matching(name), "no_match", "nothing matches this pattern")
        else:
            yield Photo(shown, source=name)

    def _some(self, name: str, photos: Iterator[Photo], reason: str, evidence: str) -> Iterator[Photo]:
        first = next(photos, None)
        yield first or Photo(name, problem=UndecodableError(reason, evidence))
        yield from photos

    def _matching(self, pattern: str) -> Iterator[Photo]:
        parts = Path(pattern).parts
        top, deep = Path(*takewhile(lambda part: not glob.has_magic(part), parts)), "**" in parts
        found = _below(top, Path(pattern).relative_to(top)) if deep else glob.glob(pattern)  # noqa: PTH207 - absolute
        for path in sorted(found):
            resolved = Path(os.path.realpath(path))  # which, unlike Path.resolve, takes a link to itself
            if not self._leave_out.isdisjoint((resolved, *resolved.parents)):
                continue
            if deep and resolved != Path(os.path.realpath(top)) / Path(path).relative_to(top):
                self.links += 1  # or a file behind one: as in a folder that is searched
                continue
            if not _is_dir(path):
                yield Photo(path)
            elif not deep:  # which matches what is in its folders by itself
                yield from self._in_folder(path)

    def _in_folder(self, top: str) -> Iterator[Photo]:
        closed: list[OSError] = []
        for folder, folders, files in os.walk(top, onerror=closed.append):
            yield from _not_listed(closed)
            folders[:] = sorted(name for name in folders if self._is_entered(folder, name))
            for name in sorted(files):
                if not left_out(name) and not self._is_link(folder, name):
                    yield Photo(str(Path(folder, name)))
        yield from _not_listed(closed)

    def _is_entered(self, folder: str, name: str) -> bool:
        if left_out(f"{name}/") or Path(folder, name).resolve() in self._leave_out:
            return False
        return not self._is_link(folder, name)

    def _is_link(self, folder: str, name: str) -> bool:
        is_link = Path(folder, name).is_symlink()
        self.links += is_link
        return is_link

    def _from_stdin(self) -> Iterator[Photo]:
        head = _read_head(self._stdin)
        if not head or not _is_list(head):
            content = head + b"".join(_pieces(self._stdin, web.MAX_BYTES - len(head) + 1))
            too_large = web.too_large() if len(content) > web.MAX_BYTES else None
            yield Photo(STDIN, content=None if too_large else content, problem=too_large)
            return
        separator, line_end = (b"\0", b"") if b"\0" in head else (b"\n", b"\r")
        for line in _lines(head, self._stdin, separator):
            name = os.fsdecode(line.removesuffix(line_end))
            if len(line) > MAX_LINE_BYTES:
                shown = f"{without_secrets(name)[:40]}..."
                yield Photo(shown, problem=UndecodableError("unreadable", "a line too long for a path"))
            elif name:
                yield from self._expand(name)


def _below(top: Path, pattern: Path) -> list[str]:
    """Return what matches a pattern with `**`, which follows no links: `glob.glob` does, round in circles, too."""
    whole = pattern / "*" if pattern.name == "**" else pattern
    return [
        str(path)
        for path in top.glob(str(whole))
        if not any(part.startswith(".") and part not in pattern.parts for part in path.relative_to(top).parts)
    ]


def _read_file(name: str) -> bytes:
    """Return a file's bytes, or those of a pipe that the shell made: `<(...)`."""
    try:
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode) and not (stat.S_ISFIFO(status.st_mode) and name.startswith(SHELLS_PIPES)):
            raise UndecodableError("not_a_file", "not a regular file")  # opening it could wait for ever
        if status.st_size > web.MAX_BYTES:
            raise web.too_large()
        with Path(name).open("rb") as file:
            content = file.read(web.MAX_BYTES + 1)
    except FileNotFoundError:
        link = Path(name).is_symlink()
        raise UndecodableError("missing", "a link to nothing" if link else "no such file or folder") from None
    except (OSError, ValueError) as error:  # ValueError: a name that none can be
        raise UndecodableError("unreadable", getattr(error, "strerror", None) or str(error)) from None
    if len(content) > web.MAX_BYTES:
        raise web.too_large()
    return content


def _not_listed(closed: list[OSError]) -> Iterator[Photo]:
    """Yield, and take off the list, the folders that could not be listed."""
    while closed:
        error = closed.pop(0)
        yield Photo(str(error.filename), problem=UndecodableError("unreadable", error.strerror or str(error)))


def _is_dir(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # too long to be a name, or beyond a folder that may not be entered: reading it says so
        return False


def is_image(head: bytes) -> bool:
    """Return whether a file that begins like this is an image of a format that is read."""
    return any(re.match(signature, head, re.DOTALL) for signature in SIGNATURES.values())


def _is_list(head: bytes) -> bool:
    return not is_image(head) and not CONTROL.search(head)


def _read_head(file: IO[bytes]) -> bytes:
    """Read on until it shows what this is: a list shows it with its first line."""
    head = b""
    while len(head) < HEAD_BYTES and not is_image(head) and b"\n" not in head and b"\0" not in head:
        piece = file.read(HEAD_BYTES - len(head))
        if not piece:
            break
        head += piece
    return head


def _pieces(file: IO[bytes], most: int) -> Iterator[bytes]:
    """Yield what is in a file, up to so many bytes: of a pipe, a read gives what is there."""
    while most > 0 and (piece := file.read(min(most, CHUNK_BYTES))):
        yield piece
        most -= len(piece)


def _lines(head: bytes, rest: IO[bytes], separator: bytes) -> Iterator[bytes]:
    """Yield what lies between separators, reading on only when it is asked for; of what is too long, the beginning."""
    pending = head
    while True:
        *lines, pending = pending.split(separator)
        yield from lines
        pending = pending[: MAX_LINE_BYTES + 1]
        chunk = rest.read(HEAD_BYTES)
        if not chunk:
            break
        pending += chunk
    yield pending
