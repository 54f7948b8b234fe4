"""Downloads from a real server on loopback that misbehaves in known ways."""

import contextlib
import gzip
import hashlib
import http.server
import logging
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tasks.sources.download import CHUNK_BYTES, fetch
from tasks.stage import PawlineError, TemporaryError

CONTENT = bytes(range(256)) * 20_000  # 5 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NO_DELAYS = (0.0, 0.0)
DAY = timedelta(days=1)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the first part of the path says how."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        behaviour = self.path.split("/")[1].split("?")[0]
        first = len(self.server.ranges) == 1
        if behaviour == "busy" and first:
            return self.send_error(503)
        if behaviour == "gone":
            return self.send_error(404)
        if behaviour in ("file", "ftp", "ok"):
            return self._redirect({"file": "file:///etc/passwd", "ftp": "ftp://127.0.0.1/x"}.get(behaviour, "/plain/x"))
        self._send(cut=first and behaviour in ("cut", "cut-no-ranges", "cut-changed"), behaviour=behaviour, first=first)

    def _redirect(self, location: str) -> None:
        self.send_response(302)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, *, cut: bool, behaviour: str, first: bool) -> None:
        etag = '"2"' if behaviour == "cut-changed" and not first else '"1"'
        content = CONTENT[::-1] if cut and behaviour == "cut-changed" else CONTENT
        content = gzip.compress(CONTENT[:100_000], mtime=0) if behaviour == "packed" else content
        wanted = self.headers.get("Range")
        partial = wanted and behaviour != "cut-no-ranges" and self.headers.get("If-Range") == etag
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and partial else 0
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if behaviour == "packed":
            self.send_header("Content-Encoding", "x-gzip")
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : len(content) // 2] if cut else content[start:])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Remembers the Range header of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


@pytest.fixture
def server(workdir: Path) -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def self_signed(folder: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + DAY)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    path = folder / "server.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate)
    return path


def cached_files(workdir: Path) -> list[str]:
    return sorted(path.name for path in (workdir / ".user-cache").rglob("*") if path.is_file())


def carried_on_near_the_cut(server: Server) -> bool:
    first, second = server.ranges
    start = int((second or "").removeprefix("bytes=").removesuffix("-"))
    return first is None and 0 <= len(CONTENT) // 2 - start < CHUNK_BYTES


def test_a_download_is_whole_and_used_again(server: Server, workdir: Path) -> None:
    path = fetch(server.url("plain/pets.zip"), sha256=DIGEST)
    assert path.read_bytes() == CONTENT
    assert cached_files(workdir) == ["archive"]
    assert fetch(server.url("plain/pets.zip"), sha256=DIGEST) == path
    assert fetch(server.url("plain/pets.zip"), sha256=None) == path
    assert server.ranges == [None]


def test_a_cut_download_is_carried_on_where_it_stopped(server: Server, workdir: Path) -> None:
    assert fetch(server.url("cut/x"), sha256=DIGEST, delays_seconds=NO_DELAYS).read_bytes() == CONTENT
    assert carried_on_near_the_cut(server)


def test_a_later_run_carries_on_too(server: Server, workdir: Path) -> None:
    with pytest.raises(TemporaryError, match="could not be fetched"):
        fetch(server.url("cut/x"), sha256=DIGEST, delays_seconds=())
    assert cached_files(workdir) == ["archive.part", "archive.part.json"]
    assert fetch(server.url("cut/x"), sha256=DIGEST, delays_seconds=()).read_bytes() == CONTENT
    assert carried_on_near_the_cut(server)
    assert cached_files(workdir) == ["archive"]


@pytest.mark.parametrize("behaviour", ["cut-no-ranges", "cut-changed"])
def test_it_starts_again_where_carrying_on_would_be_wrong(server: Server, behaviour: str) -> None:
    assert fetch(server.url(behaviour), sha256=DIGEST, delays_seconds=NO_DELAYS).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: Server) -> None:
    assert fetch(server.url("busy"), sha256=DIGEST, delays_seconds=NO_DELAYS).read_bytes() == CONTENT
    assert len(server.ranges) == 2


def test_a_wrong_digest_is_refused_and_nothing_kept(server: Server, workdir: Path) -> None:
    with pytest.raises(PawlineError, match=f"SHA-256 {DIGEST}, data.sha256 says 000") as error:
        fetch(server.url("plain/x"), sha256="0" * 64)
    assert not isinstance(error.value, TemporaryError)
    assert cached_files(workdir) == []


def test_an_unpinned_download_says_its_digest(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fetch(server.url("plain/x"), sha256=None)
    assert f"has SHA-256 {DIGEST}: write that into data.sha256" in caplog.text


def test_a_missing_file_is_not_asked_for_twice(server: Server) -> None:
    with pytest.raises(PawlineError, match=r"/gone answers HTTP 404 Not Found: check data\.path") as error:
        fetch(server.url("gone"), sha256=None, delays_seconds=NO_DELAYS)
    assert len(server.ranges) == 1
    assert not isinstance(error.value, TemporaryError)


def test_a_server_that_stays_busy_may_be_asked_later(server: Server) -> None:
    with pytest.raises(TemporaryError, match=r"could not be fetched \(HTTP 503 Service Unavailable; tries: 1\)"):
        fetch(server.url("busy"), sha256=DIGEST, delays_seconds=())


def test_a_certificate_that_is_not_trusted_is_not_asked_for_again(server: Server, workdir: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(self_signed(workdir))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(PawlineError, match=r"\(its certificate is not trusted; tries: 1\)") as error:
        fetch(server.url("plain/x").replace("http:", "https:"), sha256=None, delays_seconds=NO_DELAYS)
    assert not isinstance(error.value, TemporaryError)


def test_redirects_are_followed_to_http_only(server: Server) -> None:
    assert fetch(server.url("ok"), sha256=DIGEST).read_bytes() == CONTENT
    for scheme in ("file", "ftp"):
        with pytest.raises(PawlineError, match=f"redirected to {scheme}:, only http"):
            fetch(server.url(scheme), sha256=None)


def test_an_unreachable_server_is_one_line_without_secrets(workdir: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(TemporaryError) as error:
        fetch(f"http://me:hush@127.0.0.1:{port}/x.zip?token=hush", sha256=None, delays_seconds=NO_DELAYS)
    assert str(error.value) == (
        f"http://127.0.0.1:{port}/x.zip could not be fetched (no connection; tries: 3): check the address and the "
        "network, or fetch the file by other means and set data.path to it"
    )


def test_what_is_left_of_another_content_is_not_carried_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TemporaryError):
        fetch(server.url("cut-changed"), sha256=None, delays_seconds=())
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(PawlineError, match="has room for 0 more"):  # by now it has another content
        fetch(server.url("cut-changed"), sha256=None, delays_seconds=())
    monkeypatch.undo()
    assert fetch(server.url("cut-changed"), sha256=None, delays_seconds=()).read_bytes() == CONTENT


def test_a_packed_file_is_fetched_as_it_is(server: Server) -> None:
    """Apache may say of `pets.tar.gz` that it is encoded with gzip."""
    packed = gzip.compress(CONTENT[:100_000], mtime=0)
    assert fetch(server.url("packed/pets.tar.gz"), sha256=hashlib.sha256(packed).hexdigest()).read_bytes() == packed
