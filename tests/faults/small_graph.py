"""A real DVC project of four small stages, which takes a moment to run (that of tests/flows)."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.flows.conftest import GRAPH, METRICS, PARAMS, QUIET_DVC, READS, SCRIPT
from tests.plumbing import git_in

OUTPUTS = [*(f"{name}.txt" for name in READS), "join/metrics.json"]


def make_small_project(folder: Path) -> None:
    """Make the project, in which nothing has run yet, in git."""
    (folder / "tasks").mkdir(parents=True)
    git_in(folder, "init", "--quiet")
    for key in ("name", "email"):
        git_in(folder, "config", f"user.{key}", "tests@localhost")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
    (folder / ".dvc/config").write_text(QUIET_DVC)
    (folder / ".gitignore").write_text("/.prefect/\n/*.txt\n/join/\n/reports/\n__pycache__/\n")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "tasks/__init__.py").touch()
    for name, reads in READS.items():
        script = SCRIPT.format(name=name, reads=reads) + (METRICS if name == "join" else "")
        (folder / f"tasks/{name}.py").write_text(script)
    git_in(folder, "add", ".")
    git_in(folder, "commit", "--quiet", "--message", "A project")


def environment() -> dict[str, str]:
    """Return an environment with this Python's programs first, and what is tested behind the project's own code."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}


def contents(folder: Path) -> dict[str, bytes]:
    """Return the outputs of all stages."""
    return {name: (folder / name).read_bytes() for name in OUTPUTS if (folder / name).exists()}
