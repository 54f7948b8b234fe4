"""An http server on loopback that goes wrong in every way that servers do: a test says how it answers."""

import http.server
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

ETAG = '"1"'
NO_LINGER = struct.pack("ii", 1, 0)  # closing then resets the connection


class Handler(http.server.BaseHTTPRequestHandler):
    """Takes the next of the answers; the last one goes on for ever."""

    server: "Awkward"

    def do_GET(self) -> None:
        number = len(self.server.asked)
        self.server.asked.append((time.monotonic(), self.headers.get("Range")))
        with suppress(ConnectionError):  # whoever asked may have had enough
            self.server.answers[min(number, len(self.server.answers) - 1)](self)
        self.close_connection = True

    def start(self, status: int, **headers: str | int) -> None:
        """Send status and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def reset(self) -> None:
        """End the connection by a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.connection.close()

    def stall(self) -> None:
        """Say nothing more until the server is shut down."""
        self.wfile.flush()
        self.server.over.wait()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


Answer = Callable[[Handler], None]


class Awkward(http.server.ThreadingHTTPServer):
    """Remembers when it was asked, and for what range."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.asked: list[tuple[float, str | None]] = []
        self.over = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    @property
    def pauses(self) -> list[float]:
        """Seconds between one request and the next."""
        times = [when for when, _ in self.asked]
        return [after - before for before, after in itertools.pairwise(times)]

    def handle_error(self, *_: object) -> None:
        """Say nothing: a connection that was closed under it is what it is for."""


@contextmanager
def awkward(*answers: Answer) -> Iterator[Awkward]:
    """Yield a server that gives these answers one after the other, the last one again and again."""
    with Awkward(answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def whole(content: bytes, *, etag: str = ETAG, ranges: bool = True, upto: int | None = None, then: str = "") -> Answer:
    """Answer as a good server does; or stop after some bytes of the content, and `reset` or `stall` then."""

    def answer(handler: Handler) -> None:
        wanted = handler.headers.get("Range")
        resumed = ranges and wanted and handler.headers.get("If-Range") == etag
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and resumed else 0
        named: dict[str, str | int] = {"ETag": etag, "Content_Length": len(content) - start}
        if resumed:
            named["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.start(206 if resumed else 200, **named)
        handler.wfile.write(content[start:upto])
        if then:
            getattr(handler, then)()

    return answer


def bit_by_bit(start: bytes, bits: Iterable[bytes], every_seconds: float = 0.0) -> Answer:
    """Send bytes, then others one after the other, until the server is shut down or nobody listens any more."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(start)
        for bit in bits:
            if handler.server.over.wait(every_seconds):
                return
            handler.wfile.write(bit)

    return answer


def status(number: int, **headers: str | int) -> Answer:
    """Answer with a status, and nothing more."""
    return lambda handler: handler.start(number, Content_Length=0, **headers)


def raw(content: bytes) -> Answer:
    """Answer with bytes that need not be HTTP."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(content)

    return answer
