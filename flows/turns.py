"""Retraining runs take turns: one is at work, at most one waits, and the rest has nothing to add.

By file locks, which the system releases when a process ends in whatever way. Prefect's own concurrency limits lose
their leases when the server restarts, and keep the slot.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from flows.dvc_graph import hold_lock

WORK_LOCK = Path(".dvc/tmp/pawline-retrain.lock")  # beside DVC's own locks, ignored by git
QUEUE_LOCK = Path(".dvc/tmp/pawline-retrain-next.lock")
Overlap = Literal["wait", "skip"]


@contextmanager
def taken(root: Path, overlap: Overlap, check: Callable[[], None] = lambda: None) -> Iterator[str | None]:
    """Take the turn to retrain a project, and keep it until the block ends.

    Args:
        root: The project's folder.
        overlap: What to do while another run is at work: `wait` for it, unless one waits already, or `skip`.
        check: Is called while it waits, and may raise to end that.

    Yields:
        None, or why this run has no turn and should end.
    """
    with ExitStack() as stack:
        if _try(stack, root / WORK_LOCK):
            yield None
            return
        if overlap == "skip":
            yield "another retraining is at work"
            return
        with ExitStack() as queue:
            if not _try(queue, root / QUEUE_LOCK):
                yield "another retraining is at work, and one that waits will see what is new"
                return
            stack.enter_context(hold_lock(root / WORK_LOCK, check))
        yield None


@contextmanager
def no_retraining(root: Path) -> Iterator[None]:
    """Wait until no retraining is at work in a project, and keep the next ones waiting until the block ends."""
    with hold_lock(root / WORK_LOCK):
        yield


def _try(stack: ExitStack, path: Path) -> bool:
    """Lock a file until the stack is closed, if nobody has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        file = opened.enter_context(path.open("w"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        stack.push(opened.pop_all())
    return True
