"""Running the service: its socket, the time that connections have, and an end that answers what is under way."""

import asyncio
import errno
import ipaddress
import logging
import signal
import socket

import h11
import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from inference.service_limits import BODY_SECONDS, LINGER_SECONDS, Linger
from tasks.stage import PawlineError

HEADER_SECONDS = 10.0  # for a request's line and headers
READING_SECONDS = 10.0  # for a client to go on reading its answer
IDLE_SECONDS = 5  # a connection may wait for its next request
LAST_SECONDS = int(BODY_SECONDS + LINGER_SECONDS) + 5  # for what is under way when the service is to end
MOST_CONNECTIONS = 256
BACKLOG = 128

crowded = Linger(
    JSONResponse(
        {"error": {"reason": "busy", "message": "too many connections: try again in a moment"}},
        status_code=503,
        headers={"Retry-After": "1", "Connection": "close"},
    )
)


class PatientProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1, with an end to its patience.

    By itself it waits for ever for the rest of a request's headers, and for a client to read its answer.
    """

    _timer: asyncio.TimerHandle | None = None
    _waits_for: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Wait for a request, and turn away who is one too many."""
        super().connection_made(transport)
        if len(self.connections) > 2 * MOST_CONNECTIONS:
            transport.abort()
        elif len(self.connections) > MOST_CONNECTIONS:
            self.app = crowded
        self._wait(HEADER_SECONDS, "request")

    def data_received(self, data: bytes) -> None:
        """Read on; wait for the rest of the headers, or no longer."""
        super().data_received(data)
        if self._waits_for == "reader":
            return
        if self.conn.their_state is not h11.IDLE:
            self._wait_no_longer()
        elif self._waits_for != "headers":
            self._wait(HEADER_SECONDS, "headers")

    def pause_writing(self) -> None:
        """Wait for the client to read its answer."""
        super().pause_writing()
        self._wait(READING_SECONDS, "reader")

    def resume_writing(self) -> None:
        """Wait no longer: the client reads."""
        super().resume_writing()
        self._wait_no_longer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def _wait(self, seconds: float, what: str) -> None:
        self._wait_no_longer()
        self._timer, self._waits_for = self.loop.call_later(seconds, self._cut), what

    def _wait_no_longer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._waits_for = None

    def _cut(self) -> None:
        if self._waits_for != "request":  # a browser may open a connection that it then does not need
            self.app_state["metrics"].refused.labels(f"slow_{self._waits_for}").inc()
        self.transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0 takes any that is free.

    Raises:
        PawlineError: The address is taken, or not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        where = f"--host {host} --port {port}"
        if error.errno == errno.EADDRINUSE:
            raise PawlineError(f"{where}: something listens there already; choose another port") from None
        if error.errno == errno.EACCES:
            raise PawlineError(f"{where}: not allowed here; choose a port above 1023") from None
        raise PawlineError(f"{where}: {error.strerror}; choose an address of this machine, such as 127.0.0.1") from None
    # Connections inherit it. asyncio sets it by itself only where the socket names its protocol, and without it an
    # answer's second packet waits for the client's delayed acknowledgement: 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def is_shared(listening: socket.socket) -> bool:
    """Say whether others than this machine can reach a socket."""
    return not ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def address_of(listening: socket.socket) -> str:
    """Return the URL of a bound socket, as a browser on this machine takes it."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: FastAPI, listening: socket.socket) -> int:
    """Answer until Ctrl-C or SIGTERM, and then what is under way. To be called in the main thread.

    Returns:
        How many requests were answered.
    """
    server = make_server(app)

    def end(*_: object) -> None:
        server.should_exit = True

    # Uvicorn handles both while it runs, and raises them again when it has ended.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    server.run(sockets=[listening])
    return server.server_state.total_requests


def make_server(app: FastAPI) -> uvicorn.Server:
    """Return uvicorn, set up for the service."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it would warn of each form that is none
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    return uvicorn.Server(config)
