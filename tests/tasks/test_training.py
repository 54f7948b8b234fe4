"""The training loop: resumed exactly, best epoch kept, no silent divergence."""

from pathlib import Path

import numpy as np
import pytest

from tasks import heads, optimization, training
from tasks.feature_store import FeatureSplit, shard_name
from tasks.quiet_tf import Model
from tasks.stage import PawlineError
from tasks.training import History, Schedule, train

SCHEDULE = Schedule(epochs=3, batch_size=8, seed=5)


def write_split(folder: Path, split: str, images: int, *, views: int = 2) -> FeatureSplit:
    rng = np.random.default_rng([images, views])
    labels = rng.integers(0, 2, images)
    pooled = rng.normal(size=(images, views, 6)).astype(np.float32) + labels[:, None, None]
    np.save(folder / shard_name(split, 0, "pooled"), pooled)
    np.save(folder / shard_name(split, 0, "labels"), labels)
    return FeatureSplit(folder, split, "pooled")


@pytest.fixture
def train_split(tmp_path: Path) -> FeatureSplit:
    return write_split(tmp_path, "train", 30)


@pytest.fixture
def val_split(tmp_path: Path) -> FeatureSplit:
    return write_split(tmp_path, "val", 20, views=1)


def fresh_head(learning_rate: float = 0.1) -> Model:
    head = heads.build_head(6, 2, output="sigmoid", dropout=0.5, seed=1)
    optimization.compile_model(head, learning_rate=learning_rate)
    return head


def scratch_in(folder: Path, name: str) -> Path:
    scratch = folder / name
    scratch.mkdir()
    return scratch


def test_an_interrupted_run_ends_with_the_same_bytes(
    tmp_path: Path, train_split: FeatureSplit, val_split: FeatureSplit
) -> None:
    whole = fresh_head()
    expected = train(whole, train_split, val_split, SCHEDULE, scratch=scratch_in(tmp_path, "whole"), what="x")
    scratch = scratch_in(tmp_path, "interrupted")
    train(fresh_head(), train_split, val_split, SCHEDULE._replace(epochs=1), scratch=scratch, what="x")
    resumed = fresh_head()
    history = train(resumed, train_split, val_split, SCHEDULE, scratch=scratch, what="x")
    assert history == expected
    assert [weight.tobytes() for weight in resumed.get_weights()] == [w.tobytes() for w in whole.get_weights()]
    state = [np.asarray(value).tobytes() for value in resumed.optimizer.variables]
    assert state == [np.asarray(value).tobytes() for value in whole.optimizer.variables]
    assert int(resumed.optimizer.iterations) == 3 * 4  # 30 images in batches of 8


def test_a_finished_run_is_not_trained_further(
    tmp_path: Path, train_split: FeatureSplit, val_split: FeatureSplit
) -> None:
    scratch = scratch_in(tmp_path, "scratch")
    first = fresh_head()
    train(first, train_split, val_split, SCHEDULE, scratch=scratch, what="x")
    second = fresh_head()
    train(second, train_split, val_split, SCHEDULE, scratch=scratch, what="x")
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


def test_rows_count_every_image_once(tmp_path: Path, train_split: FeatureSplit, val_split: FeatureSplit) -> None:
    history = train(fresh_head(), train_split, val_split, SCHEDULE, scratch=scratch_in(tmp_path, "s"), what="x")
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3]
    assert [row["step"] for row in history.batches] == list(range(1, 13))
    assert [row["images"] for row in history.batches] == [8, 8, 8, 6] * 3
    of_first = history.batches[:4]
    assert history.epochs[0]["loss"] == pytest.approx(sum(row["loss"] * row["images"] for row in of_first) / 30)


def test_the_best_epoch_is_kept(tmp_path: Path, train_split: FeatureSplit, val_split: FeatureSplit) -> None:
    head = fresh_head(learning_rate=30.0)  # so high that the epochs differ
    schedule = SCHEDULE._replace(epochs=8)
    history = train(head, train_split, val_split, schedule, scratch=scratch_in(tmp_path, "s"), what="x")
    assert history.best is not history.epochs[-1]
    kept = training.evaluate_split(head, val_split)
    assert kept == {key: history.best[key] for key in ("val_loss", "val_accuracy")}


def test_best_is_accuracy_then_loss_then_the_earlier() -> None:
    rows = [(0.8, 0.5), (0.9, 0.4), (0.9, 0.3), (0.9, 0.3), (0.7, 0.1)]
    history = History([{"val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in rows])
    assert history.best is history.epochs[2]


def test_the_seed_decides(tmp_path: Path, train_split: FeatureSplit, val_split: FeatureSplit) -> None:
    histories = [
        train(fresh_head(), train_split, val_split, SCHEDULE._replace(seed=s), scratch=scratch_in(tmp_path, n), what="")
        for s, n in ((5, "a"), (5, "b"), (6, "c"))
    ]
    assert histories[0] == histories[1] != histories[2]


def test_a_loss_that_is_no_number(tmp_path: Path, train_split: FeatureSplit, val_split: FeatureSplit) -> None:
    scratch = scratch_in(tmp_path, "s")
    with pytest.raises(PawlineError, match=r"^stage: the loss is nan at epoch 1, batch 2: lower its learning_rate$"):
        train(fresh_head(np.inf), train_split, val_split, SCHEDULE, scratch=scratch, what="stage")
    one_batch = SCHEDULE._replace(batch_size=30)
    with pytest.raises(PawlineError, match=r"^stage: the validation loss is nan after epoch 1: lower its learning_r"):
        train(fresh_head(np.inf), train_split, val_split, one_batch, scratch=scratch, what="stage")
    assert list(scratch.iterdir()) == []


def test_evaluation_over_portions(tmp_path: Path, val_split: FeatureSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    head = fresh_head()
    at_once = training.evaluate_split(head, val_split)
    monkeypatch.setattr(training, "EVALUATION_BATCH_SIZE", 7)
    assert training.evaluate_split(head, val_split) == pytest.approx(at_once, abs=1e-6)
    probs = training.predict_split(head, val_split)[:, 0]
    labels = val_split.labels
    assert at_once["val_loss"] == pytest.approx(-np.log(np.where(labels, probs, 1 - probs)).mean(), abs=1e-6)
    assert at_once["val_accuracy"] == pytest.approx(((probs > 0.5) == labels).mean())


def test_curves(tmp_path: Path) -> None:
    history = History([{"epoch": 1, "loss": 1 / 3}, {"epoch": 2, "loss": 0.25}], [{"step": 1, "loss": 2.0}])
    training.write_curves(history, tmp_path)
    assert (tmp_path / "epochs.csv").read_bytes() == b"epoch,loss\n1,0.333333\n2,0.25\n"
    assert (tmp_path / "batches.csv").read_bytes() == b"step,loss\n1,2.0\n"
