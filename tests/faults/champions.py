"""A project whose champion is at stake: a poor one in force, a better run to replace it, and whether all is whole."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

from lineage.links import Link, all_hold
from lineage.runs import Project, champion, find_run
from lineage.verify import verify
from registry.champion import promote
from registry.ledger import load
from registry.register import register
from tests.conftest import ROOT
from tests.plumbing import git_in
from tests.test_pipeline import run, set_params

PATIENCE_SECONDS = 900.0  # a retraining on a busy machine
# Nothing but being right more often counts: there are nine test photos.
LENIENT = {
    "gate.alpha": 0.5,
    "gate.min_accuracy": 0.0,
    "gate.min_recall": 0.0,
    "gate.max_slice_drop": 1.0,
    "gate.min_images": 1,
    "gate.max_latency_ms": None,
}
BETTER = {"train_head.epochs": 40, "train_head.learning_rate": 0.003}
POOR = {"train_head.epochs": 1, "train_head.learning_rate": 1e-9}  # it takes everything for one class


def make_contested(three_runs_made: Path, folder: Path) -> None:
    """Make `project`: the three runs, v1.0.0 as its poor champion, and settings that a better one comes of.

    Their run is in DVC's run cache, so that a retraining has the challenger in seconds.
    """
    project = folder / "project"
    shutil.copytree(three_runs_made / "project", project, symlinks=True)
    set_params(project, BETTER)
    run(["dvc", "repro"], project)
    set_params(project, POOR)
    run(["dvc", "repro"], project)
    git_in(project, "commit", "--quiet", "--all", "--message", "Learn nothing")
    os.environ["XDG_CONFIG_HOME"], kept = str(folder / "config"), os.environ.get("XDG_CONFIG_HOME")
    try:
        poor = Project(project)
        register(poor, find_run(poor, "HEAD"), reason="the first")
        promote(poor, find_run(poor, "v1"), reason="there is no other")
    finally:
        del os.environ["XDG_CONFIG_HOME"]
        if kept is not None:
            os.environ["XDG_CONFIG_HOME"] = kept
    set_params(project, LENIENT | BETTER)
    git_in(project, "commit", "--quiet", "--all", "--message", "Learn again")


def champion_name(folder: Path) -> str | None:
    """Return which version is the champion."""
    found = champion(Project(folder))
    return None if found is None else found.name


def is_whole(folder: Path, *, interrupted: bool = False) -> bool:
    """Say whether the repository is sound, and the champion verified from its photos to its signature.

    Args:
        folder: The project's.
        interrupted: A decision may lack its tag: it is in force when that is made, by whatever decides next.
    """
    project = Project(folder)
    book = load(folder)
    chained = all(
        after.previous == book.digest(before) for before, after in zip(book.decisions, book.decisions[1:], strict=False)
    )
    sound = git_in(folder, "fsck", "--strict", "--no-dangling") == ""
    links = verify(project, find_run(project, "champion"))
    return sound and chained and all_hold([link for link in links if not (interrupted and is_pending(link))])


def is_pending(link: Link) -> bool:
    """Say whether all that is wrong with a link is that a decision's tag is not made yet."""
    return (link.kind, link.status) == ("tag", "missing") and "`pawline promote` finishes it" in link.detail


def refs(folder: Path) -> dict[str, str]:
    """Return every ref and what it points to."""
    lines = git_in(folder, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return {ref: target for ref, _, target in (line.partition(" ") for line in lines)}


def put_back(folder: Path, before: dict[str, str]) -> None:
    """Let every ref point to what it pointed to."""
    new = [f"delete {ref}\n" for ref in refs(folder) if ref not in before]
    old = [f"update {ref} {target}\n" for ref, target in before.items()]
    subprocess.run(["git", "update-ref", "--stdin"], cwd=folder, input="".join(new + old), text=True, check=True)


def run_killed(action: Callable[[], object], seconds: float | None = None, *, alone: bool = False) -> tuple[int, float]:
    """Run something in a process group of its own, killed after some seconds; return exit code and seconds."""

    def child() -> None:
        os.setsid()
        action()
        os._exit(0)  # what other tests of this process left to be done at its end is not for its copy to do

    process = get_context("fork").Process(target=child)
    started = time.monotonic()
    process.start()
    process.join(seconds)
    if process.is_alive():
        (process.kill if alone else lambda: os.killpg(process.pid or 0, signal.SIGKILL))()
    process.join()
    return process.exitcode or 0, time.monotonic() - started


class Command:
    """A command of `pawline` at work, in a process group of its own, whose output is read; a context manager."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        """Start it."""
        environment = os.environ | {
            "PREFECT_HOME": str(folder / ".prefect"),
            "PYTHONUNBUFFERED": "1",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        }
        environment.pop("PREFECT_API_URL", None)
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from flows.cli import main; main()", *arguments],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):  # nothing of it outlives the block
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(iter(self.process.stdout.readline, ""))

    def wait_for(self, text: str) -> bool:
        """Wait until it has said something; return whether it did before it ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(text in line for line in self.said):
            if self.process.poll() is not None and not self._reader.is_alive():
                return any(text in line for line in self.said)
            assert time.monotonic() < deadline, "".join(self.said)
            time.sleep(0.02)
        return True

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it said."""
        self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)  # until all have ended that write where it wrote
        return self.process.returncode, "".join(self.said)


def pawline(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command of `pawline`; return its exit code and what it said."""
    with Command(folder, *arguments) as command:
        return command.end()
