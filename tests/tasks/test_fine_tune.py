"""Stage 2: what must move moves, what must not does not by a bit, and stage 1 stays when it is better."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import backbones, keras_files, model
from tasks.backbone import read_weights
from tasks.fine_tune import FineTuneInputs, fine_tune
from tasks.stage import SEAL, PawlineError
from tests.conftest import ROOT
from tests.tasks.conftest import FINE_TUNE, UNFROZEN_LAYERS, Run, changed

FIRST_UNFROZEN = "block_13_project_BN"  # the last 30 layers of 154 begin there


def run_stage(small_run: Run, folder: Path, stage1_dir: Path | None = None, **values: object) -> dict[str, Any]:
    unfrozen_layers = values.get("unfrozen_layers", UNFROZEN_LAYERS)
    features_dir = small_run.features_dir
    if unfrozen_layers != UNFROZEN_LAYERS:
        features_dir = folder / "features"
        features_cut_for(small_run, features_dir, unfrozen_layers)
    fine_tune(
        inputs=FineTuneInputs(features_dir, stage1_dir or small_run.stage1_dir, small_run.backbone_dir),
        stage2_dir=folder / "stage2",
        classifier_out=folder / "classifier.keras",
        params=changed(FINE_TUNE, **values),
    )
    summary: dict[str, Any] = json.loads((folder / "stage2" / "summary.json").read_text())
    return summary


def features_cut_for(small_run: Run, features_dir: Path, unfrozen_layers: object) -> None:
    """The features as another spelling of the same layers, or none (0 and 0.001), would have left them."""
    shutil.copytree(small_run.features_dir, features_dir, ignore=shutil.ignore_patterns(SEAL))
    manifest = json.loads((features_dir / "manifest.json").read_text())
    manifest["unfrozen_layers"] = unfrozen_layers
    if unfrozen_layers in (0, 0.001):
        manifest["boundary"] = None
        for path in features_dir.glob("*-boundary.npy"):
            path.unlink()
    (features_dir / "manifest.json").write_text(json.dumps(manifest))


def figures_of(folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((folder / "stage2" / "metrics.json").read_text())
    return figures


def test_only_the_last_layers_moved(small_run: Run) -> None:
    before = read_weights(small_run.backbone_dir / "weights.h5")
    backbone = backbones.build_backbone("MobileNetV2", 96)
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
    assert (summary["unfrozen_layers"], summary["first_unfrozen"]) == (UNFROZEN_LAYERS, FIRST_UNFROZEN)
    assert (summary["epochs"], summary["stopped"]) == (FINE_TUNE.epochs, "all epochs")
    classifier = keras_files.load_model(small_run.classifier_path)
    assert classifier.input_shape == (None, 96, 96, 3)
    assert classifier.output_shape == (None, 1)


def test_a_stage_2_that_is_no_better_is_discarded(
    small_run: Run, workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stage1_dir = workdir / "stage1"
    shutil.copytree(small_run.stage1_dir, stage1_dir, ignore=shutil.ignore_patterns(SEAL))
    stage1 = json.loads((stage1_dir / "summary.json").read_text())
    stage1["best"] |= {"val_accuracy": 1.0, "val_loss": 0.0}  # not to be beaten
    (stage1_dir / "summary.json").write_text(json.dumps(stage1))
    summary = run_stage(small_run, workdir, stage1_dir)
    assert summary["selected"] == "stage1"
    assert figures_of(workdir) == {"selected": "stage1", "val_accuracy": 1.0, "val_loss": 0.0}
    assert "stage 2 is discarded, stage 1 is kept" in caplog.text
    classifier = keras_files.load_model(workdir / "classifier.keras")
    before = read_weights(small_run.backbone_dir / "weights.h5")
    in_classifier = {v.path: v.numpy() for v in classifier.weights if v.path in before}
    assert in_classifier.keys() == before.keys()
    assert all(np.array_equal(value, before[path]) for path, value in in_classifier.items())
    head = keras_files.load_model(small_run.stage1_dir / "head.keras")
    kernel = classifier.get_layer("head").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(kernel, head.get_weights(), strict=True))


def test_a_stage_2_that_is_better_is_selected(small_run: Run, workdir: Path) -> None:
    stage1_dir = workdir / "stage1"
    shutil.copytree(small_run.stage1_dir, stage1_dir, ignore=shutil.ignore_patterns(SEAL))
    stage1 = json.loads((stage1_dir / "summary.json").read_text())
    stage1["best"] |= {"val_accuracy": 0.0}
    (stage1_dir / "summary.json").write_text(json.dumps(stage1))
    summary = run_stage(small_run, workdir, stage1_dir)
    assert summary["selected"] == "stage2"
    best: dict[str, float] = summary["best"]
    expected = {name: pytest.approx(best[name], rel=1e-5) for name in ("val_accuracy", "val_loss")}
    assert figures_of(workdir) == {"selected": "stage2"} | expected


@pytest.mark.parametrize("unfrozen_layers", [0, 0.001])
def test_no_layers_no_stage_2(
    small_run: Run, workdir: Path, caplog: pytest.LogCaptureFixture, unfrozen_layers: float
) -> None:
    caplog.set_level("INFO")
    summary = run_stage(small_run, workdir, unfrozen_layers=unfrozen_layers)
    assert (summary["best"], summary["selected"], summary["witness"]) == (None, "stage1", None)
    assert summary["unfrozen_layers"] == 0
    assert {path.name for path in (workdir / "stage2").iterdir()} == {
        "metrics.json",
        "summary.json",
        "environment.json",
        "digests.json",
    }
    stage1 = json.loads((small_run.stage1_dir / "metrics.json").read_text())
    assert figures_of(workdir) == {"selected": "stage1"} | {name: stage1[name] for name in ("val_accuracy", "val_loss")}
    expected = (small_run.stage1_dir / "classifier.keras").read_bytes()
    assert (workdir / "classifier.keras").read_bytes() == expected
    assert "fine_tune: no layer to unfreeze" in caplog.text


def test_no_layers_no_tensorflow(small_run: Run, workdir: Path) -> None:
    features_cut_for(small_run, workdir / "features", 0)
    (workdir / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("layers: 100", "layers: 0"))
    models = small_run.models_dir
    paths = ["--features-dir=features", f"--stage1-dir={models}/stage1", f"--backbone-dir={models}/backbone"]
    paths += ["--stage2-dir=stage2", "--classifier-out=classifier.keras"]
    code = f"import sys; from tasks.fine_tune import main; main({paths}); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (workdir / "classifier.keras").exists()


def test_features_that_were_cut_elsewhere(small_run: Run, workdir: Path) -> None:
    features_cut_for(small_run, workdir / "features", 31)
    with pytest.raises(PawlineError, match=r"unfrozen_layers is 30, and features was made for 31: run `dvc repro`"):
        fine_tune(
            inputs=FineTuneInputs(Path("features"), small_run.stage1_dir, small_run.backbone_dir),
            stage2_dir=Path("stage2"),
            classifier_out=Path("classifier.keras"),
            params=FINE_TUNE,
        )
    assert not Path("stage2").exists()


def test_options_reach_the_training_of_the_tail(small_run: Run, workdir: Path) -> None:
    """The share of the layers among them, which means the last 30."""
    options: dict[str, Any] = {
        "optimizer": "rmsprop",
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "label_smoothing": 0.2,
    }
    options |= {"unfrozen_layers": UNFROZEN_LAYERS / 154, "epochs": 2, "class_weights": "balanced"}
    summary = run_stage(small_run, workdir, **options)
    expected = json.loads((small_run.stage2_dir / "summary.json").read_text())
    rows = list(csv.DictReader((workdir / "stage2" / "batches.csv").open(encoding="utf-8")))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == 0.0
    assert max(rates) == rates[len(rates) // 2] == FINE_TUNE.learning_rate
    assert 0 < rates[-1] < 0.2 * FINE_TUNE.learning_rate
    assert (summary["epochs"], summary["first_unfrozen"]) == (2, FIRST_UNFROZEN)
    assert summary["best"] != expected["best"]
    of_layers = ("boundary", "unfrozen_layers", "first_unfrozen", "witness")
    assert {name: summary[name] for name in of_layers} == {name: expected[name] for name in of_layers}


def test_another_run_gives_the_same_tensors_and_figures(small_run: Run, workdir: Path) -> None:
    """The first layer's name means what their number means.

    The bytes of .keras files depend on how many layers the process has made: see test_keras_files.
    """
    run_stage(small_run, workdir, unfrozen_layers=FIRST_UNFROZEN)
    for name in ("summary.json", "metrics.json", "epochs.csv", "batches.csv"):
        assert (workdir / "stage2" / name).read_bytes() == (small_run.stage2_dir / name).read_bytes()
    pairs = [
        (workdir / "classifier.keras", small_run.classifier_path),
        (workdir / "stage2" / "tail.keras", small_run.stage2_dir / "tail.keras"),
    ]
    for again, first in pairs:
        weights = (keras_files.load_model(path).get_weights() for path in (again, first))
        assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
