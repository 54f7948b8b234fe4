"""What a DVC that was killed has left half written, put right before the next run.

DVC writes dvc.lock and its list of who reads and writes what (rwlock) in place. Killed in the middle of that, it leaves
a file with which every later DVC command fails.

python -m flows.mending    (what `make repro` does first; `pawline run` and `pawline retrain` do it themselves)
"""

import json
import logging
import re
from pathlib import Path

from lineage.lockfile import parse_lock
from tasks.stage import PawlineError, whole_file

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")
STAGE = re.compile(rb"^  [^ \n]", re.MULTILINE)  # where a stage of dvc.lock begins
CONFLICT = b"<<<<<<<"  # by which git marks what a person has to decide

logger = logging.getLogger(__name__)


def mend(root: Path) -> None:
    """Take off what is left of the stage at which dvc.lock was cut, and remove an rwlock that was; all else stays.

    What is missing in dvc.lock, DVC finds in its run cache. Does nothing while a DVC command is at work.
    """
    if _is_whole_lock(root / LOCK) and _is_whole_rwlock(root / RWLOCK):
        return
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    with Repo(str(root)) as repo:
        try:
            with lock_repo(repo):  # by whoever writes these files
                _mend_lock(root / LOCK)
                if not _is_whole_rwlock(root / RWLOCK):
                    (root / RWLOCK).unlink()
        except LockError:
            return


def _mend_lock(path: Path) -> None:
    if _is_whole_lock(path):
        return
    content = path.read_bytes()
    starts = [match.start() for match in STAGE.finditer(content)]
    kept = content[: starts[-1]] if len(starts) > 1 else b""
    if CONFLICT in content or (kept and not _parses(kept)):
        return  # no kill did that: DVC says what is wrong with it
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


def _is_whole_rwlock(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    mend(Path.cwd())
