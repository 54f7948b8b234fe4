"""Decisions: signed, chained, in turn, and with an effect whenever they were interrupted."""

import hashlib
import logging
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from lineage.runs import Project, champion, versions
from registry import branch, decisions, signing
from registry.decisions import Plan, decide, deciding, load_key
from registry.ledger import Ledger, load
from tasks.stage import PawlineError
from tests.registry.test_branch import git, make_repository


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    return Project(make_repository(tmp_path / "here"))


def plan(project: Project, tag: str | None, **other: bytes) -> Plan:
    head = git(project.root, "rev-parse", "HEAD")
    files = {name.replace("_", "/"): content for name, content in other.items()}
    return Plan("register", "v1.0.0", head, tag, "because\nof  that", files)


def make(project: Project, tag: str | None, **other: bytes) -> Ledger:
    with deciding(project):
        book = load(project.root)
        decide(book, plan(project, tag, **other), load_key(book, new_key=False))
    return load(project.root)


def test_a_decision_says_everything_and_is_signed(project: Project, tmp_path: Path) -> None:
    book = make(project, "classifier@v1.0.0", versions_card=b"card")
    (decision,) = book.decisions
    assert (decision.number, decision.previous, decision.by) == (1, None, "Ada <ada@example.com>")
    assert decision.reason == "because\nof  that"
    added = {path: hashlib.sha256(book.read(path) or b"").hexdigest() for path in decision.files}
    assert decision.files == added
    key = f"keys/{decision.key}.pem"
    assert sorted(book.files) == sorted([*added, "decisions/0001.json", "decisions/0001.sig"])
    assert sorted(added) == ["README.md", key, "versions/card"]
    paths = {name: tmp_path / Path(name).name for name in ("decisions/0001.json", "decisions/0001.sig", key)}
    for name, path in paths.items():
        path.write_bytes(book.read(name) or b"")
    signing.verify_file(*paths.values())
    tag = git(project.root, "cat-file", "-p", "classifier@v1.0.0").splitlines()
    assert tag[3].startswith("tagger Ada <ada@example.com> ")
    digest = hashlib.sha256(paths["decisions/0001.json"].read_bytes()).hexdigest()
    assert tag[5:] == ["register v1.0.0: because of that", "", f"Pawline decision 1, SHA-256 {digest}"]


def test_decisions_are_chained_and_each_is_later_than_the_one_before(project: Project) -> None:
    for number in range(4):
        book = make(project, f"classifier#champion#{number + 1}")
    for before, after in zip(book.decisions, book.decisions[1:], strict=False):
        assert after.previous == book.digest(before)
        assert datetime.fromisoformat(after.time) > datetime.fromisoformat(before.time)
        assert after.files == {}
    seconds = git(project.root, "for-each-ref", "--format=%(taggerdate:unix)", "refs/tags").split()
    assert [int(second) for second in seconds] == [
        int(datetime.fromisoformat(decision.time).timestamp()) for decision in book.decisions
    ]


def test_decisions_without_their_tags_take_effect_before_the_next(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    make(project, "classifier@v1.0.0")
    book = make(project, "classifier#champion#1")
    before = git(project.root, "for-each-ref", "refs/tags")
    git(project.root, "tag", "--delete", "classifier@v1.0.0", "classifier#champion#1")
    assert book.pending() == book.decisions[-1]
    assert champion(project) is None
    with caplog.at_level(logging.INFO), deciding(project) as finished:
        assert finished == book.decisions
    assert "finished decision 2, which had no effect yet: register v1.0.0" in caplog.text
    assert git(project.root, "for-each-ref", "refs/tags") == before
    assert [run.name for run in versions(project)] == ["v1.0.0"]
    assert champion(project) == versions(project)[0]
    assert load(project.root).pending() is None
    with deciding(project) as finished:
        assert finished == []


def test_one_decides_at_a_time(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    order = []

    def second() -> None:
        make(project, "classifier@v2.0.0")
        order.append("second")

    with caplog.at_level(logging.INFO):
        with deciding(project):
            thread = threading.Thread(target=second)
            thread.start()
            while "waiting for it" not in caplog.text:
                time.sleep(0.01)
            order.append("first")
        thread.join()
    assert order == ["first", "second"]


def test_another_key_is_refused_until_it_is_admitted(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(project, None).keys
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))
    with pytest.raises(
        PawlineError, match=f"not among the registry's .{first[0][:12]}.*PAWLINE_SIGNING_KEY=FILE.*--new-key"
    ):
        load_key(load(project.root), new_key=False)
    with deciding(project):
        book = load(project.root)
        decide(book, plan(project, None), load_key(book, new_key=True))
    keys = load(project.root).keys
    assert len(keys) == 2
    assert load_key(load(project.root), new_key=False).fingerprint in set(keys) - set(first)


def test_what_pawline_did_not_write_is_named(project: Project) -> None:
    book = make(project, None)
    branch.append(
        book, {"versions/v1.0.0/entry.json": b"{}", "decisions/0003.json": book.read("decisions/0001.json") or b""}, ""
    )
    with pytest.raises(PawlineError, match=r"^tampered: versions/v1\.0\.0/entry\.json of the registry is not what"):
        load(project.root).entry("v1.0.0")
    with (
        pytest.raises(PawlineError, match=r"^tampered: the registry's decisions are not numbered 1, 2, "),
        deciding(project),
    ):
        pass
    assert load(project.root).entry("v2.0.0") is None


def test_who_decides_must_be_known(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    git(project.root, "config", "--unset", "user.email")
    with pytest.raises(PawlineError, match=r"`git config user\.name NAME` and `git config user\.email ADDRESS`"):
        make(project, None)
    assert load(project.root).tip is None
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "from@environment")
    assert decisions.identity(project.root) == "Ada <from@environment>"


def test_places_without_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "plain").mkdir()
    with pytest.raises(PawlineError, match="no git repository with a commit here"):
        decisions.check_place(Project(tmp_path / "plain"))
    folder = make_repository(tmp_path / "here")
    (folder / "sub").mkdir()
    with pytest.raises(PawlineError, match="the project is in sub/ of its git repository"):
        decisions.check_place(Project(folder / "sub"))
    decisions.check_place(Project(folder))


def test_a_commit_that_is_not_here_is_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Plan("promote", "v1.0.0", "1" * 40, "classifier#champion#1", "")
    with deciding(project):
        book = load(project.root)
        key = load_key(book, new_key=False)
        with pytest.raises(PawlineError, match=r"promote v1\.0\.0 is about the commit 1111111111, which is not here"):
            decide(book, missing, key)
        assert load(project.root).tip is None
        monkeypatch.setattr(decisions, "_check_commit", lambda *_: None)  # as in the clone that has the commit
        with pytest.raises(PawlineError, match="git mktag"):
            decide(book, missing, key)
        monkeypatch.undo()
    with pytest.raises(PawlineError, match=r"decision 1 is about .*: `git fetch --tags`"), deciding(project):
        pass
