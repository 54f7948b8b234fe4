import re
import socket
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows import dvc_graph
from flows.stage import HOST_PATH, stage
from tests.flows.conftest import dvc

pytestmark = pytest.mark.usefixtures("prefect_url")


def run(name: str, folder: Path, **options: Any) -> State[Any]:  # noqa: ANN401 - as the flow takes them
    state: State[Any] = stage(name, folder=str(folder), run="the one", return_state=True, **options)
    return state


def marked(folder: Path) -> None:
    HOST_PATH.parent.mkdir(parents=True, exist_ok=True)
    (folder / HOST_PATH).write_text("the one")


def test_how_a_stage_ends(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dvc("repro", "--single-item", "source")
    marked(project)
    monkeypatch.chdir(tmp_path)  # where the worker is
    assert run("left", project).name == "Completed"
    assert (project / "left.txt").read_text().startswith("source")
    (project / "left.txt").unlink()
    assert run("left", project).name == "Restored"
    assert run("left", project, force=True).name == "Completed"
    for script, name, message in (
        ("import sys; sys.exit('error: no photos')", "Failed", "stage left failed: no photos"),
        ("import os; os.kill(os.getpid(), 9)", "TemporaryFailure", "stage left failed: killed by signal 9"),
        ("import sys; sys.exit(75)", "TemporaryFailure", "stage left failed: failed to run: "),
    ):
        (project / "tasks/left.py").write_text(script)
        state = run("left", project)
        assert (state.name, f"{state.message}".startswith(message)) == (name, True), state.message
    slow = run("left", project, timeout_seconds=0.2)
    assert slow.name == "Failed"
    with dvc_graph.hold_lock(project / dvc_graph.GUEST_LOCK_PATH):  # nobody holds it
        assert Path.cwd() == tmp_path


def test_another_folder_of_the_same_name_is_refused(project: Path) -> None:
    said = re.escape(f"{project} on {socket.gethostname()} is not the folder of the run that waits: every machine must")
    for mark in (None, "another"):
        if mark:
            marked(project)
            (project / HOST_PATH).write_text(mark)
        state = run("source", project)
        assert state.is_failed()
        assert re.match(said, f"{state.message}")
    assert not (project / "source.txt").exists()
