"""How long each export takes."""

import json
import shutil
from pathlib import Path

import pytest

from tasks.stage import PawlineError
from tasks.time_exports import time_exports
from tests.tasks.export.exports import small_exports_made


def test_every_export_is_timed(shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.time_exports.TIMED_CALLS", 3)
    export_dir = small_exports_made(shared_folder) / "first"
    time_exports(export_dir=export_dir, out=tmp_path / "latencies.json")
    latencies = json.loads((tmp_path / "latencies.json").read_text())
    assert sorted(latencies) == sorted(json.loads((export_dir / "export.json").read_text())["formats"])
    assert all(0.01 < latency < 5000 for latency in latencies.values())


def test_an_export_that_is_missing(shared_folder: Path, tmp_path: Path) -> None:
    export_dir = tmp_path / "export"
    shutil.copytree(small_exports_made(shared_folder) / "first", export_dir)
    (export_dir / "classifier.onnx").unlink()
    with pytest.raises(
        PawlineError, match=r"classifier\.onnx is missing: `dvc checkout .*export` or `dvc repro export`"
    ):
        time_exports(export_dir=export_dir, out=tmp_path / "latencies.json")
    assert not (tmp_path / "latencies.json").exists()
