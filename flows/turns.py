"""Retraining runs take turns: one is at work, at most one waits, and the rest has nothing to add.

By file locks, which the system releases when a process ends in whatever way. Prefect's own concurrency limits lose
their leases when the server restarts, and keep the slot.
"""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from flows.dvc_graph import hold_lock

WORK_LOCK = Path(".dvc/tmp/pawline-retrain.lock")  # beside DVC's own locks, ignored by git
QUEUE_LOCK = Path(".dvc/tmp/pawline-retrain-next.lock")
Overlap = Literal["wait", "skip"]

logger = logging.getLogger(__name__)


@contextmanager
def taken(root: Path, overlap: Overlap) -> Iterator[str | None]:
    """Take the turn to retrain a project, and keep it until the block ends.

    Args:
        root: The project's folder.
        overlap: What to do while another run is at work: `wait` for it, unless one waits already, or `skip`.

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
            logger.info("another retraining is at work: waiting for it to end")
            _lock(stack, root / WORK_LOCK, fcntl.LOCK_EX)
        yield None


@contextmanager
def no_retraining(root: Path) -> Iterator[None]:
    """Wait until no retraining is at work in a project, and keep the next ones waiting until the block ends."""
    with hold_lock(root / WORK_LOCK):
        yield


def _try(stack: ExitStack, path: Path) -> bool:
    """Lock a file until the stack is closed, if nobody has it."""
    try:
        _lock(stack, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(stack: ExitStack, path: Path, operation: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        file = opened.enter_context(path.open("w"))
        fcntl.flock(file, operation)
        stack.push(opened.pop_all())
