"""The commands about versions, as a user types them."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows.commands import compare, models
from lineage.runs import Project, find_run
from registry.decisions import Plan, decide, deciding, load_key
from registry.ledger import load
from registry.signing import KEY_VARIABLE
from tasks.stage import PawlineError
from tests.registry.test_branch import git

app = typer.Typer()
app.command("models")(models.models_command)
app.command("register")(models.register_command)
app.command("promote")(models.promote_command)
app.command("rollback")(models.rollback_command)
app.command("compare")(compare.compare_command)


@pytest.fixture
def folder(three_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return three_runs


def pawline(*arguments: str) -> list[str]:
    """Run a command and return the lines it printed, without those of the log."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return [line for line in result.output.splitlines() if not line.startswith("pawline    | ")]


def refused(message: str, *arguments: str) -> None:
    with pytest.raises(PawlineError, match=message) as caught:
        pawline(*arguments)
    assert "\n" not in str(caught.value)


def test_a_version_from_registration_to_rollback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pawline("models") == [
        "no version is registered yet: `pawline register` makes the last committed run v1.0.0",
    ]
    assert json.loads("\n".join(pawline("models", "--json"))) == {"versions": [], "decisions": []}
    refused("there is no champion before the current one", "rollback")
    refused("there is no champion yet", "promote", "champion")
    said = pawline("register", "HEAD~1", "--reason", "slow but\nsteady")
    assert said[0].startswith("registered v1.0.0: commit ")
    assert ", test accuracy 0." in said[0]
    assert said[-1].startswith(
        "next: `pawline promote v1.0.0`; share it: `git push origin registry --tags` and `pawline push"
    )
    refused(r"HEAD~1 is registered already: it is the run of v1\.0\.0", "register", "HEAD~1")

    monkeypatch.chdir(folder / "tasks")  # a command works from any folder, and a file is one from there
    said = pawline("promote", "../models/classifier.keras", "-m", "more photos")
    assert said[0].startswith("registered v2.0.0")
    assert said[1] == "v2.0.0 is the champion: decision 3"
    assert "`dvc artifacts get . classifier --stage champion` fetches it" in said[-1]
    assert pawline("promote", "v2")[0].startswith("v2.0.0 is the champion already")
    assert pawline("promote", "HEAD")[0].startswith("v2.0.0 is the champion already")
    assert pawline("promote", "1")[0] == "v1.0.0 is the champion instead of v2.0.0: decision 4"
    check_table()
    check_history()
    assert pawline("rollback")[0] == "v2.0.0 is the champion instead of v1.0.0: decision 5"
    assert pawline("rollback", "--to", "v2")[0].startswith("v2.0.0 is the champion already")
    refused(r"v1\.0\.0 was no champion before this one: `pawline promote v1\.0\.0`", "rollback", "--to", "v1")
    for command in (("promote", "v7"), ("rollback", "--to", "v7"), ("compare", "v7", "v1"), ("register", "v7")):
        refused(r"v7 is no file, version, experiment, git revision or hash; known here: v1\.0\.0, v2\.0\.0", *command)
    check_forgotten(folder)
    check_interrupted(folder)
    check_without_a_key(folder, monkeypatch)


def check_table() -> None:
    header, newest, oldest, last = pawline("models")
    assert header.split()[:6] == ["version", "champion", "date", "commit", "split", "accuracy"]
    assert newest.split()[0] == "v2.0.0"
    assert "*" not in newest
    assert oldest.split()[:2] == ["v1.0.0", "*"]
    assert " tests  slow but steady  -" in oldest
    assert "git push origin registry --tags" in last
    rows = {row["version"]: row for row in json.loads("\n".join(pawline("models", "--json")))["versions"]}
    entry = load(Path.cwd()).entry("v1.0.0")
    assert entry is not None
    assert entry.lineage.metrics is not None
    assert rows["v1.0.0"]["accuracy"] == entry.lineage.metrics["accuracy"]
    assert rows["v1.0.0"]["interval"] == entry.lineage.metrics["accuracy_interval"]
    assert rows["v1.0.0"]["champion"] is True
    assert rows["v2.0.0"]["photos"] == 80
    assert rows["v1.0.0"]["commit"] == entry.commit


def check_history() -> None:
    lines = pawline("models", "--history")
    assert [line.split()[0] for line in lines[:-1]] == ["number", "1", "2", "3", "4"]
    assert "promote   v2.0.0   tests  more photos" in lines[3]
    decisions = json.loads("\n".join(pawline("models", "--json")))["decisions"]
    assert [decision["action"] for decision in decisions] == ["register", "register", "promote", "promote"]
    assert decisions[0]["reason"] == "slow but\nsteady"


def check_forgotten(folder: Path) -> None:
    project = Project(folder)
    with deciding(project):
        book = load(folder)
        plan = Plan("forget", None, None, None, "asked to", details={"versions": ["v1.0.0"], "objects": []})
        decide(book, plan, load_key(book))
    lines = pawline("models")
    assert "forgotten photos: retrain" in lines[2]
    assert "forgotten" not in lines[1]


def check_interrupted(folder: Path) -> None:
    """Without its tag, a decision is what a kill between the two leaves."""
    pawline("promote", "v1")
    git(folder, "tag", "--delete", "classifier#champion#4")
    lines = pawline("models")
    assert lines[-2].startswith("decision 7 (promote v1.0.0) has no effect yet: the next `pawline promote`")
    assert lines[1].split()[:2] == ["v2.0.0", "*"]
    assert pawline("promote", "v1")[0].startswith("v1.0.0 is the champion already")

    pawline("promote", "v2")
    pawline("rollback")
    git(folder, "tag", "--delete", "classifier#champion#6")
    assert pawline("rollback")[0] == "v1.0.0 is the champion instead of v2.0.0: decision 9"
    assert len(load(folder).decisions) == 9


def check_without_a_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(folder, "clone", "--quiet", ".", "../clone")
    monkeypatch.chdir(folder.parent / "clone")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent / "nobody"))
    assert pawline("models")[2].split()[:2] == ["v1.0.0", "*"]
    assert len(pawline("models", "--history")) == 11
    assert not (folder.parent / "nobody").exists()
    git(Path.cwd(), "config", "user.name", "Bob")
    git(Path.cwd(), "config", "user.email", "bob@example.com")
    refused("this registry is signed with the key .* and yours is .*`pawline admit FILE`", "promote", "v2")


def test_two_runs_side_by_side(folder: Path) -> None:
    pawline("register", "HEAD~2")
    lines = pawline("compare", "v1", "workspace")
    assert lines[0].split() == ["v1.0.0", "workspace"]
    cells = {line[:26].strip(): line[26:].split() for line in lines[1:-1]}
    evaluation = json.loads((folder / "reports/metrics/evaluation.json").read_text(encoding="utf-8"))
    assert cells["accuracy"][1] == f"{evaluation['accuracy']:.4f}"
    assert cells["accuracy interval"][3:] == [
        f"{evaluation['accuracy_interval'][0]:.4f}",
        "to",
        cells["accuracy interval"][5],
    ]
    assert cells["photos kept"] == ["70", "80"]
    assert [
        int(cells["train"][column]) + int(cells["val"][column]) + int(cells["test"][column]) for column in (0, 1)
    ] == [
        70,
        80,
    ]
    assert cells["train_head.learning_rate"] == ["0.001", "0.0005"]
    assert cells["fine_tune.unfrozen_layers"] == ["20", "0"]
    assert "train_head.epochs" not in cells
    assert lines[-1] == "next: `pawline lineage v1 workspace` compares them photo by photo and file by file"
    assert find_run(Project(folder), "v1").commit == git(folder, "rev-parse", "HEAD~2")


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    refused("there is no git repository with a commit here", "models")
    refused("there is no git repository with a commit here", "promote", "v1")
    refused("there is no git repository with a commit here", "register")
    refused("there is no git repository with a commit here", "rollback")
