"""What hostile clients send, over real sockets, while others are served."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks.serve import giant_png
from inference import classifier, service, service_desk, service_limits, service_server
from tests.faults.fuzz_seeds import many_scans
from tests.inference.running import Running, make_export, picture, running

MB = 1_000_000
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
RED = picture("red")
AT_ONCE = 5.0  # seconds that an answer may take on a machine that others use, too


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("colours"))


@contextmanager
def held(export_dir: Path) -> Iterator[tuple[Running, threading.Event, threading.Semaphore]]:
    """Yield a service that answers when it is let, what lets it, and what counts the photos that it has begun with."""
    loaded = classifier.load(export_dir)
    let, begun = threading.Event(), threading.Semaphore(0)

    def run(images: np.ndarray) -> np.ndarray:
        begun.release()
        assert let.wait(20)
        return loaded.run(images)

    try:
        with running(export_dir, classifier=replace(loaded, run=run)) as service:
            yield service, let, begun
    finally:
        let.set()


def is_served(service: Running) -> bool:
    """Say whether a photo is answered at once."""
    began = time.monotonic()
    with service.client() as http:
        return http.post("/predict", content=RED).status_code == 200 and time.monotonic() - began < AT_ONCE


def read_all(connection: socket.socket) -> bytes:
    """Read until the other end closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def memory() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_a_huge_body_is_refused_and_never_held(export_dir: Path, declared: bool, last: bytes) -> None:
    part = bytes(MB)
    with running(export_dir) as service, service.connect() as connection:
        before = memory()
        connection.sendall(POST + last)
        connection.sendall(b"Content-Length: 50000000\r\n\r\n" if declared else b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(50):
            connection.sendall(part if declared else b"%x\r\n%s\r\n" % (len(part), part))
        connection.sendall(b"" if declared else b"0\r\n\r\n")
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 413 "), "who reads only after writing sees it, too"
        assert b"a request may have 1 MB" in answer
        assert memory() - before < 25 * MB
        assert is_served(service)


def test_a_huge_body_is_refused_before_it_is_sent(export_dir: Path) -> None:
    with running(export_dir) as service, service.connect() as connection:
        connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 50000000\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


def test_who_goes_on_sending_after_a_refusal_is_cut(export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_limits, "LINGER_SECONDS", 0.3)
    with running(export_dir) as service, service.connect() as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):  # noqa: PT012 - the kernel says so only in time
            for _ in range(100):
                connection.sendall(b"1\r\nx\r\n")
                time.sleep(0.05)


def test_a_giant_png_is_refused_from_its_header(export_dir: Path) -> None:
    giant = giant_png()
    with running(export_dir) as service, service.client() as http:
        before, began = memory(), time.monotonic()
        response = http.post("/predict", content=giant)
        assert (response.status_code, response.json()["error"]["reason"]) == (422, "too_large")
        assert "20000 x 20000 pixels" in response.json()["error"]["message"]
        assert time.monotonic() - began < AT_ONCE
        assert memory() - before < 50 * MB


def test_a_jpeg_of_a_thousand_scans_is_refused_undecoded(export_dir: Path) -> None:
    content = many_scans(Image.new("L", (8_000, 8_000)), 1_000)  # 0.3 MB that take a decoder half a minute
    with running(export_dir) as service, service.client() as http:
        began = time.monotonic()
        response = http.post("/predict", content=content)
        assert (response.status_code, response.json()["error"]["reason"]) == (422, "too_slow")
        assert time.monotonic() - began < AT_ONCE


def test_a_slow_body_has_a_deadline_and_holds_up_nobody(export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_limits, "BODY_SECONDS", 1.0)
    monkeypatch.setattr(service_limits, "LINGER_SECONDS", 0.2)
    with running(export_dir) as service, ExitStack() as stack:
        slow = [stack.enter_context(service.connect()) for _ in range(100)]
        for connection in slow:
            connection.sendall(POST + b"Content-Length: 1000\r\n\r\nx")
        assert is_served(service)
        for connection in slow:
            connection.sendall(b"x")
        for connection in slow:
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"the body did not arrive within 1 seconds" in answer
        assert service.metric("pawline_refused_total", reason="slow_body") == 100


def test_slow_headers_have_a_deadline(export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_server, "HEADER_SECONDS", 0.5)
    with running(export_dir) as service, service.connect() as slow, service.connect() as silent:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):  # noqa: PT012 - the kernel says so only in time
            for number in range(100):
                slow.sendall(b"X-%d: y\r\n" % number)
                time.sleep(0.05)
        assert silent.recv(1) == b""
        assert service.metric("pawline_refused_total", reason="slow_headers") == 1
        assert is_served(service)


def test_headers_in_pieces_and_requests_one_after_another_are_fine(
    export_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_server, "HEADER_SECONDS", 0.5)
    with running(export_dir) as service, service.connect() as connection:
        for _ in range(4):
            for piece in (b"GET /healthz HTT", b"P/1.1\r\nHost: local", b"host\r\n\r\n"):
                connection.sendall(piece)
                time.sleep(0.08)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_headers_without_end_are_refused(export_dir: Path) -> None:
    with running(export_dir) as service, service.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"X-A: " + b"a" * 100_000)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


def test_who_does_not_read_is_cut(export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_server, "READING_SECONDS", 0.3)
    asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2_000
    with running(export_dir) as service, service.connect() as connection:
        connection.setblocking(False)
        until = time.monotonic() + 20
        while not service.metric("pawline_refused_total", reason="slow_reader"):
            assert time.monotonic() < until
            try:
                connection.send(asked)
            except BlockingIOError:
                time.sleep(0.05)
            except ConnectionError:
                break
        assert is_served(service)


def test_too_many_photos_are_told_to_come_back(export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_desk, "WAITING", 4)
    with held(export_dir) as (service, let, begun), service.client() as http, ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(http.post, "/predict", content=RED) for _ in range(4)]
        assert begun.acquire(timeout=20)
        until = time.monotonic() + 20
        while http.get("/healthz").json()["ready"]:
            assert time.monotonic() < until
        health, refused = http.get("/healthz"), http.post("/predict", content=RED)
        for response in (health, refused):
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"] == {
            "reason": "busy",
            "message": "4 photos are waiting already: try again in a moment",
        }
        let.set()
        assert {answer.result().status_code for answer in waiting} == {200}
        assert is_served(service)


def test_one_request_may_have_more_files_than_may_wait(export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_desk, "WAITING", 2)
    with running(export_dir) as service, service.client() as http:
        files = [("file", ("a.png", RED))] * 5
        assert http.post("/predict", files=files).status_code == 200


def test_bodies_that_are_being_received_have_a_limit_together(
    export_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_limits, "BODIES_AT_ONCE", 1)
    bodies = service_limits.Bodies(1_000_000)
    monkeypatch.setattr(service, "Bodies", lambda _: bodies)
    with running(export_dir) as serving, serving.connect() as slow, serving.client() as http:
        slow.sendall(POST + b"Content-Length: 900000\r\n\r\n" + bytes(800_000))
        until = time.monotonic() + 20
        while bodies.held < 800_000:  # of two that arrive at once, either may be the one that is refused
            assert time.monotonic() < until
            time.sleep(0.01)
        response = http.post("/predict", content=bytes(300_000))
        assert response.status_code == 503
        assert response.json()["error"]["reason"] == "busy"
        assert is_served(serving), "a small one has room"
        slow.sendall(bytes(100_000))
        assert slow.recv(65_536).startswith(b"HTTP/1.1 422 ")
        assert http.post("/predict", content=bytes(300_000)).status_code == 422, "nothing is held any more"


def test_too_many_connections_are_turned_away(export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_server, "MOST_CONNECTIONS", 3)
    with running(export_dir) as service, ExitStack() as stack:
        first = [stack.enter_context(service.connect()) for _ in range(6)]
        for connection in first:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        statuses = [connection.recv(65_536).split()[1] for connection in first]
        assert statuses == [b"200"] * 3 + [b"503"] * 3
        for connection in first:
            connection.close()
        assert is_served(service)


def test_an_end_waits_for_what_is_under_way(export_dir: Path) -> None:
    with held(export_dir) as (service, let, begun), service.client() as http, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(http.post, "/predict", content=RED)
        assert begun.acquire(timeout=20)
        service.server.should_exit = True
        until = time.monotonic() + 20
        with pytest.raises(httpx.ConnectError):  # noqa: PT012 - once the socket is closed
            while time.monotonic() < until:
                httpx.get(f"{service.address}/healthz")
        let.set()
        assert answer.result().status_code == 200
