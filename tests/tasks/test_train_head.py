"""Stage 1: the head moves, the backbone does not."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import heads, keras_files
from tasks.heads import Output
from tasks.stage import SEAL, PawlineError
from tasks.train_head import output_for, train_head
from tests.tasks.conftest import TRAIN_HEAD, Run, changed


def test_outputs(small_run: Run) -> None:
    names = {path.name for path in small_run.stage1_dir.iterdir()}
    assert names == {
        "head.keras",
        "classifier.keras",
        "epochs.csv",
        "batches.csv",
        "metrics.json",
        "summary.json",
        "environment.json",
        "digests.json",
    }
    summary = json.loads((small_run.stage1_dir / "summary.json").read_text())
    manifest = json.loads((small_run.features_dir / "manifest.json").read_text())
    assert (summary["labels"], summary["output"]) == (["cat", "dog"], "sigmoid")
    assert summary["witness"]["frozen_tensors"] == 260
    assert summary["witness"]["before"] == summary["witness"]["after"] == manifest["backbone_digest"]
    assert (summary["epochs"], summary["stopped"]) == (TRAIN_HEAD.epochs, "all epochs")
    rows = list(csv.DictReader((small_run.stage1_dir / "epochs.csv").open(encoding="utf-8")))
    assert len(rows) == TRAIN_HEAD.epochs
    figures = json.loads((small_run.stage1_dir / "metrics.json").read_text())
    assert figures.keys() == {"epoch", "accuracy", "loss", "val_accuracy", "val_loss"}
    assert figures == {name: float(rows[summary["best"]["epoch"] - 1][name]) for name in figures}


def test_options_reach_the_head_and_its_training(
    small_run: Run, workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    options: dict[str, Any] = {"hidden_units": [16, 4], "activation": "tanh", "dropout": 0.1, "output": "logit"}
    options |= {"optimizer": "sgd", "schedule": "cosine", "stop_patience": 1, "monitor": "val_accuracy", "epochs": 9}
    train_head(
        features_dir=small_run.features_dir,
        backbone_dir=small_run.backbone_dir,
        stage1_dir=workdir / "stage1",
        params=changed(TRAIN_HEAD, **options),
    )
    head = keras_files.load_model(workdir / "stage1" / "head.keras")
    assert [weight.shape for weight in head.get_weights()][::2] == [(1280, 16), (16, 4), (4, 1)]
    summary = json.loads((workdir / "stage1" / "summary.json").read_text())
    assert (summary["output"], summary["stopped"]) == ("logit", "patience")
    rows = list(csv.DictReader((workdir / "stage1" / "batches.csv").open(encoding="utf-8")))
    assert int(rows[-1]["epoch"]) == summary["epochs"] < 9
    assert float(rows[0]["learning_rate"]) == 0.001 > float(rows[1]["learning_rate"])
    assert f"stopped after epoch {summary['epochs']} of 9: val_accuracy got no better for 1 epoch\n" in caplog.text


def test_the_head_moved(small_run: Run) -> None:
    head = keras_files.load_model(small_run.stage1_dir / "head.keras")
    untrained = heads.build_head(1280, 2, TRAIN_HEAD, output="sigmoid")
    assert not any(np.array_equal(a, b) for a, b in zip(head.get_weights(), untrained.get_weights(), strict=True))


def test_the_same_inputs_give_the_same_bytes(small_run: Run, workdir: Path) -> None:
    train_head(
        features_dir=small_run.features_dir,
        backbone_dir=small_run.backbone_dir,
        stage1_dir=workdir / "stage1",
        params=TRAIN_HEAD,
    )
    for path in small_run.stage1_dir.iterdir():
        assert (workdir / "stage1" / path.name).read_bytes() == path.read_bytes(), path.name


def test_features_of_another_backbone_are_refused(small_run: Run, workdir: Path) -> None:
    features_dir = workdir / "features"
    features_dir.mkdir()
    for path in small_run.features_dir.iterdir():
        if "boundary" not in path.name and path.name != SEAL:
            (features_dir / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((features_dir / "manifest.json").read_text()) | {"backbone_digest": "0" * 64}
    (features_dir / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PawlineError, match="is of other weights than models/backbone"):
        train_head(
            features_dir=features_dir,
            backbone_dir=small_run.backbone_dir,
            stage1_dir=workdir / "stage1",
            params=changed(TRAIN_HEAD, epochs=1),
        )
    assert not (workdir / "stage1").exists()


def test_output_for() -> None:
    assert [output_for("auto", classes) for classes in (2, 3)] == ["sigmoid", "softmax"]
    assert [output_for(output, 2) for output in ("sigmoid", "logit", "softmax")] == ["sigmoid", "logit", "softmax"]
    assert output_for("softmax", 3) == "softmax"


@pytest.mark.parametrize("output", ["sigmoid", "logit"])
def test_one_unit_is_too_few_for_three_classes(output: Output) -> None:
    with pytest.raises(PawlineError, match=rf"^train_head\.output is '{output}': there are 3 classes; choose auto or"):
        output_for(output, 3)
