"""Writing the branch with git's plumbing, in a small repository made here."""

import subprocess
import threading
from pathlib import Path

import pytest

from registry import branch
from registry.ledger import Ledger, load
from tasks.stage import PawlineError


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_repository(folder: Path) -> Path:
    """Make a repository with one commit, one staged change and one that is not."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "config", "user.name", "Ada")
    git(folder, "config", "user.email", "ada@example.com")
    (folder / "code.py").write_text("one\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Begin")
    (folder / "code.py").write_text("two\n")
    git(folder, "add", "--all")
    (folder / "code.py").write_text("three\n")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "here")


def test_files_are_added_and_the_work_tree_left_alone(repository: Path) -> None:
    before = git(repository, "status", "--porcelain=v2", "--branch")
    branch.append(load(repository), {"README.md": b"read me\r\n", "versions/v1.0.0/entry.json": b"{}"}, "One")
    branch.append(load(repository), {"versions/v2.0.0/a/b.txt": b"\0\xff", "decisions/0001.json": b"2"}, "Two")
    book = load(repository)
    assert sorted(book.files) == [
        "README.md",
        "decisions/0001.json",
        "versions/v1.0.0/entry.json",
        "versions/v2.0.0/a/b.txt",
    ]
    assert book.read("README.md") == b"read me\r\n"
    assert book.read("versions/v2.0.0/a/b.txt") == b"\0\xff"
    assert book.read("versions") is None
    assert git(repository, "log", "--format=%s", "refs/heads/registry").split() == ["Two", "One"]
    assert subprocess.run(["git", "merge-base", "main", "refs/heads/registry"], cwd=repository).returncode == 1
    assert git(repository, "status", "--porcelain=v2", "--branch") == before
    assert git(repository, "fsck", "--strict", "--no-dangling") == ""


def test_a_file_is_never_changed(repository: Path) -> None:
    branch.append(load(repository), {"keys/a.pem": b"1"}, "One")
    with pytest.raises(PawlineError, match=r"has keys/a\.pem already"):
        branch.append(load(repository), {"keys/a.pem": b"2", "keys/b.pem": b"2"}, "Two")
    assert load(repository).files == ["keys/a.pem"]


def test_the_second_of_two_writers_loses(repository: Path) -> None:
    book = load(repository)
    branch.append(book, {"a": b"1"}, "First ever")
    with pytest.raises(PawlineError, match="someone else decided meanwhile: run it again"):
        branch.append(book, {"b": b"1"}, "Also first")
    book = load(repository)
    branch.append(book, {"c": b"1"}, "Next")
    with pytest.raises(PawlineError, match="someone else decided meanwhile: run it again"):
        branch.append(book, {"d": b"1"}, "Also next")
    assert load(repository).files == ["a", "c"]


def test_a_lock_file_that_was_left_behind_is_removed(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lineage.git.DEAD_LOCK_SECONDS", 0.3)
    lock = repository / ".git/refs/heads/registry.lock"
    lock.touch()
    branch.append(load(repository), {"a": b"1"}, "One")
    assert load(repository).files == ["a"]
    assert not lock.exists()
    assert f"{lock} was left behind by a git that was killed: removed" in caplog.messages


def test_a_lock_file_that_somebody_holds_is_waited_for(repository: Path) -> None:
    lock = repository / ".git/refs/heads/registry.lock"
    lock.touch()
    threading.Timer(1, lock.unlink).start()
    branch.append(load(repository), {"a": b"1"}, "One")
    assert load(repository).files == ["a"]


def test_a_branch_that_is_checked_out_is_left_alone(repository: Path) -> None:
    branch.append(load(repository), {"a": b"1"}, "One")
    git(repository, "worktree", "add", "--quiet", "../look", "registry")
    with pytest.raises(PawlineError, match=r"checked out in .*/look: `git switch --detach` there"):
        branch.append(load(repository), {"b": b"1"}, "Two")
    git(repository.parent / "look", "switch", "--quiet", "--detach")
    branch.append(load(repository), {"b": b"1"}, "Two")


def test_a_clone_goes_on_from_where_the_remote_is(repository: Path) -> None:
    branch.append(load(repository), {"a": b"1"}, "One")
    git(repository, "clone", "--quiet", ".", "../clone")
    clone = repository.parent / "clone"
    git(clone, "config", "user.name", "Bob")
    git(clone, "config", "user.email", "bob@example.com")
    assert load(clone).files == ["a"]
    assert git(clone, "branch", "--list", "registry") == ""
    branch.append(load(clone), {"b": b"1"}, "Two")
    git(clone, "push", "--quiet", "origin", "registry")
    assert load(repository).files == ["a", "b"]

    branch.append(load(repository), {"c": b"1"}, "Three")
    git(clone, "fetch", "--quiet")
    branch.append(load(clone), {"d": b"1"}, "Four")  # the local branch is behind and goes along
    assert load(clone).files == ["a", "b", "c", "d"]


def test_branches_that_went_apart_are_brought_together_by_the_command_in_the_message(repository: Path) -> None:
    git(repository, "clone", "--quiet", ".", "../clone")
    clone = repository.parent / "clone"
    for folder, name in ((repository, "a"), (clone, "b")):
        git(folder, "config", "user.name", "Bob")
        git(folder, "config", "user.email", "bob@example.com")
        branch.append(load(folder), {name: b"1"}, "One")  # without a common commit
        head = git(folder, "rev-parse", "main")
        branch.tag(folder, f"classifier@v1.0.{name == 'b':d}", head, tagger="Bob <b@c> 1 +0000", message="x")
    git(clone, "tag", "mine")
    git(clone, "fetch", "--quiet")
    with pytest.raises(PawlineError, match="went apart") as caught:
        load(clone)
    command = str(caught.value).split("`")[1]
    subprocess.run(command, shell=True, cwd=clone, check=True, capture_output=True)  # noqa: S602 - our own message
    assert load(clone).files == ["a"]
    assert git(clone, "tag").split() == ["classifier@v1.0.0", "mine"]


def test_a_tag_is_the_same_object_whoever_makes_it_and_never_moves(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    arguments = {"tagger": "Ada <ada@example.com> 1700000000 +0000", "message": "promote v1.0.0\n\nwhy"}
    branch.tag(repository, "classifier#champion#1", head, **arguments)
    first = git(repository, "rev-parse", "classifier#champion#1")
    assert git(repository, "cat-file", "-t", first) == "tag"
    with pytest.raises(PawlineError, match="someone else decided meanwhile"):
        branch.tag(repository, "classifier#champion#1", head, **arguments)
    git(repository, "tag", "--delete", "classifier#champion#1")
    git(repository, "config", "user.name", "Somebody else")
    branch.tag(repository, "classifier#champion#1", head, **arguments)
    assert git(repository, "rev-parse", "classifier#champion#1") == first


def test_a_repository_of_sha256_works(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--object-format=sha256", "new")
    folder = tmp_path / "new"
    git(folder, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "--message", "One")
    git(folder, "config", "user.name", "A")
    git(folder, "config", "user.email", "a@b")
    branch.append(Ledger(folder), {"a": b"1"}, "One")
    branch.append(load(folder), {"b": b"1"}, "Two")
    assert load(folder).files == ["a", "b"]
