"""Training by several at a time: what one process would have learned, whoever dies; and no endless waiting."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import heads, keras_files, strategy, training
from tasks.curves import History
from tasks.fine_tune import FineTuneInputs, fine_tune
from tasks.params import ComputeParams, TrainHeadParams
from tasks.quiet_tf import Model
from tasks.stage import SEAL, PawlineError
from tasks.train_head import train_head
from tests.conftest import ROOT
from tests.tasks.conftest import COMMITTED, FINE_TUNE, TRAIN_HEAD, Run, changed
from tests.tasks.test_training import write_split
from tests.tasks.workers_at_work import free_addresses, tf_config, working

# 30 images in batches of 8: the last one is smaller, and three workers have no equal shares of 8.
TINY = changed(COMMITTED.train_head, epochs=5, batch_size=8, learning_rate=0.05, dropout=0.0, class_weights="balanced")
SMOOTH: dict[str, Any] = {"hidden_units": (4,), "label_smoothing": 0.1, "optimizer": "adamw", "schedule": "plateau"}
SMOOTH |= {"stop_patience": 3}


@pytest.fixture
def tiny(workdir: Path) -> Path:
    """A folder of tiny features."""
    folder = workdir / "features"
    folder.mkdir()
    write_split(folder, "train", 30)
    write_split(folder, "val", 20, views=1)
    return folder


def train_alone(features: Path, params: TrainHeadParams) -> tuple[Model, History]:
    head = heads.build_head(6, 2, params, output="sigmoid")
    splits = training.open_splits(features, "pooled")
    return head, training.train(head, splits, params, output="sigmoid", scratch=None, what="x")


def assert_same_training(out: Path, alone: tuple[Model, History], *, replicas: int) -> None:
    found = json.loads(out.read_text())
    head, history = alone
    assert found["replicas"] == replicas
    for key, rows in (("epochs", history.epochs), ("batches", history.batches)):
        assert len(found[key]) == len(rows)
        for row, expected in zip(found[key], rows, strict=True):
            assert row == pytest.approx(expected, rel=1e-5)
    for weight, expected in zip(found["weights"], head.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-6)


def test_three_workers_learn_what_one_does(tiny: Path, workdir: Path) -> None:
    params = changed(TINY, **SMOOTH)
    (workdir / "params.json").write_text(params.model_dump_json())
    command = ["tests.tasks.tiny_training", str(tiny), "params.json"]
    with working([[*command, f"out{index}.json"] for index in range(3)], workdir) as workers:
        assert [worker.end() for worker in workers] == [0, 0, 0], [worker.said for worker in workers]
    assert [path.name for path in workdir.glob("out*.json")] == ["out0.json"]
    assert not (workdir / ".pawline").exists()
    assert_same_training(workdir / "out0.json", train_alone(tiny, params), replicas=3)


def test_two_devices_learn_what_one_does(tiny: Path, workdir: Path) -> None:
    (workdir / "params.json").write_text(TINY.model_dump_json())
    command = [sys.executable, "-m", "tests.tasks.tiny_training", str(tiny), "params.json", "out.json", "2"]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    assert_same_training(workdir / "out.json", train_alone(tiny, TINY), replicas=2)


def curves(folder: Path, name: str) -> list[dict[str, float]]:
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def params_file(folder: Path, **values: object) -> Path:
    """The committed parameters with others for train_head."""
    sections = COMMITTED.model_dump(mode="json", by_alias=True)
    sections["train_head"] = changed(TRAIN_HEAD, **values).model_dump(mode="json")
    path = folder / "params.yaml"
    path.write_text(json.dumps(sections))  # JSON is YAML
    return path


def test_a_killed_worker_ends_the_training_and_the_next_run_carries_on(small_run: Run, workdir: Path) -> None:
    """By the stage's own command; at the second start the other worker is the one that waits for any stage."""
    options: dict[str, Any] = {"epochs": 60, "dropout": 0.0}
    params_file(workdir, **options)
    train_head(
        features_dir=small_run.features_dir,
        backbone_dir=small_run.backbone_dir,
        stage1_dir=workdir / "alone",
        params=changed(TRAIN_HEAD, **options),
    )
    (workdir / "data").mkdir()
    (workdir / "data/features").symlink_to(small_run.features_dir)
    (workdir / "models").mkdir()
    (workdir / "models/backbone").symlink_to(small_run.backbone_dir)
    with working([["tasks.train_head"], ["tasks.train_head"]], workdir) as (chief, other):
        chief.wait_for("epoch 3 of 60")
        other.process.send_signal(signal.SIGKILL)
        assert chief.end() == 75  # worth another try
        assert chief.said.splitlines()[-1].startswith("error: ")
        assert "was lost" in chief.said
        assert "Traceback" not in chief.said
    assert list((workdir / "models").iterdir()) == [workdir / "models/backbone"]
    with working([["tasks.train_head"], ["tasks.training_worker"]], workdir) as (chief, other):
        assert chief.end() == 0, chief.said + other.said
        other.wait_for("train_head: done")
    carried_on = int(chief.said.partition("carrying on after epoch ")[2].split()[0])
    assert 3 <= carried_on < 60
    assert "epoch 1 of 60" not in chief.said
    assert json.loads((workdir / "models/stage1/summary.json").read_text())["replicas"] == 2
    for name in ("epochs", "batches"):
        for row, expected in zip(curves(workdir / "models/stage1", name), curves(workdir / "alone", name), strict=True):
            assert row == pytest.approx(expected, rel=1e-4)


def test_two_workers_fine_tune_what_one_does(small_run: Run, workdir: Path) -> None:
    """Folded kernels, in float32; the chief alone writes."""
    stage1_dir = workdir / "models/stage1"
    shutil.copytree(small_run.stage1_dir, stage1_dir, ignore=shutil.ignore_patterns(SEAL))
    keras_files.save_model(without_dropout(small_run), stage1_dir / "head.keras")
    options: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.001, "epochs": 2}
    inputs = FineTuneInputs(small_run.features_dir, stage1_dir, small_run.backbone_dir)
    alone = workdir / "alone"
    fine_tune(
        inputs=inputs, stage2_dir=alone, classifier_out=workdir / "alone.keras", params=changed(FINE_TUNE, **options)
    )
    sections = COMMITTED.model_dump(mode="json", by_alias=True)
    sections["fine_tune"] = changed(FINE_TUNE, **options).model_dump(mode="json")
    (workdir / "params.yaml").write_text(json.dumps(sections))
    command = [
        "tasks.fine_tune",
        "--features-dir",
        str(inputs.features_dir),
        "--backbone-dir",
        str(inputs.backbone_dir),
    ]
    with working([command, command], workdir) as workers:
        assert [worker.end() for worker in workers] == [0, 0], [worker.said for worker in workers]
    for name in ("epochs", "batches"):
        for row, expected in zip(curves(workdir / "models/stage2", name), curves(alone, name), strict=True):
            assert row == pytest.approx(expected, rel=1e-3)
    summary = json.loads((workdir / "models/stage2/summary.json").read_text())
    assert (summary["replicas"], summary["witness"]["frozen_tensors"]) == (2, 250)


def without_dropout(small_run: Run) -> Model:
    head = heads.build_head(1280, 2, changed(TRAIN_HEAD, dropout=0.0), output="sigmoid")
    head.set_weights(keras_files.load_model(small_run.stage1_dir / "head.keras").get_weights())
    return head


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("multi_worker", "", r"^compute\.strategy is multi_worker and TF_CONFIG does not list several workers: set it"),
        (
            "mirrored",
            "two",
            r"^compute\.strategy is mirrored and TF_CONFIG lists 2 workers: choose multi_worker or auto",
        ),
        (
            "mirrored",
            "",
            r"^compute\.strategy is mirrored: TensorFlow sees 0 GPUs here, and it takes two; choose auto$",
        ),
    ],
)
def test_a_strategy_that_cannot_be(kind: str, config: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(free_addresses(2), 0) if config else "")
    with pytest.raises(PawlineError, match=message):
        strategy.join(ComputeParams.model_validate({"strategy": kind}), "train_head", TINY)


def test_one_process_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert strategy.join(ComputeParams(strategy="auto"), "train_head", TINY) is None
    with strategy.scope(None):
        head = heads.build_head(6, 2, TINY, output="sigmoid")
    assert strategy.replicas_of(head) is None
    assert strategy.trained_by(head) == {}
