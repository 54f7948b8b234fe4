"""The evaluation: two paths to the same probabilities, and figures that follow from the predictions."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks import calibration, metrics, records
from tasks.evaluate import predict
from tasks.fine_tune import FineTuneInputs, fine_tune
from tasks.runtimes import openvino_core
from tasks.stage import SEAL
from tasks.train_head import train_head
from tests.tasks.conftest import (
    FEATURES,
    FINE_TUNE,
    TRAIN_HEAD,
    UNFROZEN_LAYERS,
    Run,
    changed,
    make_evaluation,
    make_features,
)


def figures(run: Run) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(run.evaluation_path.read_text())
    return values


def test_end_to_end_is_the_cached_path_in_float32(small_run: Run) -> None:
    assert 0 < figures(small_run)["end_to_end_max_difference"] < 1e-3


def test_end_to_end_equals_the_cached_path_though_training_is_in_bfloat16(small_run: Run, workdir: Path) -> None:
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16: OpenVINO does not list BF16")
    run = Run(workdir)
    make_features(small_run, run.features_dir, changed(FEATURES, precision="bfloat16"), UNFROZEN_LAYERS)
    shutil.copytree(small_run.models_dir, run.models_dir)
    make_evaluation(small_run, run)
    assert figures(run)["end_to_end_max_difference"] < 1e-3  # evaluation images go through in float32


def test_end_to_end_is_the_cached_path_for_a_softmax(small_run: Run, workdir: Path) -> None:
    """For a logit: test_other_backbones.py."""
    run = Run(workdir)
    shutil.copytree(small_run.features_dir, run.features_dir)
    train_head(
        features_dir=run.features_dir,
        backbone_dir=small_run.backbone_dir,
        stage1_dir=run.stage1_dir,
        params=changed(TRAIN_HEAD, output="softmax", hidden_units=(8,)),
    )
    fine_tune(
        inputs=FineTuneInputs(run.features_dir, run.stage1_dir, small_run.backbone_dir),
        stage2_dir=run.stage2_dir,
        classifier_out=run.classifier_path,
        params=FINE_TUNE,
    )
    make_evaluation(small_run, run)
    assert figures(run)["end_to_end_max_difference"] < 1e-3
    check_stages(run)
    table = pq.read_table(run.predictions_path).to_pydict()
    probs = np.array(table["probabilities"])
    assert probs.shape == (len(table["id"]), 2)
    assert ((probs > 0) & (probs < 1)).all()
    assert np.ptp(probs) > 0.01


def test_figures_follow_from_the_predictions(small_run: Run) -> None:
    table = pq.read_table(small_run.predictions_path).to_pydict()
    evaluation = figures(small_run)
    labels = np.array([["cat", "dog"].index(label) for label in table["label"]])
    probs = np.array(table["probabilities"], np.float32)
    assert len(labels) == evaluation["images"] == records.split_sizes(small_run.tfrecords_dir)["test"]
    assert set(table["split"]) == {evaluation["split"]} == {"test"}
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    assert table["probability"] == pytest.approx(probs.max(axis=1).tolist())
    assert table["predicted"] == [["cat", "dog"][index] for index in probs.argmax(axis=1)]
    assert evaluation["accuracy"] == np.mean(np.equal(table["label"], table["predicted"]))
    assert evaluation["auc"] == metrics.auc(labels, probs)
    assert evaluation["loss"] == pytest.approx(metrics.cross_entropy(labels, probs))
    scaled = calibration.calibration(labels, probs, evaluation["calibration"]["temperature"])
    assert evaluation["calibration"] == pytest.approx(scaled)
    low, high = evaluation["accuracy_interval"]
    assert low <= evaluation["accuracy"] <= high


def test_each_stage_has_its_figures_and_the_selected_is_the_whole(small_run: Run) -> None:
    check_stages(small_run)


def check_stages(run: Run, stage1: dict[str, Any] | None = None) -> None:
    """Compare what was evaluated with what training said, for stage 1 with another summary where one is given."""
    evaluation = figures(run)
    summaries = {
        name: json.loads((run.models_dir / name / "summary.json").read_text()) for name in ("stage1", "stage2")
    }
    summaries |= {"stage1": stage1} if stage1 else {}
    assert evaluation["selected"] == summaries["stage2"]["selected"]
    assert evaluation[evaluation["selected"]]["accuracy"] == evaluation["accuracy"]
    for name, summary in summaries.items():
        assert evaluation[name]["val"]["accuracy"] == pytest.approx(summary["best"]["val_accuracy"], abs=1e-6)
        assert evaluation[name]["val"]["loss"] == pytest.approx(summary["best"]["val_loss"], abs=1e-4)


def test_the_temperature_is_fitted_on_the_selected_stage_s_validation_answers(small_run: Run) -> None:
    """Seen from outside: it is what the saved classifier's own answers on the validation split give."""
    answers = predict(small_run.classifier_path, small_run.tfrecords_dir, "val")
    fitted = figures(small_run)["calibration"]
    assert fitted["fitted_on"] == "val"
    assert fitted["temperature"] == pytest.approx(calibration.fit_temperature(answers.labels, answers.probs), rel=0.01)


def test_brightness_is_that_of_the_image_the_classifier_sees(small_run: Run) -> None:
    table = pq.read_table(small_run.predictions_path)
    assert table.schema.field("brightness").type == pa.float32()
    shards = records.shard_paths(small_run.tfrecords_dir, "test")
    images = [image for shard in shards for batch in records.read_shard(shard) for image in batch.images]
    grey = [np.asarray(Image.fromarray(image).convert("L"), np.float64).mean() for image in images]
    assert table["brightness"].to_pylist() == pytest.approx(grey, abs=0.6)  # Pillow rounds each pixel
    assert np.ptp(grey) > 5


def test_plots(small_run: Run) -> None:
    rows = list(csv.DictReader((small_run.plots_dir / "confusion.csv").open(encoding="utf-8")))
    table = pq.read_table(small_run.predictions_path).to_pydict()
    assert [(row["actual"], row["predicted"]) for row in rows] == list(
        zip(table["label"], table["predicted"], strict=True)
    )
    roc = list(csv.DictReader((small_run.plots_dir / "roc.csv").open(encoding="utf-8")))
    assert {row["class"] for row in roc} == {"dog"}
    ends = [(row["false_positive_rate"], row["true_positive_rate"]) for row in (roc[0], roc[-1])]
    assert ends == [("0.0", "0.0"), ("1.0", "1.0")]
    thresholds = list(csv.DictReader((small_run.plots_dir / "thresholds.csv").open(encoding="utf-8")))
    probabilities = np.array(table["probability"])
    assert [int(row["answered"]) for row in thresholds] == [
        int((probabilities >= float(row["threshold"])).sum()) for row in thresholds
    ]


def test_without_a_test_split_validation_is_used_and_said(
    small_run: Run, workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    made = Run(workdir / "made")
    shutil.copytree(small_run.tfrecords_dir, made.tfrecords_dir, ignore=shutil.ignore_patterns("*-test.*", SEAL))
    info = json.loads((made.tfrecords_dir / "dataset_info.json").read_text())
    info["splits"] = [split for split in info["splits"] if split["name"] != "test"]
    (made.tfrecords_dir / "dataset_info.json").write_text(json.dumps(info))
    shutil.copytree(small_run.features_dir, made.features_dir, ignore=shutil.ignore_patterns("test-*", SEAL))
    shutil.copytree(small_run.models_dir, made.models_dir)
    make_evaluation(made, made)
    assert figures(made)["split"] == "val"
    assert figures(made)["images"] == records.split_sizes(made.tfrecords_dir)["val"]
    assert "images of val (there is no test split: this split also chose the epoch)" in caplog.text
