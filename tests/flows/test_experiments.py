import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows import dvc_graph, experiments, presets
from tasks.stage import PawlineError
from tests.flows.conftest import PARAMS, QUIET_DVC, dvc, working_copy

STAGES = ["source", "left", "right", "join"]


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def finished_template(recorded_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(recorded_template, folder, symlinks=True)
    with chdir(folder):
        presets.write_settings({"train_head.dropout": 0.5})
        dvc("repro", "--single-item", "join")
    return folder


@pytest.fixture
def finished(finished_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project that has run with other settings than the committed ones."""
    with working_copy(finished_template, tmp_path, monkeypatch) as folder:
        yield folder


def test_the_workspace_is_kept_and_left_as_it_is(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lock, status = (finished / "dvc.lock").read_bytes(), git("status", "--short")
    capfd.readouterr()
    experiments.keep_workspace(STAGES, name="half-1")
    assert capfd.readouterr() == ("", "")
    assert (finished / "dvc.lock").read_bytes() == lock
    assert (git("status", "--short"), git("stash", "list")) == (status, "")
    assert git("symbolic-ref", "HEAD").startswith("refs/heads/")
    assert experiments.experiment_names() == {"half-1"}
    (kept,) = (row for row in json.loads(dvc("exp", "show", "--json"))[1]["experiments"])
    assert kept["name"] == "half-1"
    assert kept["revs"][0]["data"]["metrics"]["join/metrics.json"]["data"]["val_accuracy"] == 0.5
    base = git("rev-parse", "HEAD").strip()
    ref = f"refs/exps/{base[:2]}/{base[2:]}/half-1"  # DVC leaves refs/exps/exec/EXEC_HEAD, the base, beside it
    assert git("show", "--name-only", "--format=", ref).split() == [
        "dvc.lock",
        "params.yaml",
    ]  # and nothing of DVC's own
    assert git("show", f"{ref}:params.yaml") == (finished / "params.yaml").read_text()


def test_what_git_does_not_see_is_not_kept_as_another_run(finished: Path) -> None:
    before = [(finished / path).read_bytes() for path in experiments.STATE_PATHS]
    git("update-index", "--assume-unchanged", "params.yaml")
    with pytest.raises(PawlineError, match=r"^not kept as half-1: git leaves out changes of params\.yaml [^\n]*$"):
        experiments.keep_workspace(STAGES, name="half-1")
    assert [(finished / path).read_bytes() for path in experiments.STATE_PATHS] == before
    assert experiments.experiment_names() == set()
    assert git("stash", "list") == ""
    git("update-index", "--no-assume-unchanged", "params.yaml")
    experiments.keep_workspace(STAGES, name="half-1")
    assert experiments.find_kept() == "half-1"


def test_git_may_convert_the_ends_of_lines(finished: Path) -> None:
    git("config", "core.autocrlf", "input")
    text = (finished / "params.yaml").read_text()
    (finished / "params.yaml").write_text(text, newline="\r\n")
    experiments.keep_workspace(STAGES, name="half-1")
    assert experiments.find_kept() == "half-1"


def test_the_committed_settings_come_back(finished: Path) -> None:
    experiments.keep_workspace(STAGES, name="half-1")
    git("checkout", "params.yaml", "dvc.lock")
    with Repo() as repo:
        repo.checkout()
    assert (finished / "params.yaml").read_text() == PARAMS
    assert json.loads((finished / "join/metrics.json").read_text())["val_accuracy"] == 0.8
    assert git("status", "--short") == ""
    dvc("exp", "apply", "half-1")
    assert json.loads((finished / "join/metrics.json").read_text())["val_accuracy"] == 0.5
    assert dvc_graph.is_unchanged("join")


def test_the_same_again_is_found(finished: Path) -> None:
    assert experiments.find_kept() is None
    experiments.keep_workspace(STAGES, name="half-1")
    assert experiments.find_kept() == "half-1"
    presets.write_settings({"train_head.seed": 1})
    assert experiments.find_kept() is None


def test_names_are_counted_on(finished: Path) -> None:
    assert experiments.free_name("half") == "half-1"
    for name in ("half-1", "half-3"):
        experiments.keep_workspace(STAGES, name=name)
    assert experiments.free_name("half") == "half-2"
    assert experiments.free_prefix("half") == "half1"
    experiments.keep_workspace(STAGES, name="half1-7")
    assert experiments.free_prefix("half") == "half2"


def test_a_name_that_exists_is_refused_in_one_line(finished: Path) -> None:
    experiments.keep_workspace(STAGES, name="half-1")
    presets.write_settings({"train_head.seed": 1})
    with pytest.raises(PawlineError, match=r"^[^\n]*half-1[^\n]*$"):
        experiments.keep_workspace(STAGES, name="half-1")
    assert git("symbolic-ref", "HEAD").startswith("refs/heads/")


@pytest.mark.parametrize("name", ["a b", "-a", "a/b", "a..b", "a.lock", "a~1", ""])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(PawlineError, match="use letters, digits, - and _"):
        experiments.check_name(name)


def test_experiments_need_git_and_a_commit(project: Path) -> None:
    assert experiments.are_possible()
    shutil.rmtree(project / ".git")
    git("init", "--quiet")
    assert not experiments.are_possible()
    shutil.rmtree(project / ".git")
    (project / ".dvc/config").write_text(QUIET_DVC + "    no_scm = true\n")
    assert not experiments.are_possible()
