"""A small project with three real runs of different parameters and data, each committed: made once, copied by tests.

Run as a command it makes one to play with: python -m tests.three_runs FOLDER (in FOLDER/project)
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.test_pipeline import commit, copy_project, run, set_params, stages_run

SMALL = {
    "data.synthetic_images": 80,
    "validate.min_images_per_class": 5,
    "image.size_px": 96,
    "features.views": 1,
    "train_head.epochs": 2,
    "fine_tune.epochs": 1,
    "fine_tune.unfrozen_layers": 20,
    "export.formats": ["keras", "openvino"],
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
    """Make `project`, its three commits, the last one checked out and everything clean; `ran.json` has what ran."""
    project = folder / "project"
    project.mkdir(parents=True)
    copy_project(project)
    ran = []
    for message, values in RUNS.items():
        set_params(project, values)
        if not (project / ".git").exists():
            commit(project)
            run(["git", "config", "user.name", "tests"], project)
            run(["git", "config", "user.email", "tests@example.com"], project)
        ran.append(stages_run(project))
        run(["git", "add", "--all"], project)
        run(["git", "commit", "--quiet", "--message", message], project)
    (folder / "ran.json").write_text(json.dumps(ran))


if __name__ == "__main__":
    make_project(Path(sys.argv[1]))
