"""The exports answer like the classifier; what does not is not written."""

import json
from pathlib import Path

import numpy as np
import pytest

from tasks import export as export_module
from tasks import keras_files, records
from tasks.export import export
from tasks.stage import PawlineError
from tests.tasks.conftest import Run


def test_outputs(small_run: Run) -> None:
    names = {path.name for path in small_run.export_dir.iterdir()}
    assert names == {"classifier.keras", "classifier.h5", "labels.txt", "export.json"}
    assert (small_run.export_dir / "labels.txt").read_bytes() == b"cat\ndog\n"
    facts = json.loads((small_run.export_dir / "export.json").read_text())
    assert facts["images"] == records.split_sizes(small_run.tfrecords_dir)["val"]
    for name, fact in facts["formats"].items():
        assert fact["bytes"] == (small_run.export_dir / name).stat().st_size
        assert fact["max_difference"] <= facts["tolerance"] == 1e-5


def test_each_format_answers_like_the_classifier(small_run: Run) -> None:
    images = next(records.read_shard(records.shard_paths(small_run.tfrecords_dir, "test")[0])).images
    expected = keras_files.load_model(small_run.classifier_path).predict_on_batch(images)
    assert np.ptp(expected) > 0.01  # the pictures are told apart: equality would not be by chance
    for name in ("classifier.keras", "classifier.h5"):
        replayed = keras_files.load_model(small_run.export_dir / name).predict_on_batch(images)
        np.testing.assert_allclose(replayed, expected, atol=1e-6)


def test_an_export_that_differs_is_not_written(small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "TOLERANCE", -1.0)  # nothing is that equal
    with pytest.raises(
        PawlineError, match=r"^export: classifier\.keras differs by 0 from the classifier; not written$"
    ):
        export(
            classifier_path=small_run.classifier_path,
            tfrecords_dir=small_run.tfrecords_dir,
            export_dir=tmp_path / "export",
        )
    assert list(tmp_path.iterdir()) == []
