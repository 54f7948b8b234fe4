"""Whether a run replaces outputs of the workspace while an audit reads them: then they look tampered, and are not."""

import json
from pathlib import Path
from typing import NamedTuple

import psutil

from tasks.stage import PawlineError

RWLOCK, LOCK = Path(".dvc/tmp/rwlock"), Path("dvc.lock")


class Look(NamedTuple):
    """A look at the workspace: its dvc.lock, and the processes by which DVC writes outputs right now."""

    lock: bytes
    writers: frozenset[int]


def look(root: Path) -> Look:
    """Look at a project's workspace."""
    lock = root / LOCK
    return Look(lock.read_bytes() if lock.is_file() else b"", _writers(root / RWLOCK))


def check_at_rest(root: Path, before: Look) -> None:
    """Make sure that nothing has changed the workspace since a look at it.

    Raises:
        PawlineError: A run is at work in it, or was.
    """
    now = look(root)
    writers = sorted(before.writers | now.writers)
    if writers or now.lock != before.lock:
        who = f"process {', '.join(map(str, writers))}" if writers else "it has just ended"
        raise PawlineError(
            f"a run changes the workspace ({who}), and what it replaces cannot be verified: run this again when it has "
            "ended"
        )


def _writers(path: Path) -> frozenset[int]:
    """Return the processes that DVC's list of who reads and writes what names as writing, as far as they are alive."""
    try:
        writing = json.loads(path.read_bytes()).get("write", {}).values()
        return frozenset(int(writer["pid"]) for writer in writing if psutil.pid_exists(int(writer["pid"])))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return frozenset()
