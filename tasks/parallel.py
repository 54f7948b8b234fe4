"""Map a function over chunks of work in local processes: results in order, a bounded number of chunks under way."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from tasks.stage import PawlineError

T = TypeVar("T")
R = TypeVar("R")


class Underway(NamedTuple, Generic[T, R]):
    """A chunk, and what will come of it."""

    chunk: T
    future: "Future[R]"
    rescued: bool = False

    @property
    def lost(self) -> bool:
        """Whether its process died, or ran out of memory, over this chunk or beside it."""
        failed = self.future.done() and isinstance(self.future.exception(), BrokenProcessPool | MemoryError)
        return failed and not self.rescued


def map_processes(
    function: Callable[[T], R],
    chunks: Iterable[T],
    *,
    workers: int | None = None,
    rescue: Callable[[T], R] | None = None,
) -> Iterator[R]:
    """Yield `function(chunk)` for each chunk, in order.

    Args:
        function: A module-level function, or a `functools.partial` of one; its module should be quick to import.
        chunks: Small descriptions of work, such as a shard and a row group: the worker reads the data itself. Their
            `str` names them when a worker dies over one.
        workers: Processes; by default one for each processor this process may use.
        rescue: Does a chunk in another way, in a thread of this process: each that may have been the one over which a
            worker died, or that ran out of memory.

    Raises:
        PawlineError: When a worker dies (a crash in a decoder, the system's out-of-memory killer) without a rescue.
        Exception: Whatever `function` or `rescue` raises.
    """
    workers = workers or available_processors()
    pending: deque[Underway[T, R]] = deque()
    waiting = iter(chunks)
    pool, rescuers = _start(workers), ThreadPoolExecutor(workers)
    try:
        while True:
            for chunk in islice(waiting, 2 * workers - len(pending)):
                pending.append(Underway(chunk, _submit(pool, function, chunk)))
            if not pending:
                return
            wait([pending[0].future])
            if pending[0].lost:
                if isinstance(pending[0].future.exception(), BrokenProcessPool):
                    wait([one.future for one in pending if not one.rescued])  # soon: all of them are lost
                    _check_rescue(rescue, [one.chunk for one in pending if one.lost])
                    pool.shutdown()
                    pool = _start(workers)
                if rescue:
                    pending = deque(
                        Underway(one.chunk, rescuers.submit(rescue, one.chunk), True) if one.lost else one
                        for one in pending
                    )
                    continue
            yield pending[0].future.result()
            pending.popleft()
    except BaseException:
        # Interrupted or ended: a pool that shuts down in the middle of things can wait for its workers for ever.
        for worker in multiprocessing.active_children():
            worker.kill()
        raise
    finally:
        rescuers.shutdown(wait=False, cancel_futures=True)
        pool.shutdown(cancel_futures=True)


def _start(workers: int) -> ProcessPoolExecutor:
    # Fresh processes: forking would copy this one's memory, and its threads' locks in whatever state they are.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=end_with_parent)


def _submit(pool: ProcessPoolExecutor, function: Callable[[T], R], chunk: T) -> "Future[R]":
    with interrupts_blocked():
        try:
            return pool.submit(function, chunk)
        except BrokenProcessPool as error:  # a worker died a moment ago
            lost: Future[R] = Future()
            lost.set_exception(error)
            return lost


def _check_rescue(rescue: object, suspects: Iterable[object]) -> None:
    if rescue is None:
        raise PawlineError(
            f"a worker process died while it worked on one of: {', '.join(map(str, suspects))}; "
            "if memory ran out, free some and run again, otherwise a file in there crashes its decoder"
        )


def available_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Let worker processes start with Ctrl-C blocked: it is for the parent, which ends them, to answer it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this worker when its parent was killed: nobody else would."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
