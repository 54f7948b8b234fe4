"""A small project with three real runs of different parameters and data, each committed: made once, copied by tests.

Run as a command it makes one to play with: python -m tests.three_runs FOLDER
"""

import fcntl
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.test_pipeline import commit, copy_project, run, set_params

SMALL = {
    "data.synthetic_images": 80,
    "validate.min_images_per_class": 5,
    "image.size_px": 96,
    "features.views": 1,
    "train_head.epochs": 2,
    "fine_tune.epochs": 1,
    "fine_tune.unfrozen_layers": 20,
}
RUNS: dict[str, dict[str, Any]] = {
    "First run": SMALL,
    "Train the head more slowly": {"train_head.learning_rate": 0.0005},
    "Take more photos, and leave the last layers as they are": {
        "data.synthetic_images": 90,
        "fine_tune.unfrozen_layers": 0,
    },
}


def make_project(folder: Path) -> None:
    """Make the project and its three commits, the last one checked out and everything clean."""
    folder.mkdir(parents=True, exist_ok=True)
    copy_project(folder)
    for message, values in RUNS.items():
        set_params(folder, values)
        if not (folder / ".git").exists():
            commit(folder)
            run(["git", "config", "user.name", "tests"], folder)
            run(["git", "config", "user.email", "tests@example.com"], folder)
        run(["dvc", "repro", "--quiet"], folder)
        run(["git", "add", "--all"], folder)
        run(["git", "commit", "--quiet", "--message", message], folder)


@contextmanager
def made_once(folder: Path) -> Iterator[Path]:
    """Yield the project at `folder`, made by the first of the test processes that asks."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make_project(folder / "project")
            (folder / "made").touch()
    yield folder / "project"


if __name__ == "__main__":
    make_project(Path(sys.argv[1]))
