"""`pawline gc` shows what goes and for whom the rest stays, asks, and frees."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from flows.commands.gc import gc_command


def test_it_shows_and_asks_before_it_frees(
    three_runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "tag", "classifier@v1.0.0", "HEAD~1"], check=True)
    before = sorted(Path(".dvc/cache/files").rglob("*"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    gc_command()
    shown = capsys.readouterr().out
    assert "v1.0.0 needs " in shown
    assert "workspace, master needs " in shown
    assert "models/stage1 of commit " in shown
    assert "'First run'" in shown
    assert shown.endswith("nothing was deleted\n")
    assert sorted(Path(".dvc/cache/files").rglob("*")) == before
    gc_command(yes=True)
    assert "\nfreed 3" in capsys.readouterr().out
    assert set(Path(".dvc/cache/files").rglob("*")) < set(before)
    gc_command()
    assert capsys.readouterr().out.endswith("nothing to free: everything there is needed\n")
