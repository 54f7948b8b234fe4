"""The training loop: resumed exactly, best epoch kept, options followed, no silent divergence."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import curves, heads, training
from tasks.curves import History
from tasks.feature_store import FeatureSplit, shard_name
from tasks.heads import Output
from tasks.params import TrainHeadParams
from tasks.quiet_tf import Model
from tasks.stage import PawlineError
from tasks.training import Splits, train
from tests.tasks.conftest import COMMITTED, changed

PARAMS = changed(COMMITTED.train_head, epochs=3, batch_size=8, learning_rate=0.1, dropout=0.5, seed=5)
# So fast that most epochs make it worse.
WAVERING: dict[str, Any] = {"epochs": 8, "learning_rate": 1.0, "plateau_patience": 2}


def write_split(folder: Path, split: str, images: int, *, views: int = 2) -> FeatureSplit:
    rng = np.random.default_rng([images, views])
    labels = rng.integers(0, 2, images)
    pooled = rng.normal(size=(images, views, 6)).astype(np.float32) + 0.3 * labels[:, None, None]
    np.save(folder / shard_name(split, 0, "pooled"), pooled)
    np.save(folder / shard_name(split, 0, "labels"), labels)
    return FeatureSplit(folder, split, "pooled")


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    write_split(tmp_path, "train", 30)
    write_split(tmp_path, "val", 20, views=1)
    return training.open_splits(tmp_path, "pooled")


def run(
    splits: Splits, scratch: Path, params: TrainHeadParams = PARAMS, *, output: Output = "sigmoid"
) -> tuple[Model, History]:
    """Train a fresh head."""
    scratch.mkdir(exist_ok=True)
    head = heads.build_head(6, 2, params, output=output)
    return head, train(head, splits, params, output=output, scratch=scratch, what="x")


def as_bytes(variables: list[Any]) -> list[bytes]:
    return [np.asarray(variable).tobytes() for variable in variables]


@contextmanager
def interrupted_after(epoch: int) -> Iterator[None]:
    """Raise what Ctrl-C raises when an epoch's end is logged."""

    class CtrlC(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if f": epoch {epoch} of" in record.getMessage():
                raise KeyboardInterrupt

    handler = CtrlC()
    training.log.addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        training.log.removeHandler(handler)


@pytest.mark.parametrize(
    ("options", "stops_at"),
    [
        ({"epochs": 3, "hidden_units": (4,)}, [1, 2]),
        ({"epochs": 4, "schedule": "cosine", "warmup_epochs": 1.5, "optimizer": "sgd"}, [1, 3]),
        (WAVERING | {"schedule": "plateau", "optimizer": "adamw"}, [5, 6]),
        (WAVERING | {"stop_patience": 3, "monitor": "val_accuracy", "class_weights": "balanced"}, [2, 4]),
        (WAVERING | {"stop_patience": 3, "schedule": "plateau", "optimizer": "rmsprop", "epochs": 12}, [4, 9]),
    ],
    ids=["constant", "cosine", "plateau", "patience", "plateau and patience"],
)
def test_an_interrupted_run_ends_with_the_same_bytes(
    tmp_path: Path, splits: Splits, options: dict[str, Any], stops_at: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    params = changed(PARAMS, **options)
    whole, expected = run(splits, tmp_path / "whole", params)
    for epoch in stops_at:
        with interrupted_after(epoch):
            run(splits, tmp_path / "interrupted", params)
    resumed, history = run(splits, tmp_path / "interrupted", params)
    assert [m for m in caplog.messages if "carrying" in m] == [f"carrying on after epoch {n}" for n in stops_at]
    assert history == expected
    assert as_bytes(resumed.get_weights()) == as_bytes(whole.get_weights())
    assert as_bytes(resumed.optimizer.variables) == as_bytes(whole.optimizer.variables)
    assert int(resumed.optimizer.iterations) == len(history.epochs) * 4  # 30 images in batches of 8
    rates = {row["learning_rate"] for row in history.epochs}
    assert (len(rates) > 1) == ("schedule" in options)
    assert (len(history.epochs) < params.epochs) == ("stop_patience" in options)


@pytest.mark.parametrize("stop_patience", [None, 2])
def test_a_finished_run_is_not_trained_further(tmp_path: Path, splits: Splits, stop_patience: int | None) -> None:
    params = changed(PARAMS, **WAVERING, stop_patience=stop_patience)
    first, history = run(splits, tmp_path / "scratch", params)
    second, again = run(splits, tmp_path / "scratch", params)
    assert again == history
    assert as_bytes(second.get_weights()) == as_bytes(first.get_weights())
    assert second.optimizer.iterations == len(history.epochs) * 4


def test_rows_count_every_image_once(tmp_path: Path, splits: Splits) -> None:
    _, history = run(splits, tmp_path / "s")
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3]
    assert [row["step"] for row in history.batches] == list(range(1, 13))
    assert [row["images"] for row in history.batches] == [8, 8, 8, 6] * 3
    of_first = history.batches[:4]
    assert history.epochs[0]["loss"] == pytest.approx(sum(row["loss"] * row["images"] for row in of_first) / 30)
    right = [row["accuracy"] * row["images"] for row in history.batches]  # of the batch alone: a whole number
    assert right == pytest.approx(np.round(right), abs=1e-4)


@pytest.mark.parametrize("class_weights", ["equal", "balanced"])
def test_what_fills_a_last_batch_teaches_nothing(tmp_path: Path, splits: Splits, class_weights: str) -> None:
    """30 images in one batch of 32 teach what they teach in a batch of their own."""
    params = changed(PARAMS, epochs=2, dropout=0.0, optimizer="sgd", class_weights=class_weights)
    (filled, rows), (exact, expected) = (
        run(splits, tmp_path / str(size), changed(params, batch_size=size)) for size in (32, 30)
    )
    for weight, weight_expected in zip(filled.get_weights(), exact.get_weights(), strict=True):
        np.testing.assert_allclose(weight, weight_expected, rtol=1e-5, atol=1e-7)
    for row, row_expected in zip(rows.batches, expected.batches, strict=True):
        assert row == pytest.approx(row_expected, rel=1e-5)


def test_the_best_epoch_is_kept(tmp_path: Path, splits: Splits) -> None:
    head, history = run(splits, tmp_path / "s", changed(PARAMS, **WAVERING))
    assert history.best is not history.epochs[-1]
    kept = training.evaluate_split(head, splits.val, "sigmoid")
    assert kept == {key: history.best[key] for key in ("val_loss", "val_accuracy")}


def test_the_seed_decides(tmp_path: Path, splits: Splits) -> None:
    histories = [run(splits, tmp_path / name, changed(PARAMS, seed=seed))[1] for seed, name in ((5, "a"), (5, "b"))]
    assert histories[0] == histories[1] != run(splits, tmp_path / "c", changed(PARAMS, seed=6))[1]


def test_a_loss_that_is_no_number(tmp_path: Path, splits: Splits) -> None:
    endless = PARAMS.model_copy(update={"learning_rate": np.inf})
    with pytest.raises(PawlineError, match=r"^x: the loss is nan at epoch 1, batch 2: lower its learning_rate$"):
        run(splits, tmp_path / "s", endless)
    one_batch = endless.model_copy(update={"batch_size": 30})
    with pytest.raises(PawlineError, match=r"^x: the validation loss is nan after epoch 1: lower its learning_r"):
        run(splits, tmp_path / "s", one_batch)
    assert list((tmp_path / "s").iterdir()) == []


def waits(values: list[float], monitor: str) -> list[int]:
    """For each epoch, how many epochs ago the best value was first reached."""
    sign = -1 if monitor.endswith("accuracy") else 1
    return [
        len(seen) - 1 - seen.index(min(seen))
        for seen in ([sign * v for v in values[: n + 1]] for n in range(len(values)))
    ]


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "loss"])
def test_patience_ends_the_training_and_says_so(
    tmp_path: Path, splits: Splits, monitor: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    params = changed(PARAMS, **WAVERING | {"epochs": 12}, monitor=monitor)
    _, whole = run(splits, tmp_path / "whole", params)
    assert not any("stopped" in message for message in caplog.messages)
    assert curves.outcome(whole, params)["stopped"] == "all epochs"
    expected = waits([row[monitor] for row in whole.epochs], monitor).index(2) + 1
    assert expected < 12
    impatient = changed(params, stop_patience=2)
    head, history = run(splits, tmp_path / "impatient", impatient)
    assert history.epochs == whole.epochs[:expected]
    outcome = curves.outcome(history, impatient)
    assert outcome == {"best": history.best, "epochs": expected, "stopped": "patience"}
    assert caplog.messages[-1] == f"x: stopped after epoch {expected} of 12: {monitor} got no better for 2 epochs"
    assert training.evaluate_split(head, splits.val, "sigmoid")["val_loss"] == history.best["val_loss"]


def test_a_plateau_lowers_the_rate_of_the_next_epoch(tmp_path: Path, splits: Splits) -> None:
    params = changed(PARAMS, **WAVERING, schedule="plateau", plateau_factor=0.25)
    _, history = run(splits, tmp_path / "s", params)
    rate, best, waited = 1.0, np.inf, 0
    for row in history.epochs:
        assert row["learning_rate"] == pytest.approx(rate)
        of_epoch = [batch["learning_rate"] for batch in history.batches if batch["epoch"] == row["epoch"]]
        assert of_epoch == pytest.approx([rate] * 4)
        waited = 0 if row["val_loss"] < best else waited + 1
        best = min(best, row["val_loss"])
        if waited == 2:
            rate, waited = rate / 4, 0
    assert rate < 0.3


def test_cosine_ends_at_zero(tmp_path: Path, splits: Splits) -> None:
    _, history = run(splits, tmp_path / "s", changed(PARAMS, schedule="cosine", warmup_epochs=1.0))
    rates = [row["learning_rate"] for row in history.batches]
    falling = [0.05 * (1 + np.cos(np.pi * step / 8)) for step in range(8)]
    assert rates == pytest.approx([0.0, 0.025, 0.05, 0.075, *falling], abs=1e-7)
    assert [row["learning_rate"] for row in history.epochs] == pytest.approx([0.1, 0.05, 0.0], abs=1e-7)


@pytest.mark.parametrize("output", ["sigmoid", "logit", "softmax"])
def test_the_validation_loss_is_the_plain_one_whatever_is_minimised(
    tmp_path: Path, splits: Splits, output: Output
) -> None:
    plain = run(splits, tmp_path / "plain", output=output)
    changes = changed(PARAMS, label_smoothing=0.4, class_weights="balanced")
    smoothed = run(splits, tmp_path / "smoothed", changes, output=output)
    assert abs(smoothed[1].epochs[0]["loss"] - plain[1].epochs[0]["loss"]) > 0.003
    for head, history in (plain, smoothed):
        probs = heads.class_probs(head.predict_on_batch(splits.val.rows(np.arange(20), 0)), output)
        by_hand = -np.log(probs[np.arange(20), splits.val.labels]).mean()
        assert history.best["val_loss"] == pytest.approx(by_hand, abs=1e-6)
        assert history.best["val_accuracy"] == (probs.argmax(axis=1) == splits.val.labels).mean()
    head, history = plain
    targets = heads.targets(splits.val.labels, head.output_shape[-1])
    keras_says = head.test_on_batch(splits.val.rows(np.arange(20), 0), targets, return_dict=True)
    assert history.best["val_loss"] == pytest.approx(keras_says["loss"], abs=1e-6)
    assert history.best["val_accuracy"] == pytest.approx(keras_says["accuracy"], abs=1e-6)


def test_balanced_weighs_each_image_by_its_class(tmp_path: Path, splits: Splits) -> None:
    _, history = run(splits, tmp_path / "s", changed(PARAMS, class_weights="balanced", learning_rate=1e-9))
    labels = splits.train.labels[np.random.default_rng([PARAMS.seed, 0]).permutation(30)]
    weights = np.where(labels, 30 / (2 * labels.sum()), 30 / (2 * (1 - labels).sum()))
    assert abs(weights[:8].mean() - 1) > 0.03
    losses = [row["loss"] for row in history.batches[:4]]
    expected = [np.log(2) * weights[start : start + 8].mean() for start in (0, 8, 16, 24)]  # a fresh head says 0.5
    assert losses == pytest.approx(expected, abs=1e-5)


def test_a_logit_is_the_sigmoid_by_another_way(tmp_path: Path, splits: Splits) -> None:
    params = changed(PARAMS, hidden_units=(4,), label_smoothing=0.1)
    (sigmoid, by_sigmoid), (logit, by_logit) = (
        run(splits, tmp_path / output, params, output=output) for output in ("sigmoid", "logit")
    )
    for a, b in zip(sigmoid.get_weights(), logit.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    images = splits.val.rows(np.arange(20), 0)
    probs = heads.class_probs(sigmoid.predict_on_batch(images), "sigmoid")
    assert np.ptp(probs) > 0.2
    np.testing.assert_allclose(heads.class_probs(logit.predict_on_batch(images), "logit"), probs, atol=1e-4)
    for a, b in zip(by_sigmoid.epochs + by_sigmoid.batches, by_logit.epochs + by_logit.batches, strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_what_does_not_apply_changes_nothing(tmp_path: Path, splits: Splits) -> None:
    """Adam knows neither momentum nor decay, a constant schedule neither warm-up nor plateau."""
    _, expected = run(splits, tmp_path / "a")
    others = {"momentum": 0.1, "weight_decay": 0.5, "warmup_epochs": 2.0, "plateau_factor": 0.1, "plateau_patience": 1}
    assert run(splits, tmp_path / "b", changed(PARAMS, **others))[1] == expected


def test_evaluation_over_portions(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    head = heads.build_head(6, 2, changed(PARAMS, hidden_units=(4,)), output="sigmoid")
    head.set_weights([np.random.default_rng(0).normal(size=weight.shape) for weight in head.get_weights()])
    at_once = training.evaluate_split(head, splits.val, "sigmoid")
    monkeypatch.setattr(training, "EVALUATION_BATCH_SIZE", 7)
    assert training.evaluate_split(head, splits.val, "sigmoid") == pytest.approx(at_once, abs=1e-6)
    probs = training.predict_split(head, splits.val)[:, 0]
    labels = splits.val.labels
    assert at_once["val_loss"] == pytest.approx(-np.log(np.where(labels, probs, 1 - probs)).mean(), abs=1e-6)
    assert at_once["val_accuracy"] == pytest.approx(((probs > 0.5) == labels).mean())
