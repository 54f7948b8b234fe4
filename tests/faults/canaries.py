"""Secrets that are easily recognized, and a search for them in all that was written, however it was encoded."""

import sqlite3
import subprocess
import zipfile
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow.parquet as pq

NAMES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "GITHUB_TOKEN",
    "MY_PASSWORD",
)  # of the environment


def canary(name: str) -> str:
    """Return a secret for a place: with what URLs, JSON and shells encode, and nothing that is found by chance."""
    return f"c4n4ry {name}/k+9=&?~\u00e9".replace(" ", "-")


def forms(secret: str) -> set[bytes]:
    """Return how a secret may be written: as it is, as in URLs and JSON, in hexadecimal and in base64."""
    plain = secret.encode()
    texts = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), plain.hex(), plain.hex().upper()}
    texts |= {secret.encode("unicode_escape").decode(), secret.replace("\u00e9", "\\u00e9")}
    return {text.encode() for text in texts} | {form for skip in range(3) for form in _base64(plain, skip)}


def _base64(secret: bytes, skip: int) -> Iterator[bytes]:
    """Yield what base64 makes of a secret with so many bytes before it, as far as it depends on nothing else."""
    encoded = b64encode(bytes(skip) + secret)[-(-skip * 8 // 6) : (skip + len(secret)) * 8 // 6]
    yield encoded
    yield encoded.translate(bytes.maketrans(b"+/", b"-_"))


def leaks(secrets: Mapping[str, str], *folders: Path, allowed: frozenset[Path] = frozenset()) -> tuple[int, list[str]]:
    """Look for secrets in every file below folders, and in what is packed in them.

    Args:
        secrets: By name.
        folders: Git repositories are searched object by object, the unreachable ones, too.
        allowed: Files in which somebody put secrets, because they belong there.

    Returns:
        How many contents were searched, and what was found: `where: name`.
    """
    wanted = {name: forms(secret) for name, secret in secrets.items()}
    searched, found = 0, []
    for where, content in (each for folder in folders for each in contents(folder, allowed)):
        searched += 1
        found += [f"{where}: {name}" for name, ways in wanted.items() if any(way in content for way in ways)]
    return searched, found


def contents(folder: Path, allowed: frozenset[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield every content below a folder, with where it is; names of files are contents, too."""
    for path in sorted(folder.rglob("*")):
        yield f"name of {path}", str(path.relative_to(folder)).encode()
        if path in allowed or path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        yield str(path), content
        yield from ((f"in {path}", inner) for inner in _unpacked(path, content))
    for git in folder.rglob(".git"):
        yield f"objects of {git}", _objects(git.parent)


def _unpacked(path: Path, content: bytes) -> Iterator[bytes]:
    if content.startswith(b"PAR1"):
        table = pq.read_table(path)
        yield str(table.schema).encode()
        yield from (str(row).encode() for row in table.to_pylist())
    elif content.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    elif content.startswith(b"SQLite format 3"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:  # its log, too
            yield "\n".join(database.iterdump()).encode()


def _objects(repository: Path) -> bytes:
    command = ["git", "cat-file", "--batch-all-objects", "--unordered", "--batch"]
    return subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout
