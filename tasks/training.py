"""The training of both stages: epochs over stored features, curves, best epoch kept, resumed where it stopped."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from tasks import heads, metrics, optimization, training_state
from tasks.curves import History, why_stopped
from tasks.feature_store import FeatureSplit
from tasks.params import TrainingParams
from tasks.progress import Progress
from tasks.quiet_tf import Model
from tasks.stage import PawlineError
from tasks.strategy import Batch, Replicas, replicas_of

log = logging.getLogger(__name__)

EVALUATION_BATCH_SIZE = 128
Predict: TypeAlias = Callable[[FeatureSplit, np.ndarray], np.ndarray]


class Splits(NamedTuple):
    """What is trained on, and what chooses the epoch."""

    train: FeatureSplit
    val: FeatureSplit


class Steps(NamedTuple):
    """How a model is trained and asked: by one process, or by several replicas.

    Attributes:
        train: Takes a step on a batch; returns its `loss` and `accuracy`.
        predict: Returns the answers to the images of a split at some indices.
        replicas: How many there are: both take a multiple of that.
    """

    train: Callable[[Batch], dict[str, float]]
    predict: Predict
    replicas: int = 1


def open_splits(features_dir: Path, kind: str) -> Splits:
    """Open the features of a kind (`pooled` or `boundary`)."""
    return Splits(FeatureSplit(features_dir, "train", kind), FeatureSplit(features_dir, "val", kind))


def train(
    model: Model,
    splits: Splits,
    params: TrainingParams,
    *,
    output: heads.Output,
    scratch: Path | None,
    what: str,
    evaluated: Model | None = None,
) -> History:
    """Train a model on stored features and leave it with the weights of its best epoch.

    Epoch `e` shows view `e` modulo the number of views of every training image, in an order drawn from the seed and
    the epoch. After each epoch the whole state goes to `scratch`, from where an interrupted run carries on. A model
    that was built in the scope of a strategy (`strategy.scope`) is trained by all its replicas.

    Args:
        model: Features to answers.
        splits: The features and their labels.
        params: How to train.
        output: What the model answers with.
        scratch: Where the state is kept; None for a worker who has it from the chief.
        what: The stage's name, for messages.
        evaluated: What is evaluated after each epoch, where that is another model with the same weights.

    Raises:
        PawlineError: If the loss is no longer finite.
    """
    steps_per_epoch = math.ceil(len(splits.train) / params.batch_size)
    optimization.compile_model(model, params, output=output, steps_per_epoch=steps_per_epoch)
    callbacks = optimization.epoch_callbacks(model, params)
    read_rate = optimization.learning_rate_reader(model)
    replicas = replicas_of(model)
    steps = _steps(model, evaluated or model, output, replicas)
    history, best = training_state.resume(model, callbacks, scratch, replicas)
    while len(history.epochs) < params.epochs and not model.stop_training:
        epoch = len(history.epochs)
        rows = _train_epoch(steps, model.output_shape[-1], splits.train, params, epoch, read_rate, what)
        row = {"epoch": epoch + 1} | _mean(rows) | _validate(steps, splits.val, output)
        row["learning_rate"] = read_rate()
        if replicas:  # another processor may give another last digit, and what follows must be the same on all
            row = json.loads(replicas.from_chief(json.dumps(row).encode()))
        _check_finite(row["val_loss"], f"{what}: the validation loss is {{}} after epoch {epoch + 1}")
        history.batches += rows
        history.epochs.append(row)
        callbacks.on_epoch_end(epoch, row)
        if history.best is row:
            best = training_state.values_of(model.weights)
        if scratch is not None:
            training_state.keep(model, history, best, scratch)
        _log_epoch(row, params, what)
    _log_stop(history, params, what)
    training_state.assign(model.weights, best)
    return history


def _validate(steps: Steps, split: FeatureSplit, output: heads.Output) -> dict[str, float]:
    return _figures(_predict(steps.predict, split, steps.replicas), split, output)


def _steps(model: Model, evaluated: Model, output: heads.Output, replicas: Replicas | None) -> Steps:
    if replicas:
        return Steps(replicas.trainer(model, output), replicas.predictor(evaluated), replicas.count)
    # Keras starts its figures anew at each call: they are this batch's.
    return Steps(
        lambda batch: dict(model.train_on_batch(*batch.part(slice(None)), return_dict=True)), _predictor(evaluated)
    )


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
    steps: Steps,
    units: int,
    split: FeatureSplit,
    params: TrainingParams,
    epoch: int,
    read_rate: Callable[[], float],
    what: str,
) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    order = np.random.default_rng([params.seed, epoch]).permutation(len(split))
    steps_before = epoch * math.ceil(len(split) / params.batch_size)
    targets = heads.targets(split.labels, units)
    weights = optimization.class_weights(split.labels, params.class_weights)
    image_weights = np.ones(len(split), np.float32) if weights is None else weights[split.labels]
    size = _multiple(params.batch_size, steps.replicas)
    with Progress(f"{what} epoch {epoch + 1}/{params.epochs}", total=len(split)) as progress:
        for indices in _portions(order, params.batch_size):
            rate = read_rate()
            filled, share = _fill(indices, size)
            logs = steps.train(
                Batch(split, filled, epoch % split.views, targets[filled], image_weights[filled] * share)
            )
            loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
            _check_finite(loss, f"{what}: the loss is {{}} at epoch {epoch + 1}, batch {len(rows) + 1}")
            row = {"step": steps_before + len(rows) + 1, "epoch": epoch + 1, "images": len(indices)}
            rows.append(row | {"loss": loss, "accuracy": accuracy, "learning_rate": rate})
            progress.advance(len(indices))
    return rows


def _multiple(size: int, replicas: int) -> int:
    """Return the size that every replica has an equal share of."""
    return math.ceil(size / replicas) * replicas


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
    return _figures(predict_split(model, split), split, output)


def predict_split(model: Model, split: FeatureSplit) -> np.ndarray:
    """Return a model's output for every image of a split, in order, float32 [images, outputs]."""
    return _predict(_predictor(model), split, 1)


def _figures(answers: np.ndarray, split: FeatureSplit, output: heads.Output) -> dict[str, float]:
    probs = heads.class_probs(answers, output)
    return {
        "val_loss": metrics.cross_entropy(split.labels, probs),
        "val_accuracy": metrics.accuracy(split.labels, probs),
    }


def _predictor(model: Model) -> Predict:
    return lambda split, indices: np.asarray(model.predict_on_batch(split.rows(indices, 0)))


def _predict(predict: Predict, split: FeatureSplit, replicas: int) -> np.ndarray:
    size = _multiple(min(EVALUATION_BATCH_SIZE, len(split)), replicas)
    portions = [_fill(indices, size)[0] for indices in _portions(np.arange(len(split)), size)]
    return np.concatenate([predict(split, indices) for indices in portions])[: len(split)]


def _portions(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
