"""What a worker process may take for one file, so that one bad file costs seconds and not the run.

The system itself holds to it, because a decoder at work hears of nothing else: a process that has taken too much of a
processor's time is ended (SIGPROF), and memory beyond the limit is not given out.
"""

import mmap
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tasks.stage import PawlineError

TIME_IS_UP = signal.SIGPROF  # nothing handles it, so that it ends the process


class Limits(NamedTuple):
    """What one file may take.

    Attributes:
        seconds: Of a processor's time, so that a busy machine does not count.
        bytes: Of memory, beyond what the process has.
    """

    seconds: float
    bytes: int


def is_worker() -> bool:
    """Say whether this is the main thread of a worker process of ours: nobody else's work is in it."""
    return multiprocessing.parent_process() is not None and threading.current_thread() is threading.main_thread()


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """End this process when the block takes too long, and raise MemoryError when it takes too much.

    Without effect but in worker processes of ours: in others, such as those of a Dask cluster, it would be on others'
    work, too.

    Raises:
        MemoryError: The block takes more than its limit.
        PawlineError: It takes less, and there is not that much.
    """
    if not is_worker():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = [_data_bytes() + limits.bytes, *(one for one in before if one != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(most), before[1]))
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    try:
        yield
    except MemoryError:
        resource.setrlimit(resource.RLIMIT_DATA, before)
        _check_memory(limits.bytes)
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Throw away what C code writes to standard error in a worker process: libtiff has a line for each bad row."""
    if not is_worker():
        yield
        return
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _data_bytes() -> int:
    """Return what RLIMIT_DATA counts, where the system says so; else nothing, and the limit is too low by that."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[5]) * mmap.PAGESIZE if statm.exists() else 0  # proc_pid_statm(5)


def _check_memory(size: int) -> None:
    """Raise if it was not the limit: this process cannot have that much."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise PawlineError(
            f"a photo may take up to {size >> 20:,} MB of memory, and there is not that much: free some, or lift the "
            "limit on this process, and run again"
        ) from None
