"""An archive, or a folder of class folders, in an object store: `s3://bucket/key.zip`, `gs://bucket/photos/`.

What is there is known from the store's own listing, a request for a thousand objects, without reading any. Objects are
read many at a time, each try anew for those that failed; an archive is fetched in pieces, and carried on where it was.
"""

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import platformdirs

from tasks.object_store import Store, one_line_errors, open_store
from tasks.progress import Progress
from tasks.sources.digests import file_digest
from tasks.sources.layout import MAX_FILE_BYTES, Entry, left_out
from tasks.stage import PawlineError, TemporaryError

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_DELAYS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)  # exponential back-off
PIECE_BYTES = 8 * 2**20  # of an archive; what a cut connection costs at most
BATCH_OBJECTS, BATCH_BYTES = 64, 64 * 2**20  # asked for at once, and held in memory
# What a store says of an object's content, the first that it says. The time comes last: it changes more often.
VERSION_KEYS = ("ETag", "md5Hash", "etag", "LastModified", "last_modified", "updated", "mtime")


class Item(NamedTuple):
    """An object, as the store lists it."""

    path: str  # below the folder, "/" between folders; of an archive, nothing
    key: str  # bucket and key
    size: int
    version: str  # another content has another one


def find_items(url: str) -> list[Item]:
    """List the objects of a folder, sorted by path.

    Raises:
        PawlineError: There is no such bucket, nothing is below the folder, or the store refuses.
        TemporaryError: The store cannot be reached.
    """
    store = open_store(url)
    with one_line_errors(url):
        listed: Mapping[str, Mapping[str, Any]] = store.fs.find(store.path, detail=True)
    if store.path in listed:
        raise PawlineError(f"data.path {url} is an object, not a folder: for a zip or tar set data.source to archive")
    start = len(store.path) + 1
    items = sorted(_item(info, key, key[start:]) for key, info in listed.items() if not key.endswith("/"))
    if not items:
        raise PawlineError(f"data.path {url} holds no objects: check the bucket's name and the folder's")
    return items


def find_archive(url: str) -> Item:
    """Return what the store says of an archive.

    Raises:
        PawlineError: It is not there, is a folder, or the store refuses.
        TemporaryError: The store cannot be reached.
    """
    store = open_store(url)
    with one_line_errors(url):
        info = store.fs.info(store.path)
    if info["type"] == "directory":
        raise PawlineError(f"data.path {url} is a folder: set data.source to directory")
    return _item(info, store.path, "")


def entries(url: str, items: Sequence[Item], delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS) -> Iterator[Entry]:
    """Yield the objects of a folder; the first that is read of each batch fetches the whole batch."""
    store = open_store(url)
    for batch in _batches(items):
        fetched: dict[str, bytes] = {}
        for item in batch:
            yield Entry(item.path, functools.partial(_take, item, batch, fetched, store, delays_seconds))


def fetch(url: str, *, sha256: str | None, delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS) -> Path:
    """Return the local path of an archive, fetching it into the user's cache folder if that has not been done.

    What was fetched before is used as long as the store has the same content, and an interrupted download is carried
    on. Only one content of a URL is kept.

    Raises:
        TemporaryError: The store failed, once more than there are pauses.
        PawlineError: It is not there, is refused, changed while it was read, or has another digest.
    """
    item = find_archive(url)
    folder = platformdirs.user_cache_path("pawline") / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:32]
    content = hashlib.sha256(f"{item.size} {item.version}".encode()).hexdigest()[:32]
    whole, part = folder / f"archive-{content}", folder / f"archive-{content}.part"
    if whole.exists() and sha256 in (None, file_digest(whole)):
        log.info("using the earlier download of %s: %s", url, whole)
        return whole
    folder.mkdir(parents=True, exist_ok=True)
    _forget_others(folder, part)
    _download(open_store(url), item, part, delays_seconds)
    if find_archive(url) != item:
        part.unlink()
        raise PawlineError(f"{url} changed while it was fetched: run `dvc repro` again")
    _check_digest(url, part, sha256)
    part.replace(whole)
    return whole


def _item(info: Mapping[str, Any], key: str, path: str) -> Item:
    version = next((str(info[name]) for name in VERSION_KEYS if info.get(name)), "")
    return Item(path, key, int(info["size"]), version.strip('"'))


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        if batch and (len(batch) == BATCH_OBJECTS or sum(one.size for one in batch) + item.size > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _take(
    item: Item, batch: Sequence[Item], fetched: dict[str, bytes], store: Store, delays_seconds: Sequence[float]
) -> bytes:
    if item.size > MAX_FILE_BYTES:
        raise PawlineError(
            f"{store.url}: {item.path!r} has {item.size:,} bytes, above {MAX_FILE_BYTES:,}: no photo has; move it away"
        )
    if item.key not in fetched:
        wanted = [one for one in batch if not left_out(one.path) and one.size <= MAX_FILE_BYTES]
        _retried(functools.partial(_fetch_missing, wanted, fetched, store), store.url, delays_seconds)
    return fetched.pop(item.key)


def _fetch_missing(wanted: Sequence[Item], fetched: dict[str, bytes], store: Store) -> None:
    """Add the contents that are not there yet; an object that fails does not keep the others."""
    missing = [item for item in wanted if item.key not in fetched]
    answers = store.fs.cat_ranges([item.key for item in missing], None, None, on_error="return")
    failed: list[Exception] = []
    for item, answer in zip(missing, answers, strict=True):
        if isinstance(answer, Exception):
            failed.append(answer)
        elif len(answer) != item.size:
            failed.append(ConnectionError(f"{item.path}: {len(answer):,} of {item.size:,} bytes"))
        else:
            fetched[item.key] = answer
    if failed:
        raise failed[0]


def _download(store: Store, item: Item, part: Path, delays_seconds: Sequence[float]) -> None:
    with part.open("ab") as file, Progress("download", total=item.size, unit="B", scale=True) as progress:
        progress.advance(file.tell())
        while (done := file.tell()) < item.size:
            end = min(done + PIECE_BYTES, item.size)
            piece = _retried(functools.partial(_read_piece, store, done, end), store.url, delays_seconds)
            file.write(piece)
            progress.advance(len(piece))


def _read_piece(store: Store, start: int, end: int) -> bytes:
    piece: bytes = store.fs.cat_file(store.path, start=start, end=end)
    if len(piece) != end - start:
        raise ConnectionError(f"{len(piece):,} of {end - start:,} bytes")
    return piece


def _retried(read: Callable[[], T], url: str, delays_seconds: Sequence[float]) -> T:
    for delay in delays_seconds:
        try:
            with one_line_errors(url):
                return read()
        except TemporaryError as problem:
            log.info("%s; next try in %g s", problem, delay)
            time.sleep(delay)
    with one_line_errors(url):
        return read()


def _check_digest(url: str, part: Path, sha256: str | None) -> None:
    digest = file_digest(part)
    if sha256 and digest != sha256:
        part.unlink()
        raise PawlineError(f"{url} has SHA-256 {digest}, data.sha256 says {sha256}: find out which is right")
    if not sha256:
        log.info("%s has SHA-256 %s: write that into data.sha256 to pin it", url, digest)


def _forget_others(folder: Path, part: Path) -> None:
    """Delete what was fetched of earlier contents."""
    for path in folder.iterdir():
        if path != part:
            path.unlink()
