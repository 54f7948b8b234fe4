"""`pawline admit`: from being refused to being admitted, in two clones."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows.commands import admit, models
from lineage.runs import Project
from registry import ledger
from registry.decisions import Plan, decide, deciding, load_key
from registry.signing import KEY_VARIABLE
from tasks.stage import PawlineError
from tests.registry.test_branch import git, make_repository

app = typer.Typer()
app.command("admit")(admit.admit_command)
app.command("models")(models.models_command)


def pawline(*arguments: str) -> list[str]:
    """Run a command and return the lines it printed."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output.splitlines()


def decide_something(root: Path) -> None:
    with deciding(Project(root)):
        book = ledger.load(root)
        head = git(root, "rev-parse", "HEAD")
        decide(book, Plan("certify", "v1.0.0", head, None, "identical"), load_key(book))


def test_a_newcomer_is_admitted_by_whoever_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "ada"))
    ada = make_repository(tmp_path / "here")
    (ada / "dvc.yaml").touch()
    decide_something(ada)
    git(ada, "clone", "--quiet", ".", "../clone")
    bob = tmp_path / "clone"
    git(bob, "config", "user.name", "Bob")
    git(bob, "config", "user.email", "bob@example.com")

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "bob"))
    with pytest.raises(PawlineError, match=r"`pawline admit FILE` with your public key, ") as caught:
        decide_something(bob)
    public = str(caught.value).partition("with your public key, ")[2].partition(";")[0]
    assert Path(public).read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "ada"))
    monkeypatch.chdir(ada)
    said = pawline("admit", f"../{Path(public).relative_to(tmp_path)}", "-m", "joins")
    assert said[0].startswith("admitted the key ")
    assert said[0].endswith(": decision 2")
    assert said[1].startswith("next: `git push origin registry`")
    fingerprint = ledger.load(ada).decisions[1].details["key"]
    [row] = [line for line in pawline("models", "--history") if line.startswith("2 ")]
    assert f"admit     key {fingerprint[:10]}  Ada  joins" in row

    git(bob, "fetch", "--quiet")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "bob"))
    decide_something(bob)
    assert [decision.key == fingerprint for decision in ledger.load(bob).decisions] == [False, False, True]


def test_what_is_no_public_key_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = make_repository(tmp_path / "here")
    (root / "dvc.yaml").touch()
    monkeypatch.chdir(root)
    for name, message in (
        ("gone.pem", "gone.pem: No such file or directory: `pawline admit` takes a public key"),
        ("code.py", "no public key in PEM"),
        ("a" * 300, "File name too long"),
    ):
        with pytest.raises(PawlineError, match=message) as caught:
            pawline("admit", name)
        assert "\n" not in str(caught.value)
    assert ledger.load(root).tip is None
