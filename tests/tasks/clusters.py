"""A real Dask scheduler and its workers, each a process of its own on loopback."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

from tests.conftest import ROOT

PATIENCE_SECONDS = 60.0


class Cluster:
    """A scheduler, and workers of one thread that are not started anew when they die."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.note = folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self._scheduler = self._start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.note))
        wait_for(lambda: self.note.exists() and self.note.read_text().endswith("}"))
        self.address: str = json.loads(self.note.read_text())["address"]

    def add_workers(self, count: int, code: Path = ROOT) -> None:
        """Start workers that run Pawline's code from a folder, and wait until the scheduler knows them."""
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder)]
        for _ in range(count):
            self.workers.append(self._start("worker", self.address, *options, code=code))
        alive = sum(worker.poll() is None for worker in self.workers)
        with self.client() as client:
            wait_for(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == alive)

    @contextmanager
    def client(self) -> Iterator[Client]:
        with Client(self.address, set_as_default=False) as client:
            yield client

    @contextmanager
    def losing_one(self) -> Iterator[None]:
        """Kill a worker amid the work of the block, as soon as one works."""
        watching = threading.Event()
        killer = threading.Thread(target=self.kill_one_at_work, args=[watching])
        killer.start()
        assert watching.wait(PATIENCE_SECONDS)
        yield
        killer.join()

    def kill_one_at_work(self, watching: threading.Event | None = None) -> int:
        """SIGKILL a worker while it works, as soon as one does; return its process's id. `watching` is set before."""
        pids = {worker.pid for worker in self.workers if worker.poll() is None}
        with self.client() as client:
            names = {address: pid for address, pid in client.run(os.getpid).items() if pid in pids}

            def at_work() -> list[str]:
                return [address for address, tasks in client.processing().items() if tasks and address in names]

            if watching:
                watching.set()
            wait_for(at_work)
            pid: int = names[at_work()[0]]
        os.kill(pid, signal.SIGKILL)
        return pid

    def end(self) -> None:
        for process in [*self.workers, self._scheduler]:
            process.kill()
        for process in [*self.workers, self._scheduler]:
            process.wait(PATIENCE_SECONDS)

    def _start(self, kind: str, *arguments: str, code: Path = ROOT) -> "subprocess.Popen[bytes]":
        program = [str(Path(sys.executable).with_name("dask")), kind, *arguments, "--host", "127.0.0.1"]
        environment = os.environ | {"PYTHONPATH": str(code), "DASK_LOGGING__DISTRIBUTED": "critical"}
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(program, cwd=self.folder, env=environment, **quiet)


@contextmanager
def running(folder: Path, workers: int) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        cluster.add_workers(workers)
        yield cluster
    finally:
        cluster.end()


def wait_for(condition: Any) -> None:  # noqa: ANN401 - whatever says yes or no
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
