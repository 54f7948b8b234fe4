"""What identifies a source's content: it changes if and only if the photos, their names or their places do.

- archive, local: the SHA-256 of the archive, and how many candidates it has.
- archive, http(s): its URL without credentials and query, and the digest that `data.sha256` declares; the network is
  left to `ingest`.
- directory: a SHA-256 over the sorted paths and content digests of the candidates.
- archive or directory in an object store: the same of what the store lists, its ETags and sizes in place of digests.
- tfds: the data set's name; TFDS data sets do not change within a version, so pin one (`name:version`) to be sure.
- synthetic: the number of pictures and the generator's version.

No absolute paths, no times (but where a store lists nothing else).
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tasks.params import DataParams
from tasks.progress import Progress
from tasks.sources import archive, bucket, directory
from tasks.sources.digests import Remembered, file_digest
from tasks.sources.layout import Place, find_layout, left_out
from tasks.stage import PawlineError
from tasks.store_urls import is_store_url

FACTS = "files, classes, bytes, fingerprint"  # what is remembered of an archive; other facts need another name
SYNTHETIC_VERSION = 1  # to be raised when tasks/sources/synthetic.py draws something else


def fingerprint(params: DataParams) -> dict[str, Any]:
    """Identify the content of the source that the parameters name, and check that it can be used.

    Raises:
        PawlineError: It is missing, unreadable, damaged, hostile, empty, or holds one class only.
        TemporaryError: It is in an object store that cannot be reached.
    """
    path = params.path or ""
    if params.source == "synthetic":
        facts: dict[str, Any] = {"images": params.synthetic_images, "generator": SYNTHETIC_VERSION}
    elif params.source == "tfds":
        facts = {"name": params.tfds_name}
    elif params.source == "directory":
        facts = _of_listing(path) if is_store_url(path) else _of_directory(local_path(params))
    elif is_store_url(path):
        item = bucket.find_archive(path)
        facts = {"url": path, "bytes": item.size, "version": item.version, "sha256": params.sha256}
    elif is_url(path):
        facts = {"url": public_url(path), "sha256": params.sha256}
    else:
        facts = _of_archive(local_path(params), params.sha256)
    return {"source": params.source, **facts}


def local_path(params: DataParams) -> Path:
    """Return `data.path` as a path, `~` spelled out."""
    return Path(params.path or "").expanduser()


def is_url(path: str) -> bool:
    """Return whether `data.path` is an http(s) URL."""
    return path.lower().startswith(("http://", "https://"))


def public_url(url: str) -> str:
    """Return a URL without credentials, query and fragment, fit to be written down."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def check_archive(path: Path) -> dict[str, int]:
    """Read every candidate of an archive once, so that damage and hostility show; return the files and classes."""
    paths: list[str] = []
    with Progress(f"checking {path.name}", total=None, unit="files") as progress:
        for entry in archive.entries(path):
            if not left_out(entry.path):
                entry.read()
                paths.append(entry.path)
                progress.advance()
    layout = find_layout(paths, str(path))
    places = [place for candidate in paths if (place := layout.place(candidate))]
    return {"files": len(places), "classes": len({place.label for place in places})}


def _of_archive(path: Path, expected: str | None) -> dict[str, Any]:
    status = directory.status_of(path)
    with Remembered(path) as remembered:
        facts: dict[str, Any] | None = remembered.recall(FACTS, status)
        if facts is None:
            facts = {**check_archive(path), "bytes": status.st_size, "fingerprint": file_digest(path)}
            remembered.learn(FACTS, status, facts)
    if expected and facts["fingerprint"] != expected:
        raise PawlineError(f"{path} has SHA-256 {facts['fingerprint']}, data.sha256 says {expected}: one is wrong")
    return facts


def _of_listing(url: str) -> dict[str, Any]:
    items = bucket.find_items(url)
    places = _find_places([item.path for item in items], url)
    taken = [[item.path, item.size, item.version] for item in items if item.path in places]
    return {
        "url": url,
        "files": len(taken),
        "classes": len({place.label for place in places.values()}),
        "bytes": sum(item.size for item in items if item.path in places),
        "fingerprint": hashlib.sha256(json.dumps(taken).encode()).hexdigest(),
    }


def _of_directory(folder: Path) -> dict[str, Any]:
    listed = directory.list_files(folder)
    files = {file.path: file for file in listed if directory.is_regular(file.status)}
    if listed and not files:
        raise PawlineError(f"{folder} holds symbolic links only, and they are not followed: give a folder with files")
    places = _find_places(files, str(folder))
    taken = [files[path] for path in places]
    total = hashlib.sha256()
    with Remembered(folder) as remembered:
        digests = {file.path: remembered.recall(file.path, file.status) for file in taken}
        _hash_files([file for file in taken if digests[file.path] is None], digests, remembered)
    for file in taken:
        total.update(json.dumps([file.path, digests[file.path]]).encode())
    size = sum(file.status.st_size for file in taken)
    classes = len({place.label for place in places.values()})
    return {"files": len(taken), "classes": classes, "bytes": size, "fingerprint": total.hexdigest()}


def _find_places(paths: Iterable[str], where: str) -> dict[str, Place]:
    """Return the candidates that belong to a class, in the order of the paths."""
    candidates = [path for path in paths if not left_out(path)]
    layout = find_layout(candidates, where)
    return {path: place for path in candidates if (place := layout.place(path))}


def _hash_files(files: list[directory.File], digests: dict[str, str], remembered: Remembered) -> None:
    with Progress("reading new files", total=len(files), unit="files") as progress:
        for file in files:
            digests[file.path] = hashlib.sha256(directory.read(file.file)).hexdigest()
            remembered.learn(file.path, file.status, digests[file.path])
            progress.advance()
