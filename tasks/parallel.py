"""Map a function over chunks of work in local processes: results in order, a bounded number of chunks under way."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from tasks.stage import PawlineError

T = TypeVar("T")
R = TypeVar("R")


def map_processes(function: Callable[[T], R], chunks: Iterable[T], *, workers: int | None = None) -> Iterator[R]:
    """Yield `function(chunk)` for each chunk, in order.

    Args:
        function: A module-level function, or a `functools.partial` of one; its module should be quick to import.
        chunks: Small descriptions of work, such as a shard and a row group: the worker reads the data itself. Their
            `str` names them when a worker dies over one.
        workers: Processes; by default one for each processor this process may use.

    Raises:
        PawlineError: When a worker dies (a crash in a decoder, the system's out-of-memory killer).
        Exception: Whatever `function` raises.
    """
    workers = workers or available_processors()
    pending: deque[tuple[T, Future[R]]] = deque()
    waiting = iter(chunks)
    # Fresh processes: forking would copy this one's memory, and its threads' locks in whatever state they are.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        while True:
            for chunk in islice(waiting, 2 * workers - len(pending)):
                with _interrupts_blocked():
                    pending.append((chunk, pool.submit(function, chunk)))
            if not pending:
                return
            yield pending[0][1].result()
            pending.popleft()
    except BrokenProcessPool:
        suspects = ", ".join(str(chunk) for chunk, future in pending if _died(future))
        raise PawlineError(
            f"a worker process died while it worked on one of: {suspects}; "
            "if memory ran out, free some and run again, otherwise a file in there crashes its decoder"
        ) from None
    except BaseException:
        # Interrupted or ended: a pool that shuts down in the middle of things can wait for its workers for ever.
        for worker in multiprocessing.active_children():
            worker.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def available_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _died(future: Future[R]) -> bool:
    return future.done() and isinstance(future.exception(), BrokenProcessPool)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let worker processes start with Ctrl-C blocked: it is for the parent, which ends them, to answer it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """End this worker when its parent was killed: nobody else would."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
