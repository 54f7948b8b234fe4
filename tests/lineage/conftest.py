"""A real run's lineage, for what only reads it."""

import os

import pytest

from lineage.records import Lineage
from lineage.runs import Project, find_run
from lineage.trace import trace
from tests.three_runs import made_once


@pytest.fixture(scope="session")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    """The last of three real runs; traced once and where it lies, because nothing here changes the project."""
    base = tmp_path_factory.getbasetemp()
    with made_once((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "three_runs") as folder:
        project = Project(folder)
        return trace(project, find_run(project, "HEAD"))
