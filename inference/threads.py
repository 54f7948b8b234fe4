"""Map a function over work in threads: results in order, a bounded amount under way."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import Empty, Queue, SimpleQueue
from threading import Event, Thread
from typing import TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Jobs: TypeAlias = "SimpleQueue[tuple[Future[R], T] | None]"  # None: there are no more
AHEAD = 8  # pieces of work for each thread that are under way
SECONDS_TO_END = 2.0


def map_threads(function: Callable[[T], R], work: Iterable[T], *, workers: int) -> Generator[R, None, None]:
    """Yield `function(piece)` for each piece of work, in order, and as soon as it is there.

    The work is taken in a thread, too, so that nothing waits for work that comes slowly. Unlike with an executor's
    threads, the process can end while one of these waits for input or the network: whoever stops early, by Ctrl-C or by
    closing this iterator, waits for `SECONDS_TO_END` at most.

    Raises:
        Exception: Whatever `function` or taking the work raises.
    """
    jobs: Jobs[R, T] = SimpleQueue()
    pending: Queue[Future[R] | None] = Queue(AHEAD * workers)
    stopped = Event()
    threads = [Thread(target=_serve, args=(function, jobs), daemon=True) for _ in range(workers)]
    for thread in (Thread(target=_feed, args=(work, jobs, pending, stopped), daemon=True), *threads):
        thread.start()
    try:
        while (future := pending.get()) is not None:
            yield future.result()
    finally:
        stopped.set()
        _cancel(pending)
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join(SECONDS_TO_END)


def _feed(work: Iterable[T], jobs: "Jobs[R, T]", pending: "Queue[Future[R] | None]", stopped: Event) -> None:
    future: Future[R]
    try:
        for piece in work:
            if stopped.is_set():
                return
            future = Future()
            jobs.put((future, piece))
            pending.put(future)  # waits while as many are under way as may be
    except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
        future = Future()
        future.set_exception(error)
        pending.put(future)
    pending.put(None)


def _cancel(pending: "Queue[Future[R] | None]") -> None:
    try:
        while True:
            if future := pending.get_nowait():
                future.cancel()
    except Empty:
        return


def _serve(function: Callable[[T], R], jobs: "Jobs[R, T]") -> None:
    while (job := jobs.get()) is not None:
        future, piece = job
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function(piece))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)
