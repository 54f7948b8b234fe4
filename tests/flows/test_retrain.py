import logging
import os
import threading
import time
from pathlib import Path

import pytest

from flows import dvc_graph, retrain, turns, worktree
from lineage import git
from lineage.runs import WORKSPACE, Project, experiments
from registry import decisions, ledger
from tasks.stage import PawlineError
from tests.flows.conftest import FAILS, PARAMS, dvc
from tests.flows.test_turns import at_work_in, end

FORGOTTEN = "d63e79" + "0" * 58
NOT_KEPT_OUT = r"^forgotten, and not kept out .*: d63e790000; `git commit params\.yaml`$"


def commit(folder: Path, message: str) -> str:
    git.git(folder, "commit", "--quiet", "--all", "--message", message)
    return git.find_commit(folder, "HEAD") or ""


@pytest.fixture(autouse=True)
def own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_nothing_is_trained_before_it_is_known_who_decides(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retrain.check_ready(Project(recorded))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    git.git(recorded, "config", "--unset", "user.name")
    with pytest.raises(PawlineError, match=r"^git does not know who decides: `git config user\.name NAME`"):
        retrain.check_ready(Project(recorded))


def test_the_champion_is_the_one_decided_on_before_anything_is_trained(recorded: Path) -> None:
    project = Project(recorded)
    head = git.find_commit(recorded, "HEAD")
    for plan in (
        decisions.Plan("register", "v1.0.0", head, "classifier@v1.0.0", ""),
        decisions.Plan("promote", "v1.0.0", head, "classifier#champion#1", ""),
    ):
        with decisions.deciding(project):
            book = ledger.load(recorded)
            decisions.decide(book, plan, decisions.load_key(book))
    tags = git.tags(recorded, "*")
    git.git(recorded, "tag", "--delete", *tags)  # as in a clone of what was pushed without them
    retrain.check_ready(project)
    assert git.tags(recorded, "*") == tags
    git.git(recorded, "tag", "classifier#champion#2")
    with pytest.raises(PawlineError, match=r"^the tag classifier#champion#2: no decision known here made it"):
        retrain.check_ready(project)


def forget(folder: Path) -> None:
    with decisions.deciding(Project(folder)):
        book = ledger.load(folder)
        plan = decisions.Plan("forget", None, None, None, "asked for", details={"ids": [FORGOTTEN]})
        decisions.decide(book, plan, decisions.load_key(book))


def test_a_forgotten_photo_is_not_taken_again(recorded: Path) -> None:
    forget(recorded)
    (recorded / "params.yaml").write_text(PARAMS.replace("forget: []", f"forget: [{FORGOTTEN}]"))
    with pytest.raises(PawlineError, match=NOT_KEPT_OUT):
        retrain.check_ready(Project(recorded))
    commit(recorded, "Keep it out")
    retrain.check_ready(Project(recorded))


@pytest.mark.usefixtures("prefect_url")
def test_a_photo_forgotten_while_it_waited_is_not_taken_either(recorded: Path) -> None:
    at_work = at_work_in(recorded)

    def forget_and_end() -> None:
        try:
            while not (recorded / turns.QUEUE_LOCK).exists():
                time.sleep(0.1)
            forget(recorded)
        finally:
            end(at_work)

    meanwhile = threading.Thread(target=forget_and_end, daemon=True)
    meanwhile.start()
    with pytest.raises(PawlineError, match=NOT_KEPT_OUT):
        retrain.retrain()
    meanwhile.join(10)
    assert experiments(Project(recorded)) == []


def test_a_changed_file_may_have_any_name(one_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path(os.fsdecode(b"caf\xe9")).touch()
    git.git(one_run, "add", "--all")
    retrain.check_ready(Project(one_run))
    assert "changed since, and left out: caf\\xe9" in caplog.text


def test_what_is_not_committed_is_left_out_and_named(recorded: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "flows.retrain")
    retrain.check_ready(Project(recorded))
    caplog.clear()  # of the key that it made
    retrain.check_ready(Project(recorded))
    assert caplog.messages == []
    (recorded / "params.yaml").write_text(PARAMS.replace("views: 3", "views: 4"))
    dvc("repro")
    retrain.check_ready(Project(recorded))
    # As often as handlers heard it.
    assert set(caplog.messages) == {"retraining takes what is committed; changed since, and left out: params.yaml"}


def test_news_are_changed_inputs_and_not_outputs_that_the_cache_has_lost(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(recorded)
    lock = (recorded / "dvc.lock").read_bytes()
    lost = project.lock(WORKSPACE)["left"].outs[0]
    project.store.object_path(lost.md5).unlink()
    (recorded / "params.yaml").write_text(PARAMS.replace("views: 3", "views: 4"))
    changed = commit(recorded, "Show more views")
    with worktree.opened(project, f"{changed}~1", lock) as folder:
        monkeypatch.chdir(folder)
        assert not (folder / "left.txt").exists()
        assert retrain.find_news(folder) == []
        monkeypatch.chdir(recorded)
    with worktree.opened(project, changed, lock) as folder:
        monkeypatch.chdir(folder)
        assert {(reason.kind, reason.about) for reason in retrain.find_news(folder)} == {
            ("parameter", "features.views")
        }
        monkeypatch.chdir(recorded)


@pytest.mark.usefixtures("prefect_url")
def test_a_run_that_fails_changes_no_champion_and_the_next_one_carries_on(recorded: Path) -> None:
    (recorded / "tasks/left.py").write_text(FAILS)
    commit(recorded, "Break a stage")
    with pytest.raises(PawlineError, match=r"^stage left failed: no photos in x: set data\.path$"):
        retrain.retrain()
    assert git.tags(recorded, "*") == []
    assert git.find_commit(recorded, retrain.LAST_RUN) is None, "so the next one tries again"
    left = recorded.parent / ".project-retrain"
    assert (left / "right.txt").exists(), "what was done is there for the next one"
    assert Path.cwd() == recorded
    worktree.remove(recorded, left)


@pytest.mark.usefixtures("prefect_url")
def test_what_is_committed_stands_before_the_gate_once_if_there_is_no_champion(recorded: Path) -> None:
    with pytest.raises(PawlineError, match=r"is missing: the challenger's run is not finished"):  # no classifier here
        retrain.retrain()
    (run,) = experiments(Project(recorded))
    assert git.git(recorded, "log", "-1", "--format=%s", run.commit or "") == b"Retrain: there is no champion yet\n"
    git.point(recorded, retrain.LAST_RUN, run.commit or "")  # as if it had been refused
    assert retrain.retrain(return_state=True).name == "Unchanged"


def test_the_stages_that_look_outside_are_asked_first(recorded: Path) -> None:
    assert dvc_graph.always_run() == ["source"]
