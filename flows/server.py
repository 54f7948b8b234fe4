"""The Prefect server that runs are recorded on: `pawline ui` starts it, and every other command finds it.

In this order: the one that PREFECT_API_URL names, the project's own, which is noted in `server.json` in Prefect's
home, or (for `pawline run`) a temporary one. Nothing here imports Prefect before it is needed: Prefect reads its
settings, its home among them, when it is imported.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import psutil

from tasks.stage import PawlineError

HOME = Path(".prefect")  # beside the project, as in prefect.toml
NOTE = "server.json"
API_VARIABLE = "PREFECT_API_URL"
HEALTH_SECONDS = 5.0  # for a server under load to answer
PAGE_HEADERS = {  # of whatever is served to browsers: no frame of another site, no guessing what a file is
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LEAST_FREE_BYTES = 20 * 10**6  # for Prefect's database to begin with, and for some runs
CLOCK_SECONDS = 10.0  # by which a process's start time may differ when the clock has been set
SERVER_APP = "prefect.server.api.server:create_app"  # in the command line of a temporary server
# Waits until its standard input is closed, and ends a process that is its parent's.
WATCHDOG = "import os, signal, sys; p = os.pidfd_open(int(sys.argv[1])); sys.stdin.read(); "
WATCHDOG += "signal.pidfd_send_signal(p, signal.SIGTERM)"

_temporary: list[psutil.Process] = []  # servers that this process has started
_watchdogs: list["subprocess.Popen[bytes]"] = []  # kept, so that their standard inputs stay open


@dataclass(frozen=True)
class Server:
    """A server that `pawline ui` has started.

    Attributes:
        address: Of Prefect's page, such as `http://127.0.0.1:4200`.
        reports: Address of the pages in `reports_folder`.
        reports_folder: Absolute.
        pid: The process of `pawline ui`.
        started: When that process started, in seconds since 1970.
    """

    address: str
    reports: str
    reports_folder: str
    pid: int
    started: float

    @property
    def api(self) -> str:
        """Return what PREFECT_API_URL would be."""
        return f"{self.address}/api"


def home() -> Path:
    """Return Prefect's home: PREFECT_HOME, or `.prefect` in the current folder."""
    return Path(os.environ.get("PREFECT_HOME", HOME)).expanduser().absolute()


def prepare() -> None:
    """Give Prefect and the processes it starts an absolute home and no telemetry, if it is not imported yet.

    prefect.toml says where the home is as seen from the project's folder; a retraining leaves that folder.
    """
    if "prefect" not in sys.modules:
        _check_home()
        os.environ["PREFECT_HOME"] = str(home())
        os.environ.setdefault("DO_NOT_TRACK", "1")
        os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def _check_home() -> None:
    """Raise the one line for a home that cannot be written, or is full: Prefect itself would try again and again."""
    probe = home() / f".probe-{os.getpid()}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PawlineError(
            f"{home()}: {error.strerror}: Prefect keeps its records there; set PREFECT_HOME to a folder of yours"
        ) from error
    if shutil.disk_usage(probe.parent).free < LEAST_FREE_BYTES:
        raise PawlineError(
            f"{home()}: no space left on the disk: Prefect keeps its records there; make room for "
            f"{LEAST_FREE_BYTES // 10**6} MB, or set PREFECT_HOME to a folder elsewhere"
        )


def connect() -> None:
    """Make sure that there is a server, starting a temporary one if there is no other, and end what died on it.

    A temporary server belongs to this process and ends with it. It is started with the interrupt signal blocked, which
    it inherits: Ctrl-C on a terminal goes to the whole process group, and without its server the run would wait a
    minute to report that it was interrupted.

    Raises:
        PawlineError: The server cannot be reached or started.
    """
    prepare()
    server = None if API_VARIABLE in os.environ else running()
    if server is not None:
        _use(server.api)
    else:
        _lock_temporary()
    from prefect.client.orchestration import get_client

    from flows import liveness

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        client = get_client(sync_client=True)
    except RuntimeError as error:
        raise PawlineError(f"Prefect's temporary server did not start: {' '.join(str(error).split())}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _end_with_this_process()
    problem = client.api_healthcheck()
    api = str(client.api_url).rstrip("/")
    if _lacks_suffix(api):  # asked first: Prefect's page may answer in the server's stead
        raise _no_server(api)
    if problem is not None:
        raise PawlineError(f"no Prefect server at {api} ({problem}): start it, or unset {API_VARIABLE}")
    liveness.end_dead_runs()


def _end_with_this_process() -> None:
    """Let a temporary server end when this process is killed: Prefect ends it only where Python ends in good order."""
    for child in psutil.Process().children():
        if child in _temporary or SERVER_APP not in child.cmdline():
            continue
        _temporary.append(child)
        if hasattr(os, "pidfd_open"):  # Linux has it
            _watchdogs.append(
                subprocess.Popen(  # noqa: S603 - a fixed command
                    [sys.executable, "-I", "-S", "-c", WATCHDOG, str(child.pid)],
                    cwd="/",
                    stdin=subprocess.PIPE,  # nothing is ever written: the end of this process closes it
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )


def is_lost() -> bool:
    """Say whether this process has started a temporary server that is no more."""
    return any(not child.is_running() or child.status() == psutil.STATUS_ZOMBIE for child in _temporary)


def require() -> str:
    """Return the API address of a server that is running, and use it from now on.

    Raises:
        PawlineError: There is none.
    """
    prepare()
    if api := os.environ.get(API_VARIABLE):
        if not is_healthy(api):
            raise _no_server(api)
        return api
    server = running()
    if server is None:
        raise PawlineError("no Prefect server: start one with `pawline ui` in another terminal")
    _use(server.api)
    return server.api


def running() -> Server | None:
    """Return the project's own server, if its process is alive and it answers."""
    server = noted()
    if server is None or not is_alive(server.pid, server.started) or not is_healthy(server.api):
        return None
    return server


def noted() -> Server | None:
    """Return the server that was last started here, if it was not ended in good order and its note can be read."""
    try:
        return Server(**json.loads((home() / NOTE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):  # none, damaged by a power cut, or of another version
        return None


def note(server: Server | None) -> None:
    """Write down which server is running here, or that there is none any more."""
    path = home() / NOTE
    if server is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, asdict(server))


def report_url(path: Path) -> str:
    """Return an address at which a browser finds a file in reports/: of the running server, or else the file's path.

    Args:
        path: Relative to the current folder, or absolute.
    """
    path = path.resolve()
    server = noted()
    if server is None or not path.is_relative_to(server.reports_folder) or not is_alive(server.pid, server.started):
        return str(path)
    return f"{server.reports}/{quote(path.relative_to(server.reports_folder).as_posix())}"


def is_healthy(api: str) -> bool:
    """Say whether a Prefect server answers at an API address."""
    try:
        with urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=HEALTH_SECONDS) as answer:  # noqa: S310 - http
            body: bytes = answer.read()
            return body == b"true"
    except (OSError, ValueError):
        return False


def is_alive(pid: int, started: float) -> bool:
    """Say whether the process that had this id then is still at work: after a reboot others have the ids."""
    try:
        process = psutil.Process(pid)
        same: bool = abs(process.create_time() - started) < CLOCK_SECONDS
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def machine() -> str:
    """Return what tells this machine, or container, from others that see the same files."""
    namespace = Path("/proc/self/ns/pid")  # on Linux; a container has its own, maybe under the machine's name
    return f"{socket.gethostname()} {namespace.readlink() if namespace.is_symlink() else ''}".strip()


def write_json(path: Path, value: object) -> None:
    """Write a small file that appears whole, even if the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())  # a file system may rename before it writes
    unfinished.replace(path)


def _lacks_suffix(api: str) -> bool:
    """Say whether a server answers only once `/api` is added to the address."""
    return not is_healthy(api) and is_healthy(f"{api.rstrip('/')}/api")


def _no_server(api: str) -> PawlineError:
    """Return the one line for an address of PREFECT_API_URL at which no server answers."""
    if _lacks_suffix(api):
        return PawlineError(f"no Prefect server at {api}: did you mean {API_VARIABLE}={api.rstrip('/')}/api?")
    return PawlineError(f"no Prefect server at {api}: start it, or unset {API_VARIABLE}")


def _lock_temporary() -> None:
    """Have a temporary server ask for a password that this process and those it starts alone know.

    Everybody on this machine can reach its port, and so can pages in a browser, under a name that was pointed here.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url is None and settings.api.auth_string is None:
        password = f"pawline:{secrets.token_urlsafe()}"
        os.environ |= {"PREFECT_API_AUTH_STRING": password, "PREFECT_SERVER_API_AUTH_STRING": password}
        refresh_global_settings_context()


def _use(api: str) -> None:
    """Let this process, and those it starts, use a server."""
    os.environ[API_VARIABLE] = api
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
