"""`pawline forget`, from the first look to the record, with a remote that comes and goes."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.commands.forget import forget_command
from lineage import git
from lineage.runs import Project
from registry import ledger, signing
from tasks.params import check_params
from tasks.raw import read_shard
from tasks.stage import PawlineError
from tests.registry.test_holders import a_photo
from tests.registry.test_places import add_remote
from tests.registry.test_retention import register


def state(root: Path) -> list[Any]:
    """The refs, the parameters, and the files there are; but for DVC's and our locks."""
    files = {path for path in root.rglob("*") if path.is_file() and "tmp" not in path.relative_to(root).parts}
    return [git.git(root, "for-each-ref"), (root / "params.yaml").read_bytes(), files]


def decided(root: Path) -> list[dict[str, Any]]:
    return [decision.details for decision in ledger.load(root).decisions]


def test_a_photo_is_forgotten_everywhere_and_for_good(
    three_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "tag", "classifier@v1.0.0", "HEAD~1"], check=True)
    shutil.copytree(".dvc/cache/files", tmp_path / "unplugged/files")
    add_remote(three_runs, "backup", tmp_path / "backup")
    photo = a_photo(split="train")
    raw = Path("data/raw/raw-00000.parquet").read_bytes()
    before = state(three_runs)
    forget_command([photo.id[:6]], dry_run=True)
    shown = capsys.readouterr().out
    assert shown.startswith(f"photo {photo.id[:12]}  {photo.path}\n")
    assert "trained on it, to be retrained: v1.0.0, workspace, commit " in shown
    assert f"the remote backup cannot be reached: {tmp_path / 'backup'} is not there" in shown
    holders = "data/features, data/raw, data/tfrecords, reports/index.html"
    assert re.search(rf"from DVC's cache: \d\.\d MB in \d+ objects of {holders}$", shown, re.MULTILINE)
    assert state(three_runs) == before

    with pytest.raises(typer.Exit) as ended:
        forget_command([photo.id], reason="request 17", yes=True)
    assert ended.value.exit_code == 1
    output = capsys.readouterr()
    assert "not finished: run it again when backup can be reached" in output.err
    assert "trained on it, to be replaced: v1.0.0" in output.out
    assert check_params(Path("params.yaml")).data.forget == (photo.id,)
    assert not Path("data/raw/raw-00000.parquet").exists()
    assert decided(three_runs)[0]["unreachable"] == ["backup"]

    (tmp_path / "unplugged").rename(tmp_path / "backup")
    forget_command([photo.id], yes=True)
    assert "from the remote backup: " in capsys.readouterr().out
    assert decided(three_runs)[1] == decided(three_runs)[0] | {"unreachable": []}
    forget_command([photo.id])
    assert "\nforgotten since 20" in capsys.readouterr().out
    assert len(decided(three_runs)) == 2

    Path("data/raw/raw-00000.parquet").write_bytes(raw)
    forget_command([photo.id], yes=True)
    assert not Path("data/raw/raw-00000.parquet").exists()
    check_the_signature(three_runs, tmp_path)
    again = subprocess.run(["dvc", "repro", "ingest"], check=True, capture_output=True, text=True)
    assert "1 left out by data.forget, in data/raw" in again.stdout
    assert photo.path not in {record.path for record in read_shard(Path("data/raw/raw-00000.parquet"))}
    forget_command([photo.id])
    assert "nothing that can be reached holds any of it" in capsys.readouterr().out
    assert len(decided(three_runs)) == 3


def check_the_signature(root: Path, tmp_path: Path) -> None:
    book = ledger.load(root)
    for name in ("decisions/0003.json", "decisions/0003.sig", f"keys/{book.keys[0]}.pem"):
        (tmp_path / Path(name).name).write_bytes(book.read(name) or b"")
    signing.verify_file(tmp_path / "0003.json", tmp_path / "0003.sig", tmp_path / f"{book.keys[0]}.pem")


def test_a_dry_run_finishes_no_decision_that_was_interrupted(one_run: Path) -> None:
    register(Project(one_run), "v1.0.0", git.find_commit(one_run, "HEAD") or "")
    subprocess.run(["git", "tag", "--delete", "classifier@v1.0.0"], check=True)
    before = state(one_run)
    forget_command([a_photo(split="train").id], dry_run=True)
    assert state(one_run) == before


def test_without_what_a_record_needs_nothing_is_deleted(
    three_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = a_photo(split="train")
    monkeypatch.setenv(signing.KEY_VARIABLE, str(tmp_path / "nobodys.pem"))
    with pytest.raises(PawlineError, match=r"there is no .*nobodys\.pem"):
        forget_command([photo.id], yes=True)
    shutil.rmtree(".git")
    with pytest.raises(PawlineError, match="there is no git repository with a commit here"):
        forget_command([photo.id], yes=True)
    assert Path("data/raw/raw-00000.parquet").exists()
    assert check_params(Path("params.yaml")).data.forget == ()
