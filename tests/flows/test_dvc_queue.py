import subprocess
from pathlib import Path

import pytest

from flows import dvc_queue, experiments
from flows.dvc_queue import Count
from tasks.stage import PawlineError
from tests.flows.conftest import PARAMS, dvc, processes_in

PASSES, FAILS, HANGS = "train_head.dropout=0.1", "train_head.dropout=0.7", "train_head.dropout=0.8"


def temporary_workspaces(project: Path) -> list[Path]:
    return list((project / ".dvc/tmp/exps").glob("tmp*"))


def git_status() -> str:
    return subprocess.run(["git", "status", "--short"], check=True, capture_output=True, text=True).stdout


def logs(project: Path) -> str:
    return "".join(path.read_text() for path in (project / ".dvc/tmp/exps/run").glob("*/*.out"))


def test_experiments_run_beside_the_workspace(recorded: Path) -> None:
    with (recorded / "tasks/join.py").open("a") as script:
        script.write("print('links', Path('left.txt').stat().st_nlink)\n")
    status, counts = git_status(), list[Count]()
    overrides = {"a-1": [PASSES], "a-2": [FAILS], "a-3": [PASSES, "train_head.epochs=3"]}
    failures = dvc_queue.run_experiments(overrides, ["join"], jobs=2, show=counts.append)
    assert failures == {"a-2": "nothing is left to train"}
    assert experiments.experiment_names() == {"a-1", "a-3"}
    assert counts[-1] == Count(done=2, failed=1, running=0)
    assert max(count.running for count in counts) == 2
    assert logs(recorded).count("Running stage 'join'") == 3
    assert logs(recorded).count("Running stage") == 3  # not even the stage that always runs
    assert (git_status(), (recorded / "params.yaml").read_text()) == (status, PARAMS)
    assert temporary_workspaces(recorded) == []
    assert processes_in(recorded) == []
    assert "links 2" in logs(recorded)  # of the cache's file, not a copy
    assert (recorded / "left.txt").stat().st_nlink == 1
    assert (recorded / "left.txt").stat().st_mode & 0o200


def test_an_interrupt_ends_the_workers_and_empties_the_queue(recorded: Path) -> None:
    status = git_status()

    def interrupt(_: Count) -> None:
        if "> python -m tasks.join" in logs(recorded):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dvc_queue.run_experiments({"a-1": [HANGS], "a-2": [PASSES]}, ["join"], jobs=1, show=interrupt)
    assert processes_in(recorded) == []
    assert temporary_workspaces(recorded) == []
    assert "a-" not in dvc("queue", "status")
    assert experiments.experiment_names() == set()
    assert git_status() == status
    dvc("repro", "--single-item", "--force", "join")  # DVC is not locked


def test_workers_that_will_not_end_are_killed(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc_queue, "GRACE_SECONDS", 0.5)
    script = recorded / "tasks/join.py"
    script.write_text("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + script.read_text())

    def interrupt(_: Count) -> None:
        if "> python -m tasks.join" in logs(recorded):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dvc_queue.run_experiments({"a-1": [HANGS]}, ["join"], jobs=1, show=interrupt)
    assert processes_in(recorded) == []
    assert temporary_workspaces(recorded) == []
    assert "a-" not in dvc("queue", "status")


def test_other_experiments_in_the_queue_are_not_run(recorded: Path) -> None:
    dvc("exp", "run", "--queue", "--name", "theirs", "--set-param", PASSES)
    with pytest.raises(PawlineError, match=r"^DVC's queue is not empty \(theirs\): finish it with `dvc queue start`"):
        dvc_queue.run_experiments({"a-1": [PASSES]}, ["join"], jobs=1, show=lambda _: None)
    assert "theirs" in dvc("queue", "status")
