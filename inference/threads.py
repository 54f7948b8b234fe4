"""Map a function over work in threads: results in order, a bounded amount under way."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 8  # pieces of work for each thread that are under way
SECONDS_TO_END = 2.0


def map_threads(function: Callable[[T], R], work: Iterable[T], *, workers: int) -> Generator[R, None, None]:
    """Yield `function(piece)` for each piece of work, in order.

    Unlike with an executor's threads, the process can end while one of these waits for the network: whoever stops
    early, by Ctrl-C or by closing this iterator, waits for `SECONDS_TO_END` at most.

    Raises:
        Exception: Whatever `function` raises.
    """
    queue: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()
    threads = [Thread(target=_serve, args=(function, queue), daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    pending: deque[Future[R]] = deque()
    try:
        for piece in work:
            future: Future[R] = Future()
            pending.append(future)
            queue.put((future, piece))
            while len(pending) > AHEAD * workers or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for _ in threads:
            queue.put(None)
        for thread in threads:
            thread.join(SECONDS_TO_END)


def _serve(function: Callable[[T], R], queue: "SimpleQueue[tuple[Future[R], T] | None]") -> None:
    while (job := queue.get()) is not None:
        future, piece = job
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function(piece))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)
