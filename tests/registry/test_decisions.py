"""Decisions: signed, chained, in turn, and with an effect whenever they were interrupted."""

import hashlib
import logging
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from lineage.git_objects import GitObjects
from lineage.runs import Project, champion, versions
from lineage.verify_registry import Registry, read_registry
from registry import branch, decisions, signing
from registry.decisions import Plan, admit, decide, deciding, load_key
from registry.ledger import Ledger, load
from registry.signing import SigningKey
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
        decide(book, plan(project, tag, **other), load_key(book))
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


def users_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SigningKey:
    """Return the key of the user whose configuration is in a folder, and be them from now on."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return signing.load_key()


def read(project: Project) -> Registry:
    with GitObjects(project.root) as objects:
        return read_registry(project.root, objects)


def broken(registry: Registry) -> dict[str, str]:
    return {link.name: link.detail for link in registry.links if not link.holds}


def test_a_key_counts_once_one_that_counts_has_admitted_it(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, carol = (users_key(tmp_path / name, monkeypatch) for name in ("bob", "carol"))
    ada = users_key(tmp_path / "config", monkeypatch)
    make(project, None)
    for newcomer, admits in ((bob, "config"), (carol, "bob")):
        users_key(newcomer.path.parents[1], monkeypatch)
        with pytest.raises(
            PawlineError,
            match=rf"signed with the key .*{ada.fingerprint[:8]}.*, and yours is {newcomer.fingerprint[:8]}\.\.\.: "
            rf"whoever has it runs `pawline admit FILE` with your public key, {newcomer.public_path}",
        ):
            make(project, None)
        with pytest.raises(PawlineError, match="and yours is"):
            admit(project, newcomer.public_pem, reason="let me in")
        users_key(tmp_path / admits, monkeypatch)
        decision = admit(project, newcomer.public_path.read_bytes(), reason="welcome")
        assert (decision.action, decision.details, decision.tag) == ("admit", {"key": newcomer.fingerprint}, None)
        assert list(decision.files) == [f"keys/{newcomer.fingerprint}.pem"]
    users_key(tmp_path / "carol", monkeypatch)
    assert make(project, "classifier@v1.0.0").decisions[-1].key == carol.fingerprint
    for known in (ada, bob, carol):
        with pytest.raises(PawlineError, match=f"the key {known.fingerprint[:8]}... counts already"):
            admit(project, known.public_pem, reason="")
    registry = read(project)
    assert broken(registry) == {}
    assert (registry.root, registry.signed) == (ada.fingerprint, {1, 2, 3, 4})


def test_what_a_key_decides_that_admitted_itself_does_not_count(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mallory, friend = (users_key(tmp_path / name, monkeypatch) for name in ("mallory", "friend"))
    ada = users_key(tmp_path / "config", monkeypatch)
    make(project, "classifier@v1.0.0")
    tip = git(project.root, "rev-parse", "refs/heads/registry")
    head = git(project.root, "rev-parse", "HEAD")
    admits_friend = {f"keys/{friend.fingerprint}.pem": friend.public_pem}
    own = Plan("admit", None, None, None, "", admits_friend, {"key": friend.fingerprint})
    forged = [
        (Plan("promote", "v1.0.0", head, "classifier#champion#1", ""), mallory),
        (Plan("forget", None, None, None, "", details={"objects": ["a" * 32], "versions": []}), mallory),
        (own, mallory),
        (Plan("rollback", "v1.0.0", head, "classifier#champion#2", ""), friend),
        (Plan("certify", "v1.0.0", head, None, ""), mallory),
    ]
    for plan_, key in forged:
        decide(load(project.root), plan_, key)
    registry = read(project)
    assert (registry.root, registry.keys, registry.signed) == (ada.fingerprint, {ada.fingerprint}, {1})
    assert registry.forgotten == {}
    names = {f"decisions/{number:04}.sig" for number in range(2, 7)}
    assert broken(registry).keys() == names | {"classifier#champion#1", "classifier#champion#2"}
    assert broken(registry)["classifier#champion#1"] == "made by decision 2, which does not count"
    with pytest.raises(PawlineError, match=r"^decision 2 \(promote v1\.0\.0\) is not signed by a key that counts: "):
        make(project, None)
    git(project.root, "tag", "--delete", "classifier#champion#1", "classifier#champion#2")
    git(project.root, "update-ref", "refs/heads/registry", tip)
    assert len(make(project, None).decisions) == 2


def test_a_decision_that_nobody_signed_does_not_take_effect(project: Project) -> None:
    book = make(project, "classifier@v1.0.0")
    forged = book.decisions[0].model_copy(
        update={"number": 2, "previous": book.digest(book.decisions[0]), "tag": "classifier#champion#1", "files": {}}
    )
    content = forged.model_dump_json(indent=2).encode()
    signature = book.read("decisions/0001.sig") or b""
    tip = git(project.root, "rev-parse", "refs/heads/registry")
    for files in (
        {"decisions/0002.json": content},
        {"decisions/0002.json": content, "decisions/0002.sig": signature},
        {"decisions/0002.json": content.replace(forged.key.encode(), b"0" * 64), "decisions/0002.sig": signature},
    ):
        branch.append(load(project.root), files, "")
        assert load(project.root).pending() is not None
        with (
            pytest.raises(PawlineError, match=r"^decision 2 \(register v1\.0\.0: because of that\) is not signed"),
            deciding(project),
        ):
            pass
        assert git(project.root, "tag") == "classifier@v1.0.0"
        assert {"decisions/0002.sig"} <= broken(read(project)).keys()
        git(project.root, "update-ref", "refs/heads/registry", tip)
    again = forged.model_copy(update={"previous": None}).model_dump_json().encode()
    branch.append(load(project.root), {"decisions/0002.json": again, "decisions/0002.sig": signature}, "")
    assert "is not the one that it was made after" in broken(read(project))["decisions/0002.json"]


def test_a_tag_that_says_otherwise_than_the_decisions_stops_the_next_one(project: Project) -> None:
    make(project, "classifier@v1.0.0")
    before = git(project.root, "for-each-ref", "refs/tags")
    git(project.root, "commit", "--quiet", "--all", "--message", "Go on")
    git(project.root, "tag", "classifier#champion#99")
    with pytest.raises(
        PawlineError, match=r"^the tag classifier#champion#99: no decision known here made it: .* `git tag --delete cl"
    ):
        make(project, None)
    git(project.root, "tag", "--delete", "classifier#champion#99")

    git(project.root, "tag", "--force", "classifier@v1.0.0")
    with pytest.raises(PawlineError, match=r"^the tag classifier@v1\.0\.0: not the tag that .*: `(.*)`, and the next"):
        make(project, None)
    git(project.root, "tag", "--delete", "classifier@v1.0.0")
    assert len(make(project, None).decisions) == 2
    assert git(project.root, "for-each-ref", "refs/tags") == before, "the advice was right"
    git(project.root, "tag", "classifier@v0.9.0")  # without Pawline
    assert len(make(project, None).decisions) == 3


def test_a_champion_before_any_decision_stops_the_first_one(project: Project) -> None:
    git(project.root, "tag", "classifier@v1.0.0")
    git(project.root, "tag", "classifier#champion#1")
    with pytest.raises(PawlineError, match=r"^the tag classifier#champion#1: no branch `registry` says who registered"):
        make(project, None)
    git(project.root, "tag", "--delete", "classifier#champion#1")
    assert len(make(project, None).decisions) == 1


@pytest.mark.parametrize("name", ["00002.json", "2.json", "0002.json.json", "0002.JSON", "notes.md", "x/0002.json"])
def test_a_decision_has_one_spelling(project: Project, name: str) -> None:
    book = make(project, None)
    content = (book.read("decisions/0001.json") or b"").replace(b'"number": 1', b'"number": 2')
    branch.append(book, {f"decisions/{name}": content}, "")
    with pytest.raises(PawlineError, match=rf"^tampered: decisions/{name} of the registry is no decision's file"):
        _ = load(project.root).decisions
    assert broken(read(project)) == {f"decisions/{name}": "no decision added it"}


def test_a_decision_has_the_number_of_its_file(project: Project) -> None:
    book = make(project, None)
    content, signature = (book.read(f"decisions/0001.{suffix}") or b"" for suffix in ("json", "sig"))
    branch.append(book, {"decisions/0002.json": content, "decisions/0002.sig": signature}, "")
    with pytest.raises(PawlineError, match=r"^tampered: decisions/0002\.json of the registry calls itself decision 1"):
        _ = load(project.root).decisions
    assert read(project).signed == {1}
    assert broken(read(project))["decisions/0002.json"] == "it calls itself decision 1"


def test_a_name_that_is_no_text_is_named(project: Project) -> None:
    book = make(project, None)
    tree = b"".join(f"{what}\t{path}\0".encode() for path, what in book.objects.items() if "/" not in path)
    blob = book.objects["decisions/0001.json"]
    command = ["git", "mktree", "-z"]
    inside = tree + f"{blob}\tcaf".encode() + b"\xe9\0"
    folders = git(project.root, "ls-tree", "-d", "-z", str(book.tip)).encode()
    made = subprocess.run(command, cwd=project.root, input=folders + inside, capture_output=True, check=True)
    forged = git(project.root, "commit-tree", made.stdout.decode().strip(), "-p", str(book.tip), "-m", "x")
    git(project.root, "update-ref", "refs/heads/registry", forged)
    assert len(load(project.root).decisions) == 1
    assert broken(read(project)) == {"caf\\xe9": "no decision added it"}
    with pytest.raises(PawlineError, match=r"caf\\xe9 of the registry: no decision added it"):
        make(project, None)


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
        key = load_key(book)
        with pytest.raises(PawlineError, match=r"promote v1\.0\.0 is about the commit 1111111111, which is not here"):
            decide(book, missing, key)
        assert load(project.root).tip is None
        monkeypatch.setattr(decisions, "_check_commit", lambda *_: None)  # as in the clone that has the commit
        with pytest.raises(PawlineError, match="git mktag"):
            decide(book, missing, key)
        monkeypatch.undo()
    with pytest.raises(PawlineError, match=r"decision 1 is about .*: `git fetch --tags`"), deciding(project):
        pass
