"""The processes that run stages: each in a group of its own, read by one thread, stopped from any.

They do not hear Ctrl-C themselves: whoever runs them stops them.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from tasks.parallel import available_processors

GRACE_SECONDS = 4.0  # for a stage to end after each signal, before the next and firmer one
EVER_FIRMER = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


class StoppedError(Exception):
    """A process was stopped, or not started any more."""


class StageProcesses:
    """The processes of one run: as many at a time as this process may use processors, until all are stopped."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(available_processors())
        self._guard = threading.Lock()  # of `_running`, and of nothing being started once stopped
        self._running: set[_Process] = set()
        self._stopped = False
        self._ending = threading.Lock()  # so that a process is told once, by whomever

    def run(
        self,
        command: Sequence[str],
        on_line: Callable[[str], None],
        *,
        lock_fd: int,
        timeout_seconds: float | None = None,
    ) -> int:
        """Run a command to its end, in a process group of its own of which nothing is left behind.

        Args:
            command: An argument list.
            on_line: Is called with each line of its output, in this thread.
            lock_fd: A file descriptor that it inherits.
            timeout_seconds: How long it may take.

        Returns:
            Its exit code; negative if a signal ended it.

        Raises:
            StoppedError: `stop` was called, by another thread or before.
            TimeoutError: It took longer, and was stopped.
        """
        with self._slots:
            process = self._start(command, lock_fd)
            timer = threading.Timer(timeout_seconds or 0, self._time_out, [process])
            timer.daemon = True
            try:
                if timeout_seconds:
                    timer.start()
                exit_code = process.read(on_line)
            except BaseException:
                self._end([process])
                raise
            finally:
                timer.cancel()
                process.close()
                with self._guard:
                    self._running.discard(process)
        if exit_code != 0 and process.timed_out:
            raise TimeoutError
        if exit_code != 0:
            self.check()
        return exit_code

    def stop(self) -> None:
        """Stop all that run, with whatever they started, and start nothing any more; return when they have ended."""
        with self._guard:
            self._stopped = True
            running = list(self._running)
        self._end(running)

    def check(self) -> None:
        """Raise a StoppedError if `stop` was called."""
        if self._stopped:
            raise StoppedError("stopped")

    def _start(self, command: Sequence[str], lock_fd: int) -> "_Process":
        with self._guard:
            self.check()
            process = _Process(command, lock_fd)
            self._running.add(process)
        return process

    def _time_out(self, process: "_Process") -> None:
        process.timed_out = True
        self._end([process])

    def _end(self, processes: Collection["_Process"]) -> None:
        """Interrupt the groups, wait until the last of each has closed its output, and kill what will not go.

        Interrupted, as by Ctrl-C, DVC outlives its stage and clears its locks away; a plain kill would leave them.
        """
        try:
            with self._ending:
                for ever_firmer in EVER_FIRMER:
                    left = [process for process in processes if not process.is_over]
                    for process in left:
                        process.signal(ever_firmer)
                    deadline = time.monotonic() + GRACE_SECONDS
                    for process in left:
                        process.wait_until(deadline)
        except BaseException:  # another Ctrl-C: no more patience
            for process in processes:
                process.signal(signal.SIGKILL)
            raise


class _Process:
    """A command in a process group of its own; the thread that makes it reads its output."""

    def __init__(self, command: Sequence[str], lock_fd: int) -> None:
        self.timed_out = False
        self._told = False  # to end
        self._reader = threading.get_ident()
        self._closed = threading.Event()  # its output, which all of its group have open
        self._process = subprocess.Popen(  # noqa: S603 - an argument list of our own, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment(),
            pass_fds=(lock_fd,),
            start_new_session=True,
        )

    @property
    def is_over(self) -> bool:
        return self._closed.is_set()

    def read(self, on_line: Callable[[str], None]) -> int:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        for line in map(str.rstrip, self._process.stdout):
            on_line(line)
        self._closed.set()
        return self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self._told = True
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def wait_until(self, deadline: float) -> None:
        """Wait until the output is closed, but not beyond a time of the monotonic clock."""
        seconds = max(0.0, deadline - time.monotonic())
        if threading.get_ident() != self._reader:
            self._closed.wait(seconds)
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=seconds)
            self._closed.set()

    def close(self) -> None:
        """Let the system forget the process; of a group that was stopped, kill what has no output open."""
        if self._told:
            self.signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def environment() -> dict[str, str]:
    """Return an environment in which `python` is this one, output comes line by line, and DVC tells nobody."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}
