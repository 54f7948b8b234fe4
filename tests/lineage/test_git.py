"""What lineage asks of git, in a small real repository whose project is a folder of it."""

import os
import subprocess
from pathlib import Path

import pytest

from lineage import git
from tasks.stage import PawlineError

IDENTITY = {"GIT_AUTHOR_NAME": "Ann Other", "GIT_AUTHOR_EMAIL": "ann@example.com", "GIT_COMMITTER_NAME": "tests"} | {
    "GIT_COMMITTER_EMAIL": "tests@example.com",
    "GIT_AUTHOR_DATE": "2024-02-03T04:05:06+01:00",
}


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | IDENTITY, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path, subject: str) -> str:
    run(folder, "add", "--all")
    run(folder, "commit", "--quiet", "--allow-empty", "--message", subject)
    return run(folder, "rev-parse", "HEAD")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder of a repository, with one commit."""
    folder = tmp_path / "repository" / "project"
    (folder / "tasks").mkdir(parents=True)
    (folder / "dvc.lock").write_text("first")
    (folder / "tasks" / "a file.py").touch()
    (folder.parent / "outside").touch()
    run(folder.parent, "init", "--quiet")
    commit(folder, "Begin: say “where”")
    return folder


def test_a_commit_says_who_when_and_why(project: Path) -> None:
    head = git.find_commit(project, "HEAD")
    assert head is not None
    expected = git.Commit(head, "Ann Other", "ann@example.com", "2024-02-03T04:05:06+01:00", "Begin: say “where”")
    assert git.read_commit(project, head) == expected


def test_a_subject_may_hold_any_character(project: Path) -> None:
    subject = "a\x1fb\x1b[31m <script>"
    assert git.read_commit(project, commit(project, subject)).subject == subject


def test_files_are_those_of_the_commit_and_relative_to_the_project(project: Path) -> None:
    first = commit(project, "No change")
    (project / "dvc.lock").write_text("second")
    second = commit(project, "Change")
    assert git.read_file(project, first, "dvc.lock") == b"first"
    assert git.read_file(project, second, "dvc.lock") == b"second"
    assert git.read_file(project, second, "outside") is None
    assert git.read_file(project, second, "../outside") == b"", "git follows .. to the repository, not out of it"
    assert git.read_file(project, second, "missing") is None
    assert git.list_files(project, second, "tasks") == ["tasks/a file.py"]
    assert git.list_files(project, second, "nothing") == []


def test_a_name_need_not_be_utf8(project: Path) -> None:
    name = os.fsdecode(b"tasks/caf\xe9")
    (project / name).write_text("latin")
    named = commit(project, "Name")
    assert git.list_files(project, named, "tasks") == ["tasks/a file.py", name]
    assert git.read_file(project, named, name) == b"latin"


def test_signatures_are_not_shown(project: Path) -> None:
    signed = sign_head(project)
    run(project, "config", "log.showSignature", "true")
    assert "No signature" in run(project, "log", "--format=%H")
    assert git.git(project, "log", "--format=%H").decode() == f"{signed}\n"
    assert git.read_commit(project, signed).id == signed


def sign_head(folder: Path) -> str:
    """Give the last commit a signature that nobody can verify."""
    header, message = run(folder, "cat-file", "commit", "HEAD").split("\n\n", 1)
    signature = "gpgsig -----BEGIN SSH SIGNATURE-----\n U1NI\n -----END SSH SIGNATURE-----"
    (folder.parent / "signed").write_text(f"{header}\n{signature}\n\n{message}\n")
    signed = run(folder, "hash-object", "-t", "commit", "-w", str(folder.parent / "signed"))
    run(folder, "update-ref", "HEAD", signed)
    return signed


def test_a_revision_is_found_or_not_and_never_an_option(project: Path) -> None:
    head = run(project, "rev-parse", "HEAD")
    run(project, "tag", "classifier@v1.0.0")
    run(project, "tag", "classifier#champion#1")
    run(project, "tag", "other")
    for revision in ("HEAD", head[:8], "classifier@v1.0.0", "classifier#champion#1"):
        assert git.find_commit(project, revision) == head
    for revision in ("nonsense", "--all", "-h", "", "HEAD~5", "HEAD:dvc.lock", "a\nb", "$(touch x)"):
        assert git.find_commit(project, revision) is None
    assert git.tags(project, "classifier@*") == ["classifier@v1.0.0"]


def test_replacements_and_grafts_are_not_believed(project: Path) -> None:
    first, second = commit(project, "Change"), commit(project, "Change again")
    run(project, "tag", "--annotate", "--message", "x", "classifier@v1.0.0", first)
    run(project, "tag", "--annotate", "--message", "x", "classifier@v2.0.0", second)
    run(project, "replace", "refs/tags/classifier@v2.0.0", "refs/tags/classifier@v1.0.0")
    assert run(project, "rev-parse", "classifier@v2.0.0^{commit}") == first
    assert git.find_commit(project, "classifier@v2.0.0") == second
    run(project, "replace", "--graft", second)
    assert run(project, "log", "--format=%H") == second
    assert git.find_commit(project, "HEAD~1") == first
    run(project, "replace", "--delete", second)
    (project.parent / ".git/info/grafts").write_text(f"{second}\n")
    assert run(project, "log", "--format=%H") == second
    assert git.find_commit(project, "HEAD~1") == first
    with pytest.raises(PawlineError, match="unknown revision"):
        git.git(project, "log", "HEAD~5")


def test_a_folder_without_a_commit_is_no_repository(tmp_path: Path, project: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not git.is_repository(empty)
    run(empty, "init", "--quiet")
    assert not git.is_repository(empty)
    assert git.is_repository(project)


def test_a_shallow_clone_is_recognised(tmp_path: Path, project: Path) -> None:
    commit(project, "Second")
    run(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{project.parent}", "shallow")
    assert git.is_shallow(tmp_path / "shallow")
    assert not git.is_shallow(project)


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_branch_that_git_passes_over_is_noticed(
    project: Path, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever language the user has git speak, where its translations are installed."""
    monkeypatch.setenv("LANGUAGE", language)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    run(project, "branch", "feature")
    git.check_refs(project, "refs/heads")
    (project.parent / ".git/refs/heads/feature").write_bytes(b"")
    with pytest.raises(PawlineError, match=r"^git cannot read a branch or tag \(.*broken ref.*feature.*\): `git fsck`"):
        git.check_refs(project, "refs/heads")


def test_gits_failure_is_one_line(project: Path) -> None:
    with pytest.raises(PawlineError, match=r"^git show: ambiguous argument|^git show: .*unknown revision") as caught:
        git.git(project, "show", "nonsense")
    assert "\n" not in str(caught.value)


def test_an_object_that_cannot_be_read_is_named(project: Path) -> None:
    tree = git.git(project, "rev-parse", "HEAD^{tree}").decode().strip()
    path = project.parent / ".git/objects" / tree[:2] / tree[2:]
    path.chmod(0o644)
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(PawlineError, match=f"^git ls-tree: .*{tree}"):
        git.git(project, "ls-tree", "HEAD")


def test_without_git_the_user_is_told_to_install_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PawlineError, match="git is not installed"):
        git.is_repository(project)
