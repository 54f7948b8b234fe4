"""What a DVC that was killed has left half written, put right before the next run.

DVC writes dvc.lock and its list of who reads and writes what (rwlock) in place. Killed in the middle of that, it leaves
a file with which every later DVC command fails. Killed later, it stays on that list: DVC takes it for alive as soon as
another process has its number, which is soon after a restart, and waits for that one.

python -m flows.mending    (what `make repro` does first; `pawline run` and `pawline retrain` do it themselves)
"""

import json
import logging
import re
from pathlib import Path

import psutil

from lineage.busy import living
from lineage.lockfile import parse_lock
from tasks.stage import PawlineError, whole_file

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")
STAGE = re.compile(rb"^  [^ \n]", re.MULTILINE)  # where a stage of dvc.lock begins
CONFLICT = b"<<<<<<<"  # by which git marks what a person has to decide
BEGINNING = b"schema: '2.0'\nstages:\n"  # of every dvc.lock

logger = logging.getLogger(__name__)


def mend(root: Path) -> None:
    """Take off what is left of the stage at which dvc.lock was cut, and who is dead from the rwlock; all else stays.

    What is missing in dvc.lock, DVC finds in its run cache. Does nothing while a DVC command is at work.
    """
    if _is_whole_lock(root / LOCK) and not _names_others(root / RWLOCK):
        return
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    with Repo(str(root)) as repo:
        try:
            with lock_repo(repo):  # by whoever writes these files
                _mend_lock(root / LOCK)
                if _names_others(root / RWLOCK):
                    _mend_rwlock(root / RWLOCK)
        except LockError:
            return


def _mend_lock(path: Path) -> None:
    if _is_whole_lock(path):
        return
    content = path.read_bytes()
    if not content.startswith(BEGINNING) and not BEGINNING.startswith(content):
        return  # no kill did that: DVC says that it cannot read it
    starts = [match.start() for match in STAGE.finditer(content)]
    kept = content[: starts[-1]] if len(starts) > 1 else b""
    if CONFLICT in content or (kept and not _parses(kept)):
        return  # nor that
    if kept:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(kept)
    else:
        path.unlink()
    logger.warning("dvc.lock was cut off when DVC was killed: DVC looks up in its run cache what it lost, or runs it")


def _is_whole_lock(path: Path) -> bool:
    """Say whether a dvc.lock is not there, or ends as DVC ends it and can be read."""
    content = path.read_bytes() if path.is_file() else None
    return content is None or (content.endswith(b"\n") and _parses(content))


def _parses(content: bytes) -> bool:
    try:
        parse_lock(content)
    except PawlineError:
        return False
    return True


def _names_others(path: Path) -> bool:
    """Say whether an rwlock cannot be read, or has a process that was killed and whose number is another's by now."""
    try:
        since, users = path.stat().st_mtime, _users(path)
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError, AttributeError):
        return True
    return any(psutil.pid_exists(pid) and living(pid, since) is None for pid in users)


def _users(path: Path) -> list[int]:
    """Return the processes that read or write something, as an rwlock has it."""
    content = json.loads(path.read_bytes())
    readers = [info for each in content.get("read", {}).values() for info in each]
    return [int(info["pid"]) for info in (*content.get("write", {}).values(), *readers)]


def _mend_rwlock(path: Path) -> None:
    """Keep those in an rwlock that are alive; one that was cut off names nobody for certain."""
    since = path.stat().st_mtime
    try:
        alive = {pid for pid in _users(path) if living(pid, since) is not None}
    except (ValueError, KeyError, TypeError, AttributeError):
        path.unlink()
        return
    content = json.loads(path.read_bytes())
    write = {name: info for name, info in content.get("write", {}).items() if int(info["pid"]) in alive}
    readers = {
        name: [info for info in each if int(info["pid"]) in alive] for name, each in content.get("read", {}).items()
    }
    read = {name: each for name, each in readers.items() if each}
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps({"read": read, "write": write}))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    mend(Path.cwd())
