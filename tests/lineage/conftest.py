"""A real run's lineage, for what only reads it, and runs of which two are versions."""

import shutil
from pathlib import Path

import pytest

from lineage.records import Lineage
from lineage.runs import Project, find_run
from lineage.trace import trace
from registry.champion import promote
from registry.register import register


@pytest.fixture(scope="session")
def lineage(three_runs_made: Path) -> Lineage:
    """The last of three real runs; traced once and where it lies, because nothing here changes the project."""
    project = Project(three_runs_made / "project")
    return trace(project, find_run(project, "HEAD"))


@pytest.fixture(scope="session")
def registered_made(three_runs_made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three runs, the last two registered and the last the champion: `project`; in `.config` the key."""
    folder = tmp_path_factory.mktemp("registered")
    shutil.copytree(three_runs_made / "project", folder / "project", symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
        for revision in ("HEAD~1", "HEAD"):
            project = Project(folder / "project")
            register(project, find_run(project, revision), reason="a test")
        project = Project(folder / "project")
        promote(project, find_run(project, "v2"), reason="")
    return folder


@pytest.fixture
def registered(registered_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that as the current folder."""
    shutil.copytree(registered_made, tmp_path / "registered", symlinks=True)
    monkeypatch.chdir(tmp_path / "registered/project")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "registered/.config"))
    return tmp_path / "registered/project"
