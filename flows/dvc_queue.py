"""DVC's experiment queue: experiments in, done by workers in temporary workspaces, outcomes out.

What `dvc exp run --queue`, `dvc queue start` and `dvc queue stop` do, in one process, with workers that end with it.
Everything works on the project in the current folder.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from dvc.dirs import system_config_dir
from dvc.dvcfile import LOCK_FILE
from dvc.repo.experiments.executor.base import ExecutorInfo

from flows.dvc_graph import reason
from flows.experiments import experiment_names, open_repo, uninterrupted
from tasks.stage import PawlineError

SECONDS_BETWEEN_LOOKS = 0.25
GRACE_SECONDS = 15.0  # for a worker to end its experiment and clear it away after a signal
# Large inputs are linked into temporary workspaces, not copied. DVC links read-only, which is no trouble there.
LINKS = "[cache]\n    type = reflink,hardlink,symlink,copy\n"
Queue = Any  # dvc.repo.experiments.queue.celery.LocalCeleryQueue: DVC ships no types
Worker = subprocess.Popen[bytes]
Entry = Any  # dvc.repo.experiments.queue.base.QueueEntry


class Count(NamedTuple):
    """How far the queue is."""

    done: int
    failed: int
    running: int


def run_experiments(
    overrides: Mapping[str, Sequence[str]], stages: Sequence[str], *, jobs: int, show: Callable[[Count], None]
) -> dict[str, str]:
    """Run experiments, several at a time, and keep those that succeed.

    Args:
        overrides: For each experiment's name its settings, in Hydra's grammar.
        stages: The stages to run, in order; no others are looked at.
        jobs: How many run at a time.
        show: Told how far it is, now and then.

    Returns:
        The experiments that failed, each with the line in which its stage said why.

    Raises:
        PawlineError: There are other experiments in the queue, or it could not be worked on.
    """
    with open_repo() as repo:
        queue = repo.experiments.celery_queue
        if others := [entry.name for entry in queue.iter_queued()]:
            raise PawlineError(
                f"DVC's queue is not empty ({', '.join(others[:5])}): finish it with `dvc queue start` or empty it "
                "with `dvc queue remove --queued`"
            )
        if LOCK_FILE in repo.scm.untracked_files():  # git stashes, and DVC queues, tracked files only
            repo.scm.add([LOCK_FILE])
        names = set(overrides)
        try:
            for name, settings in overrides.items():
                with uninterrupted():
                    repo.experiments.run(
                        targets=list(stages), single_item=True, params=list(settings), name=name, queue=True
                    )
            entries = list(queue.iter_queued())
            with _workers(queue, jobs) as workers:
                try:
                    _wait(queue, entries, workers, show)
                except BaseException:
                    _forget_queued(queue, names)  # first, or a worker that is interrupted goes on to the next
                    _interrupt(queue, workers)
                    raise
        except BaseException:
            _forget_queued(queue, names)
            _forget_interrupted(queue, names)
            raise
        queue.celery.clean()  # messages to workers that are gone
        kept = experiment_names()
        return {entry.name: _why(queue, entry) for entry in entries if entry.name not in kept}


def _wait(queue: Queue, entries: Sequence[Entry], workers: Sequence[Worker], show: Callable[[Count], None]) -> None:
    """Look until every experiment is over."""
    over: set[str] = set()
    failed = 0
    while True:
        # In this order: what is taken from the queue in between is then seen as running.
        open_entries = {entry.stash_rev for entry in queue.iter_queued()}
        active = {entry.stash_rev for entry in queue.iter_active()}
        for entry in entries:
            if entry.stash_rev not in open_entries | active | over:
                over.add(entry.stash_rev)
                failed += not _is_kept(queue, entry)
        show(Count(len(over) - failed, failed, len(active)))
        if len(over) == len(entries):
            return
        if all(worker.poll() is not None for worker in workers):
            raise PawlineError("DVC's workers ended before the queue was empty: `dvc queue status` says more")
        time.sleep(SECONDS_BETWEEN_LOOKS)


@contextmanager
def _workers(queue: Queue, count: int) -> Iterator[list[Worker]]:
    """Start workers, each in a process group of its own, and leave nothing of the groups behind."""
    with ExitStack() as stack:
        env = os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "DVC_NO_ANALYTICS": "1",
        }
        if not (Path(system_config_dir()) / "config").exists():
            config_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (config_dir / "config").write_text(LINKS, encoding="utf-8")
            env["DVC_SYSTEM_CONFIG_DIR"] = str(config_dir)
        workers = [_start_worker(queue, number, env) for number in range(count)]
        try:
            yield workers
        finally:
            for worker in workers:  # a worker without work has nothing to clear away, and would take its time
                with suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()


def _start_worker(queue: Queue, number: int, env: dict[str, str]) -> Worker:
    name = f"pawline-{number}@localhost"
    with queue.celery.connection_for_write() as connection:  # what was said to an earlier one, such as to shut down
        connection.channel().queue_purge(f"{name}.celery.pidbox")
    return subprocess.Popen(  # noqa: S603 - an argument list of our own, no shell
        [sys.executable, "-m", "dvc", "exp", "queue-worker", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    )


def _interrupt(queue: Queue, workers: Sequence[Worker]) -> None:
    """Interrupt what runs, as by Ctrl-C on a terminal, and give DVC the time to clear its workspace away."""
    with uninterrupted():
        for worker in workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        while list(queue.iter_active()) and time.monotonic() < deadline:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _forget_queued(queue: Queue, names: set[str]) -> None:
    with uninterrupted():
        queue.remove([entry.stash_rev for entry in queue.iter_queued() if entry.name in names])


def _forget_interrupted(queue: Queue, names: set[str]) -> None:
    """Clear away what was running when the workers ended, and what failed of it."""
    with uninterrupted():
        active = [entry for entry in queue.iter_active() if entry.name in names]
        for entry in active:
            if info := _info(queue, entry):
                shutil.rmtree(info.root_dir, ignore_errors=True)
        if active:  # a killed worker cannot say so itself
            queue._mark_inactive_tasks_failure({entry: entry.name for entry in active})
        failed = [result.entry.stash_rev for result in queue.iter_failed() if result.entry.name in names]
        queue.remove(failed)


def _is_kept(queue: Queue, entry: Entry) -> bool:
    info = _info(queue, entry)
    return info is not None and info.result_hash is not None


def _info(queue: Queue, entry: Entry) -> ExecutorInfo | None:
    with suppress(FileNotFoundError):
        return ExecutorInfo.load_json(queue.get_infofile_path(entry.stash_rev))
    return None


def _why(queue: Queue, entry: Entry) -> str:
    process = queue.proc.get(entry.stash_rev)
    if process is None:
        return "DVC could not set it up; `dvc queue status` says more"
    return reason(Path(process.stdout).read_text(encoding="utf-8", errors="replace").splitlines())
