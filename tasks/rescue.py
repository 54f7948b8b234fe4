"""A chunk of work that ended its process, done again in parts, so that only the part that does it is lost.

The parts are done one after the other in a fresh process. One over which that process ends is done once more, first
and alone in a process of its own: what becomes of it does not depend on what was done before it. If that process ends
too, the part is given up.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, TypeVar

from tasks.limits import TIME_IS_UP
from tasks.parallel import end_with_parent, interrupts_blocked
from tasks.stage import PawlineError

T = TypeVar("T")
R = TypeVar("R")

MEMORY_GONE = 77  # our own exit code: the part raised MemoryError
NOT_ITS_DOING = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # somebody's, or the system's


class Kind(Enum):
    """How a process ended over a part."""

    CRASH = auto()
    TIME = auto()
    MEMORY = auto()


class Death(NamedTuple):
    """How a process ended over a part, and in words."""

    kind: Kind
    how: str


@dataclass(frozen=True)
class Rescue(Generic[T, R]):
    """How a chunk is done in parts.

    Attributes:
        split: Returns a chunk's parts, in order; each is named by its `str`.
        function: Does a part in the process that does them all.
        alone: Does a part in a process of its own.
        give_up: Returns what comes of a part that ends its process, or raises.
        join: Puts the parts' results together.
    """

    split: Callable[[T], Sequence[T]]
    function: Callable[[T], R]
    alone: Callable[[T], R]
    give_up: Callable[[T, Death], R]
    join: Callable[[Sequence[R]], R]

    def __call__(self, chunk: T) -> R:
        """Do a chunk.

        Raises:
            PawlineError: A process could not start, or something else than its work ended it.
            Exception: Whatever the functions raise.
        """
        left, results = list(self.split(chunk)), []
        while left:
            done, _ = _run(self.function, left)
            results += done
            left = left[len(done) :]
            if left:
                results.append(self._do_alone(left.pop(0)))
        return self.join(results)

    def _do_alone(self, part: T) -> R:
        done, death = _run(self.alone, [part])
        return done[0] if death is None else self.give_up(part, death)


def _run(function: Callable[[T], R], parts: Sequence[T]) -> tuple[list[R], Death | None]:
    """Do parts in a fresh process until they are done, or it ends over one; return the results, and how it ended."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, function, parts), daemon=True)
    with interrupts_blocked():
        process.start()
    sender.close()
    answers: list[Any] = []
    with receiver:
        try:
            while True:
                answers.append(receiver.recv())
        except EOFError:
            process.join()
    if answers and isinstance(answers[-1], Exception):
        raise answers[-1]
    done = answers[1:]
    if len(done) == len(parts):
        return done, None
    return done, _death(parts[len(done)], process.exitcode or 0, started=bool(answers))


def _work(sender: "Connection[Any, Any]", function: Callable[[T], R], parts: Sequence[T]) -> None:
    """Send a word when ready, and each result; runs in the fresh process."""
    end_with_parent()
    sender.send("ready")
    for part in parts:
        try:
            sender.send(function(part))
        except MemoryError:
            os._exit(MEMORY_GONE)
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
            sender.send(error)
            return


def _death(part: object, code: int, *, started: bool) -> Death:
    signal_ = signal.Signals(-code) if code < 0 else None
    how = signal_.name if signal_ else f"exit code {code}"
    if not started or signal_ in NOT_ITS_DOING:
        raise PawlineError(
            f"a process of its own for {part} ended with {how}, which is none of its doing: if memory ran out, free "
            "some; then run again"
        )
    if code == MEMORY_GONE:
        return Death(Kind.MEMORY, "it takes more memory than it may")
    return Death(Kind.TIME, "it takes longer than it may") if signal_ == TIME_IS_UP else Death(Kind.CRASH, how)
