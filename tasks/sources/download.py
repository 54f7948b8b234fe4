"""Fetches an archive over http(s) into the user's cache folder: resumed, retried, checked, whole or not at all."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import platformdirs
import requests
import urllib3

from tasks.progress import Progress
from tasks.sources.digests import file_digest
from tasks.sources.fingerprint import is_url, public_url
from tasks.stage import PawlineError, TemporaryError, whole_file

log = logging.getLogger(__name__)
TIMEOUT_SECONDS = (10.0, 60.0)  # to connect; between two reads
RETRY_DELAYS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)  # exponential back-off
LONGEST_PAUSE_SECONDS = 60.0  # that a server may ask for
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
CHUNK_BYTES = 2**16  # what a cut connection costs at most
MOST_BYTES = 2**40  # ImageNet has 150 GB; what goes on beyond this has no end
SLOWEST = (300.0, 300 * 2**10)  # in so many seconds come so many bytes, or it is as if nothing came
MOST_DIGITS = 18  # of a length; Python refuses to read thousands
MAX_REDIRECTS = 10
PACKED = (".gz", ".tgz")


class _InterruptedError(Exception):
    """A try failed in a way that another one may cure, after a pause that the server may have asked for."""

    def __init__(self, reason: str, *, pause_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_seconds = min(pause_seconds, LONGEST_PAUSE_SECONDS)


class _Pace:
    """Tells when too little comes: a byte now and then passes every limit of the time between two reads."""

    def __init__(self) -> None:
        self._since, self._received = time.monotonic(), 0

    def check(self, received: int) -> None:
        """Count bytes that came.

        Raises:
            _InterruptedError: They were too few for too long.
        """
        self._received += received
        if time.monotonic() - self._since >= SLOWEST[0]:
            if self._received < SLOWEST[1]:
                raise _InterruptedError(f"{self._received:,} bytes in {SLOWEST[0]:g} s")
            self._since, self._received = time.monotonic(), 0


class _Files(NamedTuple):
    """Where a download lies while it is and after it was fetched."""

    whole: Path
    part: Path
    validator: Path  # what the server calls the content of `part`: its ETag or date


def fetch(url: str, *, sha256: str | None, delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS) -> Path:
    """Return the local path of what a URL holds, downloading it if that has not been done.

    An earlier download is used again if its digest is the wanted one, or none is wanted: the same parameters then
    give the same photos. An interrupted one is carried on if the server still has the same content.

    Args:
        url: An http(s) URL; its credentials and query are never shown.
        sha256: The digest the content must have.
        delays_seconds: Pauses before each further try.

    Raises:
        TemporaryError: The network or the server failed, once more than there are pauses.
        PawlineError: It could not be fetched for another reason, or has another digest.
    """
    files = _files(url)
    if files.whole.exists() and sha256 in (None, file_digest(files.whole)):
        log.info("using the earlier download of %s: %s", public_url(url), files.whole)
        return files.whole
    files.part.parent.mkdir(parents=True, exist_ok=True)
    _download_with_retries(url, files, delays_seconds)
    digest = file_digest(files.part)
    if sha256 and digest != sha256:
        _forget(files)
        raise PawlineError(
            f"{public_url(url)} has SHA-256 {digest}, data.sha256 says {sha256}: find out which is right"
        )
    if not sha256:
        log.info("%s has SHA-256 %s: write that into data.sha256 to pin it", public_url(url), digest)
    files.part.replace(files.whole)
    files.validator.unlink(missing_ok=True)
    return files.whole


def _files(url: str) -> _Files:
    folder = platformdirs.user_cache_path("pawline") / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:32]
    return _Files(folder / "archive", folder / "archive.part", folder / "archive.part.json")


def _forget(files: _Files) -> None:
    files.part.unlink(missing_ok=True)
    files.validator.unlink(missing_ok=True)


def forget(url: str) -> None:
    """Remove the download of a URL, which turned out to be no archive: the next one may be."""
    files = _files(url)
    files.whole.unlink(missing_ok=True)
    _forget(files)


def _download_with_retries(url: str, files: _Files, delays_seconds: Sequence[float]) -> None:
    for delay in (*delays_seconds, None):
        try:
            _download(url, files)
        except (_InterruptedError, requests.RequestException) as problem:
            if not _may_pass(problem):
                raise PawlineError(_unreachable(url, problem, tries=1)) from None
            if delay is None:
                raise TemporaryError(_unreachable(url, problem, tries=len(delays_seconds) + 1)) from None
            pause = max(delay, getattr(problem, "pause_seconds", 0.0))
            log.info("download interrupted (%s), next try in %g s", _reason(problem), pause)
            time.sleep(pause)
        else:
            return


def _may_pass(problem: Exception) -> bool:
    """Say whether another try is worth while."""
    passing = (_InterruptedError, requests.ConnectionError, requests.Timeout)
    return isinstance(problem, passing) and not _is_distrusted(problem)


def _is_distrusted(problem: Exception) -> bool:
    return isinstance(problem, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(problem)


def _unreachable(url: str, problem: Exception, *, tries: int) -> str:
    return (
        f"{public_url(url)} could not be fetched ({_reason(problem)}; tries: {tries}): check the address and the "
        "network, or fetch the file by other means and set data.path to it"
    )


def _reason(problem: Exception) -> str:
    """Say what happened without the URL, which may hold a secret."""
    if isinstance(problem, _InterruptedError):
        return str(problem)
    if isinstance(problem, requests.Timeout):
        return "no answer in time"
    if _is_distrusted(problem):
        return "its certificate is not trusted"
    if isinstance(problem, requests.ConnectionError):
        return "no connection"
    return type(problem).__name__


def _download(url: str, files: _Files) -> None:
    """Fetch what is missing of `files.part`."""
    done = files.part.stat().st_size if files.part.exists() else 0
    validator = _read_validator(files) if done else None
    if done and not validator:  # nothing says that the server still has the same content
        done = 0
    headers = {"Accept-Encoding": "identity"}
    if done and validator:
        headers |= {"Range": f"bytes={done}-", "If-Range": validator}
    with _get(url, headers) as response:
        resumed = response.status_code == requests.codes.partial_content
        misfit = resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if misfit or response.status_code == requests.codes.requested_range_not_satisfiable:
            _forget(files)
            raise _InterruptedError("the partial file does not fit any more")
        _check_status(response)
        if not resumed:  # before the new content has its name there: what is left of the old must not be carried on
            files.part.unlink(missing_ok=True)
        _write_validator(files, response)
        done = done if resumed else 0
        total = _total(response, done)
        _check_space(response.url, files.part, total)
        _append(response, files, done, total)


def _get(url: str, headers: dict[str, str]) -> requests.Response:
    """Follow redirects ourselves: to http(s) only, and credentials stay with the host they are for."""
    with requests.Session() as session:
        for _ in range(MAX_REDIRECTS):
            try:  # requests looks at where a redirect leads, although it is not to follow it
                response = session.get(
                    url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS, allow_redirects=False
                )
            except requests.RequestException:
                raise
            except ValueError:
                raise PawlineError(f"{public_url(url)} redirects to what is no address: check data.path") from None
            if not response.is_redirect:
                return response
            response.close()
            url = urljoin(url, response.headers["Location"])
            if not is_url(url):
                raise PawlineError(f"a download was redirected to {urlsplit(url).scheme}:, only http(s) is followed")
    raise PawlineError(f"a download was redirected more than {MAX_REDIRECTS} times, last to {public_url(url)}")


def _check_status(response: requests.Response) -> None:
    if response.ok:
        return
    status = f"HTTP {response.status_code} {response.reason}"
    if response.status_code in RETRIED_STATUSES:
        asked = response.headers.get("Retry-After", "")  # a date is rare, and needs a clock that is right
        raise _InterruptedError(status, pause_seconds=float(asked) if asked.isascii() and asked.isdigit() else 0.0)
    todo = "check data.path" if response.status_code != requests.codes.unauthorized else "say who you are in ~/.netrc"
    raise PawlineError(f"{public_url(response.url)} answers {status}: {todo}, or set data.path to a local file")


def _total(response: requests.Response, done: int) -> int | None:
    """Return how many bytes there are, if the server says so in a way that can be believed."""
    length = response.headers.get("Content-Length", "")
    return done + int(length) if length.isascii() and length.isdigit() and len(length) <= MOST_DIGITS else None


def _check_space(url: str, part: Path, total: int | None) -> None:
    there = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - there > free:
        raise PawlineError(
            f"{public_url(url)} has {total:,} bytes, {part.parent} has room for {free:,} more: make some, or set "
            "data.path to a local file"
        )


def _append(response: requests.Response, files: _Files, done: int, total: int | None) -> None:
    pace = _Pace()
    with (
        files.part.open("r+b" if done else "wb") as file,
        Progress("download", total=total, unit="B", scale=True) as progress,
    ):
        file.seek(done)
        progress.advance(done)
        for chunk in _chunks(response):
            file.write(chunk)
            progress.advance(len(chunk))
            if file.tell() > MOST_BYTES:
                _forget(files)
                raise PawlineError(
                    f"{public_url(response.url)} sends more than {MOST_BYTES:,} bytes: check data.path, or fetch the "
                    "file by other means"
                )
            if file.tell() != total:
                pace.check(len(chunk))
        received = file.tell()
    if total is not None and received != total:
        raise _InterruptedError(f"connection cut at {received:,} of {total:,} bytes")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield what comes as it comes; requests itself waits until a chunk is full, however long that takes.

    Some servers call a file that is packed with gzip an encoding of what is in it; the file is what was asked for.
    """
    decoded = not urlsplit(response.url).path.endswith(PACKED)
    try:
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=decoded):
            yield chunk
    except urllib3.exceptions.DecodeError:
        raise requests.exceptions.ContentDecodingError from None
    except urllib3.exceptions.ReadTimeoutError:
        raise requests.ReadTimeout from None
    except urllib3.exceptions.HTTPError:
        raise _InterruptedError("connection cut") from None


def _read_validator(files: _Files) -> str | None:
    try:
        validator = json.loads(files.validator.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return validator if isinstance(validator, str) else None


def _write_validator(files: _Files, response: requests.Response) -> None:
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    if validator:
        with whole_file(files.validator) as out:
            out.write_text(json.dumps(validator), encoding="utf-8")
    else:
        files.validator.unlink(missing_ok=True)
