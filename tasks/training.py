"""The training of both stages: epochs over stored features, curves, best epoch kept, resumed where it stopped."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks import heads, metrics, optimization
from tasks.curves import History, why_stopped
from tasks.feature_store import FeatureSplit
from tasks.params import TrainingParams
from tasks.progress import Progress
from tasks.quiet_tf import Model
from tasks.stage import PawlineError, whole_file

log = logging.getLogger(__name__)

EVALUATION_BATCH_SIZE = 256


class Splits(NamedTuple):
    """What is trained on, and what chooses the epoch."""

    train: FeatureSplit
    val: FeatureSplit


def open_splits(features_dir: Path, kind: str) -> Splits:
    """Open the features of a kind (`pooled` or `boundary`)."""
    return Splits(FeatureSplit(features_dir, "train", kind), FeatureSplit(features_dir, "val", kind))


def train(
    model: Model,
    splits: Splits,
    params: TrainingParams,
    *,
    output: heads.Output,
    scratch: Path,
    what: str,
    evaluated: Model | None = None,
) -> History:
    """Train a model on stored features and leave it with the weights of its best epoch.

    Epoch `e` shows view `e` modulo the number of views of every training image, in an order drawn from the seed and
    the epoch. After each epoch the whole state goes to `scratch`, from where an interrupted run carries on.

    Args:
        model: Features to answers.
        splits: The features and their labels.
        params: How to train.
        output: What the model answers with.
        scratch: Where the state is kept.
        what: The stage's name, for messages.
        evaluated: What is evaluated after each epoch, where that is another model with the same weights.

    Raises:
        PawlineError: If the loss is no longer finite.
    """
    steps_per_epoch = math.ceil(len(splits.train) / params.batch_size)
    optimization.compile_model(model, params, output=output, steps_per_epoch=steps_per_epoch)
    callbacks = optimization.epoch_callbacks(model, params)
    read_rate = optimization.learning_rate_reader(model)
    history, best = _resume(model, callbacks, scratch)
    while len(history.epochs) < params.epochs and not model.stop_training:
        epoch = len(history.epochs)
        rows = _train_epoch(model, splits.train, params, epoch, read_rate, what)
        row = {"epoch": epoch + 1} | _mean(rows) | evaluate_split(evaluated or model, splits.val, output)
        row["learning_rate"] = read_rate()
        _check_finite(row["val_loss"], f"{what}: the validation loss is {{}} after epoch {epoch + 1}")
        history.batches += rows
        history.epochs.append(row)
        callbacks.on_epoch_end(epoch, row)
        if history.best is row:
            best = _values(model.weights)
        _keep_state(model, history, best, scratch)
        _log_epoch(row, params, what)
    _log_stop(history, params, what)
    _assign(model.weights, best)
    return history


def _log_epoch(row: dict[str, float], params: TrainingParams, what: str) -> None:
    log.info(
        "%s: epoch %d of %d, loss %.4f, accuracy %.4f, validation loss %.4f, accuracy %.4f",
        *(what, row["epoch"], params.epochs, row["loss"], row["accuracy"], row["val_loss"], row["val_accuracy"]),
    )


def _log_stop(history: History, params: TrainingParams, what: str) -> None:
    if why_stopped(history, params) == "patience":
        trained, patience = len(history.epochs), params.stop_patience
        message = "%s: stopped after epoch %d of %d: %s got no better for %s %s"
        epochs = "epoch" if patience == 1 else "epochs"
        log.info(message, what, trained, params.epochs, params.monitor, patience, epochs)


def _train_epoch(
    model: Model,
    split: FeatureSplit,
    params: TrainingParams,
    epoch: int,
    read_rate: Callable[[], float],
    what: str,
) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    order = np.random.default_rng([params.seed, epoch]).permutation(len(split))
    steps_before = epoch * math.ceil(len(split) / params.batch_size)
    targets = heads.targets(split.labels, model.output_shape[-1])
    weights = optimization.class_weights(split.labels, params.class_weights)
    image_weights = np.ones(len(split), np.float32) if weights is None else weights[split.labels]
    with Progress(f"{what} epoch {epoch + 1}/{params.epochs}", total=len(split)) as progress:
        for indices in _portions(order, params.batch_size):
            rate = read_rate()
            batch, share = _fill(indices, params.batch_size)
            # Keras starts its figures anew at each call: they are this batch's.
            logs = model.train_on_batch(
                *(split.rows(batch, epoch % split.views), targets[batch], image_weights[batch] * share),
                return_dict=True,
            )
            loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
            _check_finite(loss, f"{what}: the loss is {{}} at epoch {epoch + 1}, batch {len(rows) + 1}")
            row = {"step": steps_before + len(rows) + 1, "epoch": epoch + 1, "images": len(indices)}
            rows.append(row | {"loss": loss, "accuracy": accuracy, "learning_rate": rate})
            progress.advance(len(indices))
    return rows


def _fill(indices: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill a last, smaller batch with images of no weight: TensorFlow would trace another shape anew, for seconds.

    Keras divides the loss by the size of the batch, so the weights of those that count make up for the others.

    Returns:
        The indices, `size` of them, and what the weight of each is multiplied by, float32 [size].
    """
    share = np.zeros(size, np.float32)
    share[: len(indices)] = size / len(indices)
    return np.resize(indices, size), share


def _check_finite(loss: float, message: str) -> None:
    if not math.isfinite(loss):
        raise PawlineError(f"{message.format(loss)}: lower its learning_rate")


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    images = sum(row["images"] for row in rows)
    return {key: sum(row[key] * row["images"] for row in rows) / images for key in ("loss", "accuracy")}


def evaluate_split(model: Model, split: FeatureSplit, output: heads.Output) -> dict[str, float]:
    """Return `val_loss` and `val_accuracy` of a model on a split: of its probabilities, whatever it was trained for."""
    probs = heads.class_probs(predict_split(model, split), output)
    return {
        "val_loss": metrics.cross_entropy(split.labels, probs),
        "val_accuracy": metrics.accuracy(split.labels, probs),
    }


def predict_split(model: Model, split: FeatureSplit) -> np.ndarray:
    """Return a model's output for every image of a split, in order, float32 [images, outputs]."""
    size = min(EVALUATION_BATCH_SIZE, len(split))
    portions = [_fill(indices, size)[0] for indices in _portions(np.arange(len(split)), EVALUATION_BATCH_SIZE)]
    answers = np.concatenate([np.asarray(model.predict_on_batch(split.rows(indices, 0))) for indices in portions])
    return answers[: len(split)]


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
    arrays["history"] = np.frombuffer(json.dumps(vars(history)).encode(), np.uint8)
    with whole_file(scratch / "state.npz") as unfinished:
        np.savez(unfinished, **arrays)


def _resume(model: Model, callbacks: optimization.Callbacks, scratch: Path) -> tuple[History, list[np.ndarray]]:
    """Take up the state of the last finished epoch, if there is one."""
    kept = scratch / "state.npz"
    if not kept.exists():
        return History(), _values(model.weights)
    with np.load(kept) as arrays:
        history = History(**json.loads(arrays["history"].tobytes()))
        for epoch, row in enumerate(history.epochs):
            callbacks.on_epoch_end(epoch, row)  # before the state: it has the learning rate that they lowered
        state, best = _state(model), model.weights
        _assign(state, [arrays[f"state_{i}"] for i in range(len(state))])
        log.info("carrying on after epoch %d", len(history.epochs))
        return history, [arrays[f"best_{i}"] for i in range(len(best))]
