"""Files that `--sort` and `--explain` write: inside their folder whatever a photo is called, and over no other file."""

import itertools
import os
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from inference.answers import Answer
from inference.inputs import IS_URL, STDIN

UNREADABLE = "unreadable"
MOST_BYTES = 240  # of a name, so that a number still fits into the 255 that file systems allow


def sort_copy(answer: Answer, folder: Path) -> None:
    """Copy a photo into a folder named after its class, or `unsure`, or `unreadable`; one with no bytes is left out."""
    if answer.content is None:
        return
    within = folder / safe_name(answer.label or UNREADABLE)
    copied = write_new(within / name_of(answer), answer.content)
    original = Path(answer.photo.name)
    if answer.photo.content is None and not IS_URL.match(answer.photo.name) and original.is_file():
        shutil.copystat(original, copied)


def write_new(path: Path, content: bytes) -> Path:
    """Write a file that was not there; if there is one of that name and other content, under the next free number.

    Returns:
        Where the content is now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        numbered = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            with numbered.open("xb") as file:
                file.write(content)
        except FileExistsError:
            if numbered.is_file() and numbered.stat().st_size == len(content) and numbered.read_bytes() == content:
                return numbered
        else:
            return numbered
    raise AssertionError("there are numbers without end")


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
