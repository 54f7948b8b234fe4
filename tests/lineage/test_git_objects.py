"""Git's objects are hashed again: what git would show without a word is found out."""

import hashlib
from pathlib import Path

import pytest

from lineage.git import git
from lineage.git_objects import CommitFiles, GitObjects, ObjectError, project_prefix
from tests.test_pipeline import run

CODE = b"print('hello')\n"


@pytest.fixture(params=["sha1", "sha256"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A repository with a project in a folder of it."""
    git(tmp_path, "init", "--quiet", f"--object-format={request.param}")
    (tmp_path / "project/tasks/deep").mkdir(parents=True)
    (tmp_path / "project/params.yaml").write_text("a: 1\n")
    (tmp_path / "project/tasks/stage.py").write_bytes(CODE)
    (tmp_path / "project/tasks/deep/er.py").write_bytes(b"")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "-m", "Begin")
    return tmp_path


def id_of(repository: Path, name: str) -> str:
    return git(repository, "rev-parse", name).decode().strip()


def loose(repository: Path, object_id: str) -> Path:
    path = repository / ".git/objects" / object_id[:2] / object_id[2:]
    path.chmod(0o644)
    return path


def files_of(repository: Path, objects: GitObjects) -> CommitFiles:
    return CommitFiles(objects, id_of(repository, "HEAD"), project_prefix(repository / "project"))


def test_files_are_reached_from_the_commit(repository: Path) -> None:
    with GitObjects(repository) as objects:
        files = files_of(repository, objects)
        assert files.read("tasks/stage.py") == CODE
        assert files.read("tasks/nothing.py") is None
        assert files.read("tasks") is None
        assert files.list("tasks") == ["tasks/deep/er.py", "tasks/stage.py"]
        assert files.list("tasks/stage.py") == files.list("nothing") == []
    assert {link.status for link in files.links} == {"verified"}
    assert [link.name for link in files.links] == [
        f"commit {files.commit[:10]}", "folder .", "folder project", "folder project/tasks", "tasks/stage.py",
        "folder project/tasks/deep",
    ]  # fmt: skip
    assert not files.broken


def test_another_content_under_the_same_id_is_tampered(repository: Path) -> None:
    blob, other = id_of(repository, "HEAD:project/tasks/stage.py"), id_of(repository, "HEAD:project/params.yaml")
    loose(repository, blob).write_bytes(loose(repository, other).read_bytes())
    assert git(repository, "cat-file", "blob", blob) == b"a: 1\n", "git itself says nothing"
    with GitObjects(repository) as objects:
        files = files_of(repository, objects)
        assert files.read("tasks/stage.py") is None
        assert files.read("params.yaml") == b"a: 1\n"
    assert files.broken == {"tasks/stage.py"}
    assert [(link.name, link.status) for link in files.links if not link.holds] == [("tasks/stage.py", "tampered")]


def test_a_replacement_is_not_followed(repository: Path) -> None:
    blob, other = id_of(repository, "HEAD:project/tasks/stage.py"), id_of(repository, "HEAD:project/params.yaml")
    git(repository, "replace", blob, other)
    assert run(["git", "cat-file", "blob", blob], repository).stdout == "a: 1\n", "as git shows it by itself"
    assert git(repository, "cat-file", "blob", blob) == CODE
    with GitObjects(repository) as objects:
        assert objects.read(blob).content == CODE


def test_damage_is_told_in_gits_words_and_the_next_object_is_read(repository: Path) -> None:
    blob, other = id_of(repository, "HEAD:project/tasks/stage.py"), id_of(repository, "HEAD:project/params.yaml")
    loose(repository, blob).write_bytes(b"no zlib stream")
    with GitObjects(repository) as objects:
        with pytest.raises(ObjectError, match=f"git cannot read object {blob[:10]}: .*header") as caught:
            objects.read(blob)
        assert caught.value.status == "tampered"
        assert objects.read(other).content == b"a: 1\n"


def test_what_is_not_there_is_missing(repository: Path) -> None:
    commit = id_of(repository, "HEAD")
    nowhere = hashlib.new("sha1" if len(commit) == 40 else "sha256", b"x", usedforsecurity=False).hexdigest()
    with GitObjects(repository) as objects:
        with pytest.raises(ObjectError, match="git has no object") as caught:
            objects.read(nowhere)
        assert caught.value.status == "missing"
        with pytest.raises(ObjectError, match="no id"):
            objects.read("HEAD")


def test_a_broken_folder_is_told_once(repository: Path) -> None:
    loose(repository, id_of(repository, "HEAD:project/tasks")).unlink()
    with GitObjects(repository) as objects:
        files = files_of(repository, objects)
        assert files.read("tasks/stage.py") is files.read("tasks/deep/er.py") is None
    assert files.broken == {"tasks/stage.py", "tasks/deep/er.py"}
    [link] = [link for link in files.links if not link.holds]
    assert (link.name, link.status) == ("folder project/tasks", "missing")
    assert "git fetch --unshallow" in link.detail
