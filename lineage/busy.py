"""Who is at work in a project. What a run replaces while an audit reads it looks tampered, and is not."""

import fcntl
import json
import math
from pathlib import Path
from typing import NamedTuple

import psutil

from tasks.stage import PawlineError

RWLOCK, LOCK, DVC_LOCK = Path(".dvc/tmp/rwlock"), Path("dvc.lock"), Path(".dvc/tmp/lock")
CLOCK_SECONDS = 60.0  # that a process's start and a file's time may be apart by: systems know the start roughly


class Look(NamedTuple):
    """A look at the workspace: its dvc.lock, and the processes by which DVC writes outputs right now."""

    lock: bytes
    writers: frozenset[int]


def look(root: Path) -> Look:
    """Look at a project's workspace."""
    lock = root / LOCK
    return Look(lock.read_bytes() if lock.is_file() else b"", frozenset(_writers(root / RWLOCK)))


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


def living(pid: int, since: float) -> str | None:
    """Return the command of a process that a file names; None if it has ended, or if its id is another's by now.

    Args:
        pid: As the file has it.
        since: When the file last changed: who started later is another.
    """
    try:
        process = psutil.Process(pid).as_dict(["cmdline", "create_time", "status"])
    except psutil.NoSuchProcess:
        return None
    if process["status"] == psutil.STATUS_ZOMBIE or process["create_time"] > since + CLOCK_SECONDS:
        return None
    words = [word for word in process["cmdline"] or ["a process"] if word != "-m"]
    program, *arguments = words[1:] if len(words) > 1 and Path(words[0]).name.startswith("python") else words
    return " ".join([Path(program).name, *arguments])


def dvc_at_work(root: Path) -> str | None:
    """Return the DVC command that changes a project right now, such as `dvc repro`; None if there is none.

    It holds DVC's lock, but while it runs the command of a stage; then the rwlock names it.
    """
    return _holder(root) or next(iter(_writers(root / RWLOCK).values()), None) or _holder(root)


def _holder(root: Path) -> str | None:
    try:
        with (root / DVC_LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = file.read().strip()
                return (living(int(pid), math.inf) if pid.isdigit() else None) or "a DVC command"
    except FileNotFoundError:
        pass
    return None


def _writers(path: Path) -> dict[int, str]:
    """Return the processes that DVC's list of who reads and writes what names as writing, and are alive: commands."""
    try:
        since, content = path.stat().st_mtime, json.loads(path.read_bytes())
        pids = [int(writer["pid"]) for writer in content.get("write", {}).values()]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    commands = {pid: living(pid, since) for pid in pids}
    return {pid: command for pid, command in commands.items() if command is not None}
