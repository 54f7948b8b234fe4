"""`pawline ui`: Prefect's server and page, with the project's reports beside them."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Annotated, BinaryIO

import psutil
import typer

from flows import server
from flows.commands.shared import enter_project
from flows.server import Server
from tasks.stage import PawlineError

LOOPBACK = "127.0.0.1"
HERE = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - of every address, the one by which this machine asks
REPORTS = Path("reports")
START_SECONDS = 120.0  # the first start makes the database, on a slow disk for half a minute
STOP_SECONDS = 15.0


def ui_command(
    port: Annotated[
        int, typer.Option(min=1, max=65534, help="Port of the page; the reports are on the next one.")
    ] = 4200,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Others than 127.0.0.1 let everybody in who can reach it; 0.0.0.0 by any name."
        ),
    ] = LOOPBACK,
) -> None:
    """Start Prefect's server and its page, until Ctrl-C.

    Every other command of this project finds the server by itself and records its runs there; schedules fire only while
    it runs. Its database is in .prefect/ (or PREFECT_HOME) and stays when the server ends, and so do schedules. Beside
    it the folder reports/ is served on this machine, for the links on the page.

    \b
    Examples:
      pawline ui                     http://127.0.0.1:4200
      pawline ui --port 4300         if another project has that port
    """  # noqa: D301 - \b keeps the lines of the examples apart
    enter_project()
    server.prepare()
    try:
        with served(host, port) as (address, process):
            from flows import liveness

            server.require()
            liveness.end_dead_runs()
            typer.echo(
                f"Prefect's page: {address} (Ctrl-C ends it); runs are recorded here from now on: "
                "`pawline schedule` says when, `pawline worker` in another terminal carries it out"
            )
            process.wait()
        raise PawlineError(f"Prefect's server ended by itself ({process.returncode}): {_log_path()} says why")
    except KeyboardInterrupt:
        typer.echo("Prefect's server has ended; schedules are kept, and fire again once it is back")


@contextmanager
def served(host: str, port: int) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Run Prefect's server for the project in the current folder, and serve its reports.

    Yields:
        The address of the page, and the server's process.

    Raises:
        PawlineError: One is running here already, the port is taken, or it does not start.
    """
    already = server.running()
    if already is not None:
        raise PawlineError(
            f"Prefect's server is running here already: {already.address} (end it with Ctrl-C, or `kill {already.pid}`)"
        )
    _check_free(host, port)
    address = f"http://{_in_url(HERE.get(host, host))}:{port}"
    with _reports(port + 1) as reports, _prefect(host, port, address) as process:
        folder = str(REPORTS.resolve())
        server.note(Server(address, reports, folder, os.getpid(), psutil.Process().create_time()))
        try:
            yield address, process
        finally:
            server.note(None)


@contextmanager
def _prefect(host: str, port: int, address: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the server, its words in a file; it ends with this process, however that ends."""
    settings = {
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),
        server.API_VARIABLE: f"{address}/api",
        "PREFECT_UI_URL": address,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": address,  # or any page in the browser could drive the server
        "PREFECT_UI_API_URL": "/api",  # as the browser sees it: through a tunnel, the address may be another one
    }
    _log_path().parent.mkdir(parents=True, exist_ok=True)
    with _log_path().open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.guarded_server"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings},
            start_new_session=True,  # Ctrl-C comes here, and here only
            preexec_fn=_die_with_parent,
        )
    try:
        _wait_until_up(process, f"{address}/api")
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        process.wait()


def _wait_until_up(process: "subprocess.Popen[bytes]", api: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.is_healthy(api):
        if process.poll() is not None or time.monotonic() > deadline:
            raise PawlineError(f"Prefect's server did not start: {_log_path()} says why")
        time.sleep(0.2)


@contextmanager
def _reports(port: int) -> Iterator[str]:
    """Serve the reports to browsers of this machine, on the port given or else on any; yield the address."""
    handler = partial(_Pages, directory=str(REPORTS.resolve()))
    try:
        pages = ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError:
        pages = ThreadingHTTPServer((LOOPBACK, 0), handler)
    thread = threading.Thread(target=pages.serve_forever, daemon=True)
    with pages:
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{pages.server_address[1]}"
        finally:
            pages.shutdown()


class _Pages(SimpleHTTPRequestHandler):
    """Serves the files within a folder to browsers of this machine, and keeps the requests to itself."""

    timeout = 10.0  # seconds, for a request to arrive

    def send_head(self) -> BytesIO | BinaryIO | None:
        """Refuse other names of this machine, which a foreign page may have made up, and what lies elsewhere."""
        if self.headers.get("Host", "").partition(":")[0] not in (LOOPBACK, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif not self._is_within():
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            return super().send_head()
        return None

    def list_directory(self, path: str | os.PathLike[str]) -> None:
        """List nothing."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def _is_within(self) -> bool:
        """Say whether what would be sent is in the folder, with symbolic links followed."""
        path = Path(self.translate_path(self.path))
        try:
            sent = [path, path / "index.html", path / "index.htm"]  # the page of a folder
            return all(one.resolve().is_relative_to(self.directory) for one in sent)
        except (ValueError, RuntimeError, OSError):  # a NUL, links in a circle, a name too long
            return False

    def end_headers(self) -> None:
        """Let no other site show a page in a frame of its own, or a browser guess what a file is."""
        for name, value in server.PAGE_HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def _check_free(host: str, port: int) -> None:
    """Raise the one line for a port or an address that cannot be had."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise PawlineError(
            f"{host}:{port} cannot be had ({error.strerror}): end what is there, or choose another --port"
        ) from error


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _log_path() -> Path:
    return server.home() / "server.log"


def _die_with_parent() -> None:
    """Ask Linux to end the server when `pawline ui` is killed: it would keep the port, and nobody would know it."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
