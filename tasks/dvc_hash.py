"""The hashes by which DVC knows files and folders, computed from their content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

FOLDER_SUFFIX = ".dir"


def hash_path(path: Path) -> str:
    """Return the md5 of a file, or of a folder's list of files, as it stands in dvc.lock."""
    if not path.is_dir():
        return _hash_file(path)
    files = (file for file in path.rglob("*") if file.is_file())
    return hash_listing({file.relative_to(path).as_posix(): _hash_file(file) for file in files})


def hash_listing(listing: Mapping[str, str]) -> str:
    """Return the hash of a folder: of the JSON list of its files, sorted by path, with `.dir` behind it.

    Args:
        listing: The path of each file inside the folder, and its md5.
    """
    entries = [{"md5": md5, "relpath": name} for name, md5 in sorted(listing.items())]
    text = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + FOLDER_SUFFIX


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
