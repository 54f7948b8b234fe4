"""A rebuild's folder goes with it, or with the next one if it was killed."""

import os
import subprocess
import sys
from pathlib import Path

from lineage import rebuild
from lineage.runs import WORKSPACE, Project, find_run
from tests.plumbing import git

KILLED = """\
import os
from pathlib import Path
from lineage import rebuild
from lineage.runs import Project, find_run

project = Project(Path.cwd())
run = find_run(project, "HEAD")
with rebuild.fresh_copy(project, run, project.lock(run)):
    os._exit(9)
"""


def leave_behind() -> None:
    """Be killed in the middle of a rebuild of the project in the current folder."""
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", KILLED], env=os.environ | env).returncode == 9


def test_what_a_killed_rebuild_left_goes_and_one_at_work_stays(one_run: Path) -> None:
    project = Project(one_run)
    run = find_run(project, "HEAD")
    leave_behind()
    [dead] = one_run.parent.glob(".one-rebuild-*")
    assert (dead / "dvc.yaml").exists()
    with rebuild.fresh_copy(project, run, project.lock(run)) as folder:
        rebuild.remove_dead(one_run)
        assert list(one_run.parent.glob(".one-rebuild-*")) == [folder]
        assert (folder / "dvc.yaml").exists()
    assert list(one_run.parent.glob(".one-rebuild-*")) == []


def test_a_file_of_the_workspace_is_copied_whatever_its_name(one_run: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    Path(name).write_text("latin")
    git("add", name)
    project = Project(one_run)
    with rebuild.fresh_copy(project, WORKSPACE, project.lock(WORKSPACE)) as folder:
        assert (folder / name).read_text() == "latin"
