"""A small finished project whose stages run alone, in a moment, and die at any (tests/faults/stage_children.py)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conftest import ROOT
from tests.faults.stage_children import Death, Ended
from tests.test_pipeline import STAGES, files_of, outputs, run

# What stages import for seconds, in the order in which it is least work.
LIBRARIES = ("tasks.quiet_tf", "openvino", "tensorflow_datasets", "great_expectations")
LIVES = Death()


class Stages:
    """Runs the stages of a project in children of one process; a context manager."""

    def __init__(self, folder: Path, *libraries: str) -> None:
        """Start the process, in which some libraries are imported ahead."""
        self.folder, self._said = folder, folder.with_name(f"{folder.name}.said")
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",  # the project's own code first
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.stage_children", *libraries],
            cwd=folder.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # nothing more is asked for, and so it ends

    @property
    def said(self) -> str:
        """What the last stage printed."""
        return self._said.read_text(encoding="utf-8")

    def run(self, stage: str, death: Death = LIVES) -> Ended:
        """Run a stage, to its end or its death."""
        request = {"stage": stage, "folder": str(self.folder), "said": str(self._said), "death": death._asdict()}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        ended = Ended(**json.loads(self._process.stdout.readline()))
        assert ended.code == 0 or death != LIVES, self.said
        return ended


def copy_finished(three_runs_made: Path, folder: Path) -> None:
    """Copy the first of the three runs (tests/three_runs.py): everything but DVC's records, so that nothing is reused.

    A stage would take over what DVC's cache has of the run before.
    """
    project = folder / "finished"
    shutil.copytree(three_runs_made / "project", project, symlinks=True)
    run(["git", "reset", "--quiet", "--hard", "HEAD~2"], project)
    run(["dvc", "checkout", "--quiet"], project)
    shutil.copytree(
        project, folder / "project", ignore=shutil.ignore_patterns(".git", ".dvc", "dvc.lock", "__pycache__")
    )
    shutil.rmtree(project)


def outputs_of(folder: Path, stage: str) -> dict[str, bytes]:
    """Return the bytes of a stage's outputs."""
    found: dict[str, bytes] = {}
    for out in outputs(STAGES[stage]):
        path = folder / out
        if path.is_dir():
            found |= {f"{out}/{name}": content for name, content in files_of(path).items()}
        elif path.exists():
            found[out] = path.read_bytes()
    return found


def remove_outputs(folder: Path, stage: str, *, persistent: bool) -> None:
    """Remove a stage's outputs, as DVC does before it runs the stage: those that persist stay."""
    outs = [*STAGES[stage].get("outs", []), *STAGES[stage].get("metrics", [])]
    for out in outs:
        name = next(iter(out)) if isinstance(out, dict) else out
        if persistent or not isinstance(out, dict):
            remove(folder / name)


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def listing(folder: Path) -> set[str]:
    """Return the paths of everything in a folder; of folders, too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}
