"""What is made once, by one of the test processes, and used by all."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder, made by the first of the test processes that asks, while the others wait.

    Args:
        folder: In what the processes have in common: the fixture `shared_folder`.
        make: Makes it; what a failed attempt left is removed before the next.
    """
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder
