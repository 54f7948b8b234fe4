"""How long each export takes."""

import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from tasks import time_exports as timing
from tasks.export.replay import Replay, open_export
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.tasks.export.exports import small_exports_made


def test_every_export_is_timed_and_nothing_is_left_in_the_users_folders(shared_folder: Path, tmp_path: Path) -> None:
    export_dir, home, out = small_exports_made(shared_folder) / "first", tmp_path / "home", tmp_path / "latencies.json"
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text("{}")  # Keras would write it
    mine = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tasks.time_exports", "--export-dir", str(export_dir), "--out", str(out)]
    subprocess.run(command, cwd=tmp_path, env=os.environ | mine, check=True)
    latencies = json.loads(out.read_text())
    assert sorted(latencies) == sorted(json.loads((export_dir / "export.json").read_text())["formats"])
    assert all(0.01 < latency < 5000 for latency in latencies.values())
    assert sorted(home.rglob("*")) == [home / ".keras", home / ".keras" / "keras.json"]


def test_an_export_is_timed_while_no_other_is_loaded(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Replay]] = []

    def open_one(name: str, path: Path) -> Replay:
        assert [replay for replay in opened if replay() is not None] == []
        replay = open_export(name, path)
        opened.append(weakref.ref(replay))
        return replay

    monkeypatch.setattr(timing, "open_export", open_one)
    timing.time_exports(export_dir=small_exports_made(shared_folder) / "first", out=tmp_path / "latencies.json")
    assert len(opened) == 9


def test_an_export_that_is_missing(shared_folder: Path, tmp_path: Path) -> None:
    export_dir = tmp_path / "export"
    shutil.copytree(small_exports_made(shared_folder) / "first", export_dir)
    (export_dir / "classifier.onnx").unlink()
    with pytest.raises(
        PawlineError, match=r"classifier\.onnx is missing: `dvc checkout .*export` or `dvc repro export`"
    ):
        timing.time_exports(export_dir=export_dir, out=tmp_path / "latencies.json")
    assert not (tmp_path / "latencies.json").exists()
