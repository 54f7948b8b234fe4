"""A process that imports once what takes seconds, and runs stages in children of it, which it kills when told to.

    python -m tests.faults.stage_children LIBRARY...

It reads requests and writes answers, a line of JSON each. A child is what `python -m tasks.<stage>` is, but for the
imports: the stage's module runs as `__main__`, in the project's folder, in a process group of its own.
"""

import contextlib
import importlib
import json
import mmap
import os
import runpy
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")
COUNTS = struct.Struct("qq")  # changes and steps, in memory that a killed child leaves behind
SECONDS_BETWEEN_LOOKS = 0.002


class Death(NamedTuple):
    """When a stage is killed; never, if nothing is set.

    Attributes:
        seconds: After so long.
        change: Before the n-th change to a file or folder of the project.
        step: After the n-th step of its progress (a batch, a chunk).
        alone: The process that runs the stage dies, its workers do not, as when memory runs out.
    """

    seconds: float | None = None
    change: int | None = None
    step: int | None = None
    alone: bool = False


class Ended(NamedTuple):
    """How a stage ended.

    Attributes:
        code: Its exit code; negative if a signal ended it.
        seconds: How long it took.
        changes: How often it changed the project's files.
        steps: How many steps it made.
    """

    code: int
    seconds: float
    changes: int
    steps: int


def watch_changes(on_change: Callable[[], None]) -> None:
    """Call a function before each change to a file or folder below the current folder, as Python makes it."""
    here = f"{Path.cwd()}{os.sep}"

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES and (event != "open" or not arguments[2] & WRITES):
            return
        if not isinstance(arguments[0], str | bytes):
            return
        path = os.path.join(here, os.fsdecode(arguments[0]))  # noqa: PTH118 - a Path would be slow, for each file
        if path.startswith(here) and "__pycache__" not in path:
            on_change()

    sys.addaudithook(look)


def kill_now(*, alone: bool) -> None:
    """Die, with the whole process group or without it."""
    if alone:
        os.kill(os.getpid(), signal.SIGKILL)
    os.killpg(0, signal.SIGKILL)


def run_child(stage: str, folder: Path, said: Path, death: Death) -> Ended:
    """Run a stage in a child and return how it ended."""
    counts = mmap.mmap(-1, COUNTS.size)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_stage(stage, folder, said, death, counts)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - started
        if pid:
            changes, steps = COUNTS.unpack(counts[:])
            return Ended(os.waitstatus_to_exitcode(status), seconds, changes, steps)
        if death.seconds is not None and seconds >= death.seconds:
            with contextlib.suppress(ProcessLookupError):  # it has a group of its own by now, or soon
                (os.kill if death.alone else os.killpg)(child, signal.SIGKILL)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _be_stage(stage: str, folder: Path, said: Path, death: Death, counts: mmap.mmap) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        _redirect(said)
        _count(counts, death)
        sys.argv = [f"tasks.{stage}"]
        runpy.run_module(f"tasks.{stage}", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - said as Python would say it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # what the parent does at its end is not for its copy to do


def _redirect(said: Path) -> None:
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)


def _count(counts: mmap.mmap, death: Death) -> None:
    from tasks.progress import Progress

    done = [0, 0]

    def count(which: int, limit: int | None) -> None:
        done[which] += 1
        counts[:] = COUNTS.pack(*done)
        if done[which] == limit:
            kill_now(alone=death.alone)

    advance = Progress.advance

    def counted(self: Progress, count_: int = 1) -> None:
        advance(self, count_)
        count(1, death.step)

    Progress.advance = counted  # type: ignore[assignment, method-assign]  # it counts
    watch_changes(lambda: count(0, death.change))


def main() -> None:
    """Import what is named, then run what is asked for until there is nothing more."""
    for library in sys.argv[1:]:
        importlib.import_module(library)
    for line in sys.stdin:
        request = json.loads(line)
        death = Death(**request.pop("death"))
        ended = run_child(request["stage"], Path(request["folder"]), Path(request["said"]), death)
        sys.stdout.write(json.dumps(ended._asdict()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
