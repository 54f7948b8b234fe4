"""Stage 2: what must move moves, what must not does not by a bit, and stage 1 stays when it is better."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks import keras_files, model
from tasks.backbone import read_weights
from tasks.fine_tune import fine_tune
from tests.tasks.conftest import FINE_TUNE, UNFROZEN_LAYERS, Run, changed


def run_stage(small_run: Run, folder: Path, stage1_dir: Path | None = None, **values: object) -> dict[str, object]:
    fine_tune(
        features_dir=small_run.features_dir,
        stage1_dir=stage1_dir or small_run.stage1_dir,
        backbone_dir=small_run.backbone_dir,
        stage2_dir=folder / "stage2",
        classifier_out=folder / "classifier.keras",
        params=changed(FINE_TUNE, **values),
    )
    summary: dict[str, object] = json.loads((folder / "stage2" / "summary.json").read_text())
    return summary


def test_only_the_last_layers_moved(small_run: Run) -> None:
    before = read_weights(small_run.backbone_dir / "weights.h5")
    backbone = model.build_backbone("MobileNetV2", 96)
    model.unfreeze(backbone, UNFROZEN_LAYERS)
    trained = {variable.path for variable in backbone.trainable_weights}
    tail = keras_files.load_model(small_run.stage2_dir / "tail.keras")
    in_tail = {v.path: v.numpy() for v in tail.weights if v.path in before}
    assert trained <= in_tail.keys()
    assert {path for path, value in in_tail.items() if not np.array_equal(value, before[path])} == trained
    assert len(trained) == 10
    head = keras_files.load_model(small_run.stage1_dir / "head.keras")
    heads = [v.numpy() for v in tail.weights if v.path.startswith("head/") or v.path.startswith("probabilities/")]
    assert len(heads) == 2
    assert not any(np.array_equal(a, b) for a, b in zip(heads, head.get_weights(), strict=True))


def test_summary_and_classifier(small_run: Run) -> None:
    summary = json.loads((small_run.stage2_dir / "summary.json").read_text())
    assert summary["boundary"] == "block_13_project"
    assert summary["witness"]["frozen_tensors"] == 260 - 10
    assert summary["witness"]["before"] == summary["witness"]["after"]
    classifier = keras_files.load_model(small_run.classifier_path)
    assert classifier.input_shape == (None, 96, 96, 3)
    assert classifier.output_shape == (None, 1)


def test_a_stage_2_that_is_no_better_is_discarded(
    small_run: Run, workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stage1_dir = workdir / "stage1"
    shutil.copytree(small_run.stage1_dir, stage1_dir)
    stage1 = json.loads((stage1_dir / "summary.json").read_text())
    stage1["best"] |= {"val_accuracy": 1.0, "val_loss": 0.0}  # not to be beaten
    (stage1_dir / "summary.json").write_text(json.dumps(stage1))
    summary = run_stage(small_run, workdir, stage1_dir)
    assert summary["selected"] == "stage1"
    assert "stage 2 is discarded, stage 1 is kept" in caplog.text
    classifier = keras_files.load_model(workdir / "classifier.keras")
    before = read_weights(small_run.backbone_dir / "weights.h5")
    in_classifier = {v.path: v.numpy() for v in classifier.weights if v.path in before}
    assert in_classifier.keys() == before.keys()
    assert all(np.array_equal(value, before[path]) for path, value in in_classifier.items())
    head = keras_files.load_model(small_run.stage1_dir / "head.keras")
    kernel = classifier.get_layer("head").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(kernel, head.get_weights(), strict=True))


def test_no_layers_no_stage_2(small_run: Run, workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    summary = run_stage(small_run, workdir, unfrozen_layers=0)
    assert (summary["best"], summary["selected"], summary["witness"]) == (None, "stage1", None)
    assert [path.name for path in (workdir / "stage2").iterdir()] == ["summary.json"]
    assert (workdir / "classifier.keras").exists()
    assert "nothing to unfreeze (fine_tune.unfrozen_layers is 0)" in caplog.text


def test_another_run_gives_the_same_tensors_and_figures(small_run: Run, workdir: Path) -> None:
    """The bytes of .keras files depend on how many layers the process has made: see test_keras_files."""
    run_stage(small_run, workdir)
    for name in ("summary.json", "epochs.csv", "batches.csv"):
        assert (workdir / "stage2" / name).read_bytes() == (small_run.stage2_dir / name).read_bytes()
    pairs = [
        (workdir / "classifier.keras", small_run.classifier_path),
        (workdir / "stage2" / "tail.keras", small_run.stage2_dir / "tail.keras"),
    ]
    for again, first in pairs:
        weights = (keras_files.load_model(path).get_weights() for path in (again, first))
        assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
