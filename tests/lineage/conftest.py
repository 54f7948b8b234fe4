"""A real run's lineage, for what only reads it."""

from pathlib import Path

import pytest

from lineage.records import Lineage
from lineage.runs import Project, find_run
from lineage.trace import trace


@pytest.fixture(scope="session")
def lineage(three_runs_made: Path) -> Lineage:
    """The last of three real runs; traced once and where it lies, because nothing here changes the project."""
    project = Project(three_runs_made / "project")
    return trace(project, find_run(project, "HEAD"))
