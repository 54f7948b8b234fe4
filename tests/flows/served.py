"""A plugin of the tests that need a real Prefect server: one, as `pawline ui` starts it, for all of a process's tests.

The ephemeral server of Prefect's own harness neither schedules nor reacts to events.

PYTEST_DONT_REWRITE: the modules that name this plugin have imported it before.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import server
from tests.flows.conftest import empty_database, processes_in

ROOT = Path(__file__).parents[2]
IMPATIENT = {
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_CLIENT_MAX_RETRIES": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
}
PAWLINE = [sys.executable, "-c", "from flows.cli import main; main()"]
# What prefect.yaml names, in small; in a folder of its own, because `flows` must stay the checkout's.
JOBS = """\
import os
import signal
import time
from pathlib import Path
from typing import Any

from prefect import flow, task

from flows import liveness


@task
def nap(seconds: float) -> None:
    print("napping in", Path.cwd(), flush=True)
    Path("asleep").touch()
    time.sleep(seconds)
    if seconds == 0.5:
        os.kill(os.getpid(), signal.SIGKILL)


@flow
def pipeline(seconds: float = 0) -> None:
    nap(seconds)


@flow
def retrain(preset: str | None = None, overlap: str = "wait", seconds: float = 0) -> None:
    with liveness.noted():
        pipeline(seconds)


if __name__ == "__main__":
    retrain(seconds=0.5)
"""


@dataclass
class Served:
    """A project, and the server that runs for it."""

    folder: Path
    port: int
    process: "subprocess.Popen[str]" = field(init=False)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """That of a user in the project's folder."""
        return {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}

    def start(self) -> None:
        self.process = self.popen("ui", "--port", str(self.port))
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(f"Prefect's page: {self.address} (Ctrl-C ends it)")

    def stop(self) -> str:
        """End the server as Ctrl-C does, and return what it said."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=30)[0]

    def popen(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*PAWLINE, *arguments],
            cwd=self.folder,
            env={**self.environment, **IMPATIENT, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_die_with_parent,
        )

    def pawline(self, *arguments: str) -> str:
        """Run a command to its end, and return what it said."""
        process = self.popen(*arguments)
        try:
            return process.communicate(timeout=60)[0]
        finally:
            process.kill()

    def python(self, *arguments: str) -> int:
        """Run Python in the project, on its server."""
        environment = {**self.environment, server.API_VARIABLE: f"{self.address}/api"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, check=False, capture_output=True
        )
        return done.returncode

    @contextmanager
    def in_use(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
        """Let this process use the server, from the project's folder."""
        monkeypatch.chdir(self.folder)
        monkeypatch.setenv(server.API_VARIABLE, f"{self.address}/api")
        monkeypatch.setenv("PREFECT_HOME", str(self.folder / ".prefect"))
        _forget_other_servers()
        with temporary_settings({PREFECT_API_URL: f"{self.address}/api"}), get_client(sync_client=True) as client:
            yield client
        _forget_other_servers()

    def notes(self) -> list[dict[str, object]]:
        return [json.loads(path.read_text()) for path in (self.folder / ".prefect/runs").glob("*.json")]


def _forget_other_servers() -> None:
    """End what sends this process's events: it goes on sending them to the server that was in use when it began."""
    EventsWorker.drain_all(at_exit=False)


def make_project(folder: Path) -> Served:
    """Make a project of two small flows, and return it; its server is not at work yet."""
    for name in ("prefect.toml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "presets", folder / "presets")
    described = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    (folder / "prefect.yaml").write_text(described.replace("entrypoint: flows/", "entrypoint: jobs/"))
    (folder / "dvc.yaml").write_text("stages: {}\n")
    for name in ("jobs/retrain.py", "jobs/pipeline.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(JOBS)
    (folder / "reports").mkdir()
    (folder / "reports/a page.html").write_text("accuracy")
    return Served(folder, free_port())


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Iterator[Served]:
    """A project of two small flows with its server at work, which ends in good order."""
    project = make_project(folder := tmp_path_factory.mktemp("served"))
    (folder / ".prefect").mkdir()
    shutil.copy(empty_database(shared_folder), folder / ".prefect/prefect.db")
    project.start()
    try:
        yield project
        assert project.stop().splitlines()[-1].startswith("Prefect's server has ended; schedules are kept")
        assert (project.process.returncode, (folder / ".prefect/server.json").exists()) == (0, False)
        assert processes_in(folder) == []
    finally:
        project.process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(seconds: float, condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.2)


def state_of(run: FlowRun, client: SyncPrefectClient) -> str:
    state = client.read_flow_run(run.id).state
    assert state is not None
    return state.name or ""


def _die_with_parent() -> None:
    """Let nothing outlive a test process that is killed."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
