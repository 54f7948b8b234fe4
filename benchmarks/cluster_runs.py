"""Real runs of a stage on a Dask scheduler and workers of one thread, each a process of its own on loopback."""

import bisect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from tasks.cluster import SCHEDULER
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from distributed import Client

PATIENCE_SECONDS = 60.0
LOOKS_PER_SECOND = 50
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
Process = subprocess.Popen[bytes]


class Run(NamedTuple):
    """One run of a stage, in seconds since its command began."""

    makespan: float
    chunks: list[tuple[float, float]]  # from when to when a worker was at each, in the order in which they began
    leading: float  # processor seconds of the client and the scheduler while there were chunks at work
    warming: float  # of the workers, until the first chunk was done
    working: float  # of the workers, from then on
    others: float = 0.0  # share of the machine's processors that other processes took


class Cluster(NamedTuple):
    """A scheduler and its workers."""

    address: str
    scheduler: Process
    workers: list[Process]


@contextmanager
def local_cluster(count: int, code: Path) -> Iterator[Cluster]:
    """Start a scheduler and so many workers that run Pawline's code from a folder; end them after the block.

    Raises:
        PawlineError: They did not start within a minute.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pawline-dask-")))
        note = folder / "scheduler.json"
        options = ["--port", "0", "--no-dashboard", "--scheduler-file", str(note)]
        scheduler = stack.enter_context(_started("scheduler", options, folder, code))
        wait_for(lambda: note.exists() and note.read_text().endswith("}"), "the Dask scheduler did not start")
        address: str = json.loads(note.read_text())["address"]
        options = [address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder)]
        workers = [stack.enter_context(_started("worker", options, folder, code)) for _ in range(count)]
        with connected(address) as client:
            wait_for(
                lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == count, "a Dask worker did not start"
            )
        yield Cluster(address, scheduler, workers)


@contextmanager
def _started(kind: str, options: list[str], folder: Path, code: Path) -> Iterator[Process]:
    command = [str(Path(sys.executable).with_name("dask")), kind, *options, "--host", "127.0.0.1"]
    environment = os.environ | {"PYTHONPATH": str(code), "DASK_LOGGING__DISTRIBUTED": "critical"}
    process = subprocess.Popen(command, cwd=folder, env=environment, **QUIET)  # noqa: S603 - fixed commands
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)


@contextmanager
def connected(address: str) -> Iterator["Client"]:
    """Connect to a scheduler."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        yield client


def wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait until something is true; after a minute, `otherwise` is the error."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise PawlineError(f"{otherwise}: is the machine busy?")
        time.sleep(0.01)


def run_on_cluster(command: list[str], clone: Path, workers: int, kill_at: float | None = None) -> Run:
    """Run a stage's command in a project on a fresh cluster.

    Args:
        command: As in dvc.yaml.
        clone: The project, whose code the workers run.
        workers: How many.
        kill_at: After so many seconds, or as soon after as one is at work, a worker is killed.

    Raises:
        PawlineError: It failed, with what it said.
    """
    with local_cluster(workers, clone) as cluster, connected(cluster.address) as observer:
        observer.get_task_stream()  # from now on the scheduler remembers
        environment = os.environ | {SCHEDULER: cluster.address, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        with tempfile.TemporaryFile() as said:
            began, used_before = time.time(), _used()
            stage = subprocess.Popen(command, cwd=clone, env=environment, stdout=said, stderr=said)  # noqa: S603
            looks = _watch(stage, cluster, observer, None if kill_at is None else began + kill_at)
            ended, used = time.time(), _used() - used_before
            if stage.returncode:
                said.seek(0)
                raise PawlineError(f"{' '.join(command)} failed: {said.read().decode(errors='replace').strip()}")
        tasks = [task["startstops"] for task in observer.get_task_stream()]
    spans = sorted((part["start"], part["stop"]) for parts in tasks for part in parts if part["action"] == "compute")
    first, last = spans[0][0], max(stop for _, stop in spans)
    leading, working = ([look[kind] for look in looks] for kind in (1, 2))
    times = [look[0] for look in looks]
    ours = leading[-1] - leading[0] + working[-1] - working[0]
    return Run(
        ended - began,
        [(start - began, stop - began) for start, stop in spans],
        _at(last, times, leading) - _at(first, times, leading),
        _at(spans[0][1], times, working) - _at(first, times, working),
        working[-1] - _at(spans[0][1], times, working),
        max(0.0, used - ours) / (psutil.cpu_count() * (ended - began)),
    )


def _watch(stage: Process, cluster: Cluster, observer: "Client", kill_at: float | None) -> list[tuple[float, ...]]:
    """Note the time, and processor seconds of client and scheduler, and of workers, until the stage has ended."""
    leaders, workers = [_Usage(stage.pid), _Usage(cluster.scheduler.pid)], [_Usage(one.pid) for one in cluster.workers]
    addresses = {pid: address for address, pid in observer.run(os.getpid).items()}
    looks: list[tuple[float, ...]] = []
    while stage.poll() is None:
        looks.append((time.time(), sum(map(_Usage.look, leaders)), sum(map(_Usage.look, workers))))
        if kill_at is not None and time.time() >= kill_at and kill_one_at_work(cluster, observer, addresses):
            kill_at = None
        time.sleep(1 / LOOKS_PER_SECOND)
    return looks


def _used() -> float:
    """Return the seconds that the machine's processors were busy, but for this process."""
    every, this = psutil.cpu_times(), psutil.Process().cpu_times()
    used: float = sum(every) - every.idle - every.iowait - every.guest - every.guest_nice - this.user - this.system
    return used


class _Usage:
    """Processor seconds of a process; after its end, those at the last look."""

    def __init__(self, pid: int) -> None:
        self._process, self._seconds = psutil.Process(pid), 0.0

    def look(self) -> float:
        try:
            times = self._process.cpu_times()
            self._seconds = max(self._seconds, times.user + times.system)  # a zombie has none
        except psutil.NoSuchProcess:
            pass
        return self._seconds


def kill_one_at_work(cluster: Cluster, observer: "Client", addresses: dict[int, str]) -> bool:
    """SIGKILL a worker that has a chunk, if one has; workers' addresses by process id."""
    busy = {address for address, tasks in observer.processing().items() if tasks}
    for worker in cluster.workers:
        if addresses[worker.pid] in busy:
            worker.kill()
            return True
    return False


def _at(moment: float, times: list[float], values: list[float]) -> float:
    """Return what was last seen at a moment."""
    return values[max(0, bisect.bisect(times, moment) - 1)]
