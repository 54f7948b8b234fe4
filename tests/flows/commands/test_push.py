"""`pawline push`: every version that can be copied is, and nothing that was forgotten."""

from pathlib import Path

import pytest
import typer

from flows.commands.push import push_command
from lineage.runs import Project
from registry import decisions, ledger
from registry.signing import KEY_VARIABLE
from tests.kept_runs import keep_run, make_project, md5_of


def forget(project: Project, content: bytes) -> None:
    """Put on record that bytes were deleted; a clone may have them still."""
    plan = decisions.Plan("forget", None, None, None, "", details={"ids": [], "objects": [md5_of(content)]})
    with decisions.deciding(project):
        book = ledger.load(project.root)
        decisions.decide(book, plan, decisions.load_key(book))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Three versions, of which nothing was pushed yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    made = make_project(tmp_path / "here", "far")
    (made.root / "dvc.yaml").touch()
    for number in (1, 2, 3):
        keep_run(made, {"raw": {"a": b"%d" % number, "b": b"more of %d" % number}}, f"v{number}.0.0")
    monkeypatch.chdir(made.root)
    return made


def test_a_version_that_is_not_all_here_keeps_no_other_from_the_remote(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.store.object_path(md5_of(b"1")).unlink()
    with pytest.raises(typer.Exit) as ended:
        push_command()
    said = capsys.readouterr()
    assert ended.value.exit_code == 1
    assert said.out.splitlines() == ["v2.0.0: 3 files copied to far", "v3.0.0: 3 files copied to far"]
    assert said.err.startswith("v1.0.0: 1 files are neither in the remote far nor in the cache, such as ")


def test_what_was_forgotten_is_not_missed_and_not_copied_from_a_cache_that_has_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(project, b"1")
    forget(project, b"2")
    project.store.object_path(md5_of(b"1")).unlink()
    capsys.readouterr()
    push_command()
    copied = [f"v{number}.0.0: {count} files copied to far" for number, count in ((1, 2), (2, 2), (3, 3))]
    assert capsys.readouterr().out.splitlines()[:-1] == copied
    assert b"2" not in [path.read_bytes() for path in (project.root.parent / "far").rglob("*") if path.is_file()]
