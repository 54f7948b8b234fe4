"""Stage 1: the head moves, the backbone does not."""

import json
from pathlib import Path

import numpy as np
import pytest

from tasks import heads, keras_files
from tasks.stage import PawlineError
from tasks.train_head import output_for, train_head
from tests.tasks.conftest import TRAIN_HEAD, Run, changed


def test_outputs(small_run: Run) -> None:
    names = {path.name for path in small_run.stage1_dir.iterdir()}
    assert names == {"head.keras", "epochs.csv", "batches.csv", "summary.json"}
    summary = json.loads((small_run.stage1_dir / "summary.json").read_text())
    manifest = json.loads((small_run.features_dir / "manifest.json").read_text())
    assert (summary["labels"], summary["output"]) == (["cat", "dog"], "sigmoid")
    assert summary["witness"]["frozen_tensors"] == 260
    assert summary["witness"]["before"] == summary["witness"]["after"] == manifest["backbone_digest"]
    assert len((small_run.stage1_dir / "epochs.csv").read_text().splitlines()) == 1 + TRAIN_HEAD.epochs


def test_the_head_moved(small_run: Run) -> None:
    head = keras_files.load_model(small_run.stage1_dir / "head.keras")
    untrained = heads.build_head(1280, 2, output="sigmoid", dropout=TRAIN_HEAD.dropout, seed=TRAIN_HEAD.seed)
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
        if "boundary" not in path.name:
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
    assert output_for("softmax", 2) == "softmax"
    with pytest.raises(PawlineError, match=r"^train_head\.output is 'sigmoid': there are 3 classes; choose auto or"):
        output_for("sigmoid", 3)
