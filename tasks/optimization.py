"""What a stage minimises and how: loss, optimizer, learning rate, and when it stops."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tasks.heads import Output
from tasks.params import TrainingParams
from tasks.quiet_tf import Model, Tensor, keras, tf

# Keras ships no types; these names say at least what is meant.
Callbacks: TypeAlias = Any
Loss: TypeAlias = Any
Metric: TypeAlias = Any
Optimizer: TypeAlias = Any
Rate: TypeAlias = Any  # a number, or a function of the step


class _Counting:
    """An accuracy over the images of any weight: those without one only fill a batch."""

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        counts = None if sample_weight is None else tf.cast(sample_weight > 0, tf.float32)
        super().update_state(y_true, y_pred, counts)  # type: ignore[misc]  # Keras's, to which this is mixed


class BinaryAccuracy(_Counting, keras.metrics.BinaryAccuracy):  # type: ignore[misc]  # Keras ships no types
    """Of probabilities or logits [batch, 1]."""


class CategoricalAccuracy(_Counting, keras.metrics.CategoricalAccuracy):  # type: ignore[misc]
    """Of probabilities [batch, classes]."""


def compile_model(model: Model, params: TrainingParams, *, output: Output, steps_per_epoch: int) -> None:
    """Compile for training on targets of the model's own shape (`heads.targets`).

    The loss is the cross-entropy that fits the output, against targets of which `label_smoothing` is spread evenly over
    all classes (Szegedy et al. 2016).
    """
    loss, accuracy = _loss_and_accuracy(output, params.label_smoothing)
    optimizer = _optimizer(params, _learning_rate(params, steps_per_epoch))
    model.compile(optimizer, loss, weighted_metrics=[accuracy])
    # Keras would do it at the first batch: too late for the state of an interrupted run to be taken up.
    model.optimizer.build(model.trainable_variables)


def _loss_and_accuracy(output: Output, smoothing: float) -> tuple[Loss, Metric]:
    if output == "softmax":
        accuracy = CategoricalAccuracy(name="accuracy")
        return keras.losses.CategoricalCrossentropy(label_smoothing=smoothing), accuracy
    is_logit = output == "logit"
    accuracy = BinaryAccuracy(name="accuracy", threshold=0.0 if is_logit else 0.5)
    return keras.losses.BinaryCrossentropy(from_logits=is_logit, label_smoothing=smoothing), accuracy


def right_answers(targets: Tensor, answers: Tensor, output: Output) -> Tensor:
    """Say of each answer whether it is right, as the accuracy of `compile_model` does: 0 or 1, float32 [batch]."""
    if output == "softmax":
        return keras.metrics.categorical_accuracy(targets, answers)
    right = keras.metrics.binary_accuracy(targets, answers, threshold=0.0 if output == "logit" else 0.5)
    return tf.reshape(right, [-1])


def _optimizer(params: TrainingParams, learning_rate: Rate) -> Optimizer:
    if params.optimizer == "adamw":
        return keras.optimizers.AdamW(learning_rate, weight_decay=params.weight_decay)
    if params.optimizer == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=params.momentum)
    optimizers = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}
    return optimizers[params.optimizer](learning_rate)


def _learning_rate(params: TrainingParams, steps_per_epoch: int) -> Rate:
    """Return a number, or a function of the step: up to the learning rate in a line, then down to 0 by a cosine."""
    if params.schedule != "cosine":
        return params.learning_rate
    warmup_steps = round(params.warmup_epochs * steps_per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=params.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=max(params.epochs * steps_per_epoch - warmup_steps, 1),  # Keras refuses none after the warm-up
    )


def learning_rate_reader(model: Model) -> Callable[[], float]:
    """Return a function that reads the learning rate of the next step."""
    # Compiled: Keras evaluates a schedule in 0.4 ms, a quarter of the head's whole step, and this takes 0.1 ms.
    read = tf.function(lambda: keras.ops.convert_to_tensor(model.optimizer.learning_rate))
    return lambda: float(read())


def epoch_callbacks(model: Model, params: TrainingParams) -> Callbacks:
    """Return what changes the learning rate or ends the training (`model.stop_training`) at the end of an epoch.

    All that they know comes from the epochs' rows, so that the rows of an interrupted run bring them back to where
    they were.
    """
    mode = "max" if params.monitor.endswith("accuracy") else "min"
    chosen = []
    if params.schedule == "plateau":
        plateau = {"factor": params.plateau_factor, "patience": params.plateau_patience}
        chosen.append(keras.callbacks.ReduceLROnPlateau(params.monitor, **plateau, mode=mode, min_delta=0.0))
    if params.stop_patience is not None:
        chosen.append(keras.callbacks.EarlyStopping(params.monitor, patience=params.stop_patience, mode=mode))
    callbacks = keras.callbacks.CallbackList(chosen, model=model)
    callbacks.on_train_begin()
    return callbacks


def class_weights(labels: np.ndarray, kind: str) -> np.ndarray | None:
    """Return what the loss of an image of each class is multiplied by, float32 [classes]; None when nothing is.

    `balanced` is images / (classes * images of the class), over the classes that there are: scikit-learn's formula
    (sklearn.utils.class_weight.compute_class_weight), after King and Zeng 2001. The mean over images is 1.
    """
    if kind == "equal":
        return None
    counts = np.bincount(labels)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return weights.astype(np.float32)
