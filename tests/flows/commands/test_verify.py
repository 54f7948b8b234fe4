"""`pawline verify` as it is typed: what its advice and `--fetch` really do."""

import re
import shutil
from pathlib import Path

import pytest
import typer

from flows.commands.verify import verify_command
from lineage.lockfile import FOLDER_SUFFIX
from tests.flows.commands.test_push import forget
from tests.kept_runs import keep_run, make_project, md5_of


def test_what_is_missing_is_fetched_as_the_advice_says_and_what_was_forgotten_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    project = make_project(tmp_path / "here", "far")
    (project.root / "dvc.yaml").touch()
    monkeypatch.chdir(project.root)
    version = keep_run(project, {"raw": {"a": b"photos", "b": b"the photo"}, "page.html": b"a page"}, "v1.0.0")
    project.store.push_outputs(project.lock(version), "far", ())
    keep_run(project, {"raw": {"a": b"other photos"}}, "v2.0.0")
    forget(project, b"the photo")
    shutil.rmtree(project.root / ".dvc/cache")

    with pytest.raises(typer.Exit):  # there is no stage in dvc.yaml either
        verify_command("v1")
    said = capsys.readouterr().out
    assert set(re.findall(r"  MISSING     (\S+): `(.*)`", said)) == {
        ("raw", "pawline verify v1.0.0 --fetch"),
        ("page.html", "pawline verify v1.0.0 --fetch"),
    }
    with pytest.raises(typer.Exit):
        verify_command("v1.0.0", fetch=True)
    said = capsys.readouterr().out
    assert "MISSING" not in said
    assert "  FORGOTTEN   raw/b: deleted by decision 1" in said
    fetched = {
        path.parent.name + path.name for path in (project.root / ".dvc/cache/files").rglob("*") if path.is_file()
    }
    assert {md5 for md5 in fetched if not md5.endswith(FOLDER_SUFFIX)} == {md5_of(b"photos"), md5_of(b"a page")}
