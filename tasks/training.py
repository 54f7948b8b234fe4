"""The training loop of both stages: epochs over stored features, curves, best epoch kept, resumed where it stopped."""

import csv
import dataclasses
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.feature_store import FeatureSplit
from tasks.progress import Progress
from tasks.quiet_tf import Model
from tasks.stage import PawlineError, whole_file

log = logging.getLogger(__name__)

EVALUATION_BATCH_SIZE = 256


class Schedule(NamedTuple):
    """How long and in what portions to train."""

    epochs: int
    batch_size: int
    seed: int


@dataclasses.dataclass
class History:
    """What happened: a row an epoch and a row a batch (loss and accuracy of that batch alone)."""

    epochs: list[dict[str, float]] = dataclasses.field(default_factory=list)
    batches: list[dict[str, float]] = dataclasses.field(default_factory=list)

    @property
    def best(self) -> dict[str, float]:
        """The row of the best epoch: highest validation accuracy, then lowest validation loss, then earliest."""
        return max(self.epochs, key=rank)


def rank(metrics: dict[str, float]) -> tuple[float, float]:
    """Order validation metrics: accuracy first, and of equal accuracies the lower loss."""
    return metrics["val_accuracy"], -metrics["val_loss"]


def train(
    model: Model, train_split: FeatureSplit, val_split: FeatureSplit, schedule: Schedule, *, scratch: Path, what: str
) -> History:
    """Train a compiled model on stored features and leave it with the weights of its best epoch.

    Epoch `e` shows view `e` modulo the number of views of every training image, in an order drawn from the seed and
    the epoch. After each epoch the whole state goes to `scratch`, from where an interrupted run carries on.

    Raises:
        PawlineError: If the loss is no longer finite.
    """
    history, best = _resume(model, scratch)
    for epoch in range(len(history.epochs), schedule.epochs):
        rows = _train_epoch(model, train_split, schedule, epoch, what)
        history.batches += rows
        metrics = {"epoch": epoch + 1} | _mean(rows) | evaluate_split(model, val_split)
        _check_finite(metrics["val_loss"], f"{what}: the validation loss is {{}} after epoch {epoch + 1}")
        history.epochs.append(metrics)
        if history.best is metrics:
            best = _values(model.weights)
        _keep_state(model, history, best, scratch)
        log.info(
            "%s: epoch %d of %d, loss %.4f, accuracy %.4f, validation loss %.4f, accuracy %.4f",
            *(what, epoch + 1, schedule.epochs, metrics["loss"], metrics["accuracy"]),
            *(metrics["val_loss"], metrics["val_accuracy"]),
        )
    _assign(model.weights, best)
    return history


def write_curves(history: History, out_dir: Path) -> None:
    """Write `epochs.csv` and `batches.csv`."""
    for name, rows in (("epochs", history.epochs), ("batches", history.batches)):
        with (out_dir / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _rounded(value) for key, value in row.items()} for row in rows)


def _rounded(value: float) -> float | int:
    return value if isinstance(value, int) else round(value, 6)


def _train_epoch(
    model: Model, split: FeatureSplit, schedule: Schedule, epoch: int, what: str
) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    order = np.random.default_rng([schedule.seed, epoch]).permutation(len(split))
    steps_before = epoch * math.ceil(len(split) / schedule.batch_size)
    with Progress(f"{what} epoch {epoch + 1}/{schedule.epochs}", total=len(split)) as progress:
        for indices in _portions(order, schedule.batch_size):
            model.reset_metrics()  # so that the figures are this batch's
            images = split.rows(indices, epoch % split.views)
            logs = model.train_on_batch(images, split.labels[indices], return_dict=True)
            loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
            _check_finite(loss, f"{what}: the loss is {{}} at epoch {epoch + 1}, batch {len(rows) + 1}")
            step = steps_before + len(rows) + 1
            rows.append({"step": step, "epoch": epoch + 1, "images": len(indices), "loss": loss, "accuracy": accuracy})
            progress.advance(len(indices))
    return rows


def _check_finite(loss: float, message: str) -> None:
    if not math.isfinite(loss):
        raise PawlineError(f"{message.format(loss)}: lower its learning_rate")


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    images = sum(row["images"] for row in rows)
    return {key: sum(row[key] * row["images"] for row in rows) / images for key in ("loss", "accuracy")}


def evaluate_split(model: Model, split: FeatureSplit) -> dict[str, float]:
    """Return `val_loss` and `val_accuracy` of a compiled model on a split; every image counts once."""
    rows: list[dict[str, float]] = []
    for indices in _portions(np.arange(len(split)), EVALUATION_BATCH_SIZE):
        model.reset_metrics()  # so that the figures are this batch's, whatever Keras carries from batch to batch
        logs = model.test_on_batch(split.rows(indices, 0), split.labels[indices], return_dict=True)
        rows.append({"images": len(indices), "loss": float(logs["loss"]), "accuracy": float(logs["accuracy"])})
    return {f"val_{key}": value for key, value in _mean(rows).items()}


def predict_split(model: Model, split: FeatureSplit) -> np.ndarray:
    """Return a model's output for every image of a split, in order, float32 [images, outputs]."""
    portions = _portions(np.arange(len(split)), EVALUATION_BATCH_SIZE)
    return np.concatenate([np.asarray(model.predict_on_batch(split.rows(indices, 0))) for indices in portions])


def _portions(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _state(model: Model) -> list[Any]:
    """Return every variable that the next step depends on: weights, random seeds of dropout, optimizer slots."""
    return [*model.variables, *model.optimizer.variables]


def _values(variables: list[Any]) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _keep_state(model: Model, history: History, best: list[np.ndarray], scratch: Path) -> None:
    arrays: dict[str, Any] = {f"state_{i}": value for i, value in enumerate(_values(_state(model)))}
    arrays |= {f"best_{i}": value for i, value in enumerate(best)}
    arrays["history"] = np.frombuffer(json.dumps(dataclasses.asdict(history)).encode(), np.uint8)
    with whole_file(scratch / "state.npz") as unfinished:
        np.savez(unfinished, **arrays)


def _resume(model: Model, scratch: Path) -> tuple[History, list[np.ndarray]]:
    """Take up the state of the last finished epoch, if there is one."""
    kept = scratch / "state.npz"
    if not kept.exists():
        return History(), _values(model.weights)
    with np.load(kept) as arrays:
        history = History(**json.loads(arrays["history"].tobytes()))
        state, best = _state(model), model.weights
        _assign(state, [arrays[f"state_{i}"] for i in range(len(state))])
        log.info("carrying on after epoch %d", len(history.epochs))
        return history, [arrays[f"best_{i}"] for i in range(len(best))]
