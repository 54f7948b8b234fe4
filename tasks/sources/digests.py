"""What was found out about a file's content, remembered for as long as the file is unchanged.

It lives in the user's cache folder (`XDG_CACHE_HOME`); losing it costs only time.
"""

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import platformdirs

from tasks.stage import whole_file

log = logging.getLogger(__name__)
RULES_VERSION = 1  # of the checks whose outcome is remembered
SETTLED_NS = 2 * 10**9  # file systems' clocks tick every 2 s (FAT) or less: a younger change may go unseen


class Remembered:
    """Facts about the files of one source, by name; use as a context manager, which saves them, even half of them.

    A fact holds while size, modification time, inode and change time stay as they were. Facts that were not asked for
    or learned are dropped, so that it does not grow.
    """

    def __init__(self, source: Path) -> None:
        key = hashlib.sha256(os.fsencode(source.absolute())).hexdigest()[:32]
        self._path = platformdirs.user_cache_path("pawline") / "digests" / f"{key}.v{RULES_VERSION}.json"
        self._old = _load(self._path)
        self._facts: dict[str, list[Any]] = {}
        self._changed = False
        self._started_ns = time.time_ns()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._changed and len(self._facts) == len(self._old):
            return
        try:
            with whole_file(self._path) as out:
                out.write_text(json.dumps(self._facts), encoding="utf-8")
        except OSError as problem:
            log.info("not remembered for the next run: %s", problem)

    def recall(self, name: str, status: os.stat_result) -> Any:  # noqa: ANN401 - what was learned: any JSON value
        """Return what was learned about an unchanged file, else None."""
        fact = self._old.get(name)
        if fact is None or fact[:-1] != _identity(status):
            return None
        self._facts[name] = fact
        return fact[-1]

    def learn(self, name: str, status: os.stat_result, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Keep a fact, unless the file changed so recently that another change could look the same."""
        if status.st_ctime_ns < self._started_ns - SETTLED_NS:
            self._facts[name] = [*_identity(status), value]
            self._changed = True


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: it is only a cache
        return {}
    return facts if isinstance(facts, dict) else {}
