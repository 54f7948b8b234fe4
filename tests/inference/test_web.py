import functools
import http.server
import logging
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress

import pytest

from inference import web
from inference.inputs import Photo
from tests.inference.running import picture
from tests.inference.test_inputs import reason

ELSEWHERE = {"/circle": "/circle", "/disk": "file:///etc/passwd"}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/turned":
            self.send_response(302)
            self.send_header("Location", "/red.png")
            self.end_headers()
        elif self.path in ELSEWHERE:
            self.send_response(302)
            self.send_header("Location", ELSEWHERE[self.path])
            self.end_headers()
        elif self.path == "/closed" and self.headers["Authorization"] != f"Basic {b64encode(b'me:hush').decode()}":
            self.send_error(401, "Unauthorized")
        elif self.path in ("/red.png", "/closed"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(picture("red"))
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            while not self.wfile.closed:
                self.wfile.write(bytes(1000))
        elif self.path.startswith("/slow"):
            if self.path == "/slow-body":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        else:
            self.send_error(404, "Not Found")

    def handle(self) -> None:
        with suppress(ConnectionError):  # who asked has had enough
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_photos_are_fetched_within_limits(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Photo(f"{site}/turned").read() == picture("red")
    assert reason(Photo(f"{site}/none")) == ("unreachable", "the server answers 404 Not Found")
    assert reason(Photo("http://127.0.0.1:9/x.jpg")) == ("unreachable", "no connection")
    assert reason(Photo("http://[/"))[0] == "unreachable"
    monkeypatch.setattr(web, "MAX_BYTES", 100_000)
    assert reason(Photo(f"{site}/endless"))[0] == "too_large"
    monkeypatch.setattr(web, "MAX_BYTES", 1 << 40)


def test_what_is_odd_is_said_in_words(site: str) -> None:
    assert reason(Photo(f"{site}/circle")) == ("unreachable", "it redirects in a circle")
    assert reason(Photo(f"{site}/disk")) == ("unreachable", "it leads to no http(s) address")
    assert reason(Photo("http://127.0.0.1:port/x")) == ("unreachable", "no valid address")


def test_a_password_is_sent_and_not_logged(site: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert Photo(f"{site}/closed".replace("://", "://me:hush@")).read() == picture("red")
    assert reason(Photo(f"{site}/closed".replace("://", "://me:wrong@")))[1] == "the server answers 401 Unauthorized"
    assert "/closed" in caplog.text
    assert "hush" not in caplog.text
    assert b64encode(b"me:hush").decode() not in caplog.text


@pytest.mark.parametrize("path", ["endless", "slow-body", "slow-headers"])
def test_a_download_has_an_end(path: str, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_BYTES", 1 << 40)
    monkeypatch.setattr(web, "DOWNLOAD_SECONDS", 0.3)
    began = time.monotonic()
    assert reason(Photo(f"{site}/{path}")) == ("unreachable", "not finished after 0 seconds")
    assert time.monotonic() - began < 2
