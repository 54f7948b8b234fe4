"""Losses, optimizers, schedules, patience and class weights against values worked out by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tasks import heads, optimization
from tasks.heads import Output
from tasks.params import TrainHeadParams
from tasks.quiet_tf import Model
from tests.tasks.conftest import COMMITTED, changed

PARAMS = changed(COMMITTED.train_head, dropout=0.0, learning_rate=0.1)
POOLED = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 0, 0, 1])
KERNEL = np.array([[0.5], [-1.0], [2.0]])
Array = np.ndarray


def compiled_head(params: TrainHeadParams, output: Output = "logit", classes: int = 2) -> Model:
    head = heads.build_head(3, classes, params, output=output)
    optimization.compile_model(head, params, output=output, steps_per_epoch=4)
    return head


def step(head: Model, pooled: Array, labels: Array, weights: Array | None = None) -> None:
    head.train_on_batch(pooled, heads.targets(labels, head.output_shape[-1]), weights)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(("output", "classes"), [("sigmoid", 2), ("logit", 2), ("softmax", 2), ("softmax", 3)])
def test_the_loss_is_the_cross_entropy_with_smoothed_labels(output: Output, classes: int, smoothing: float) -> None:
    head = compiled_head(changed(PARAMS, label_smoothing=smoothing), output, classes)
    wrong = 0.4 / (classes - 1)
    probs = [wrong, 0.6, wrong][:classes]
    kernel, bias = head.get_weights()
    bias[:] = np.log(0.6 / 0.4) if output in ("sigmoid", "logit") else np.log(probs)
    head.set_weights([kernel, bias])
    targets = heads.targets(np.array([1, 1, 0]), head.output_shape[-1])
    logs = head.test_on_batch(np.ones((3, 3), np.float32), targets, return_dict=True)
    share = smoothing / classes  # of a label, that each class gets
    losses = [
        -sum(((1 - smoothing) * (index == label) + share) * math.log(prob) for index, prob in enumerate(probs))
        for label in (1, 1, 0)
    ]
    assert logs["loss"] == pytest.approx(np.mean(losses), abs=1e-6)
    assert logs["accuracy"] == pytest.approx(2 / 3)


Update = Callable[[Array, list[Array]], Array]


def sgd(kernel: Array, gradients: list[Array]) -> Array:
    """Keras's momentum: v <- 0.8 v - 0.1 g, w <- w + v."""
    velocity = np.zeros_like(kernel)
    for gradient in gradients:
        velocity = 0.8 * velocity - 0.1 * gradient
    return np.asarray(kernel + velocity)


def rmsprop(kernel: Array, gradients: list[Array]) -> Array:
    mean_square = sum(0.1 * 0.9**age * gradient**2 for age, gradient in enumerate(reversed(gradients)))
    return np.asarray(kernel - 0.1 * gradients[-1] / np.sqrt(mean_square + 1e-7))


def adam(kernel: Array, gradients: list[Array]) -> Array:
    """Kingma and Ba 2015, algorithm 1."""
    steps = len(gradients)
    mean = sum(0.1 * 0.9**age * gradient for age, gradient in enumerate(reversed(gradients))) / (1 - 0.9**steps)
    square = sum(0.001 * 0.999**age * g**2 for age, g in enumerate(reversed(gradients))) / (1 - 0.999**steps)
    return np.asarray(kernel - 0.1 * mean / (np.sqrt(square) + 1e-7))


def adamw(kernel: Array, gradients: list[Array]) -> Array:
    """Loshchilov and Hutter 2019: the weights decay by 0.1 * 0.25 apart from the gradient."""
    return adam(kernel * (1 - 0.1 * 0.25), gradients)


@pytest.mark.parametrize("update", [sgd, rmsprop, adam, adamw])
def test_three_steps_of_each_optimizer(update: Update) -> None:
    head = compiled_head(changed(PARAMS, optimizer=update.__name__, momentum=0.8, weight_decay=0.25))
    bias = np.zeros(1)
    head.set_weights([KERNEL, bias])
    expected, gradients = KERNEL, []
    for _ in range(3):
        kernel, bias = head.get_weights()
        np.testing.assert_allclose(kernel, expected, rtol=1e-4)
        probs = 1 / (1 + np.exp(-(POOLED @ kernel + bias)))
        gradients.append(POOLED.T @ (probs - LABELS[:, None]) / len(LABELS))
        expected = update(kernel, gradients)
        step(head, POOLED, LABELS)
    np.testing.assert_allclose(head.get_weights()[0], expected, rtol=1e-4)


def cosine(step: int, warmup: int, total: int) -> float:
    """The closed form: a line up to 0.1, then half a cosine down to 0."""
    if step < warmup:
        return 0.1 * step / warmup
    return 0.05 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@pytest.mark.parametrize(("warmup_epochs", "warmup"), [(0.0, 0), (1.5, 6), (5.0, 20)])
def test_cosine_is_the_closed_form(warmup_epochs: float, warmup: int) -> None:
    head = compiled_head(changed(PARAMS, schedule="cosine", warmup_epochs=warmup_epochs, epochs=5))
    read_rate = optimization.learning_rate_reader(head)
    rates = []
    for _ in range(5 * 4):
        rates.append(read_rate())
        step(head, POOLED, LABELS)
    assert rates == pytest.approx([cosine(n, warmup, 20) for n in range(20)], abs=1e-7)
    assert read_rate() == pytest.approx(0.0 if warmup < 20 else 0.1, abs=1e-7)


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "loss", "accuracy"])
def test_plateau_lowers_the_rate_and_patience_stops(monitor: str) -> None:
    worse = -1 if monitor.endswith("accuracy") else 1
    params = changed(PARAMS, monitor=monitor, schedule="plateau", plateau_factor=0.5, plateau_patience=2)
    head = compiled_head(changed(params, stop_patience=3))
    callbacks = optimization.epoch_callbacks(head, changed(params, stop_patience=3))
    seen = []
    values = [0.50, 0.51, 0.50, 0.49, 0.49, 0.48999, 0.60, 0.50, 0.50]  # of a loss; an accuracy has them the other way
    for epoch, value in enumerate(values):
        rows = dict.fromkeys(("val_loss", "val_accuracy", "loss", "accuracy"), 0.5) | {monitor: worse * value}
        callbacks.on_epoch_end(epoch, rows)
        seen.append((round(float(head.optimizer.learning_rate), 6), head.stop_training))
    rates = [0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025]
    assert seen == [(rate, epoch == 8) for epoch, rate in enumerate(rates)]


def test_nothing_waits_when_it_is_not_asked_to() -> None:
    head = compiled_head(PARAMS)
    callbacks = optimization.epoch_callbacks(head, PARAMS)
    for epoch in range(50):
        callbacks.on_epoch_end(epoch, {"val_loss": 1.0 + epoch})
    assert float(head.optimizer.learning_rate) == pytest.approx(0.1)
    assert not head.stop_training


def test_class_weights() -> None:
    assert optimization.class_weights(LABELS, "equal") is None
    labels = np.array([0, 0, 0, 1, 3, 3])  # of class 2 there is none
    weights = optimization.class_weights(labels, "balanced")
    assert weights is not None
    assert weights[[0, 1, 3]].tolist() == pytest.approx([6 / (3 * 3), 6 / (3 * 1), 6 / (3 * 2)])
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[LABELS].dtype == np.float32


@pytest.mark.parametrize("output", ["sigmoid", "logit", "softmax"])
def test_balanced_is_as_if_the_rare_class_were_there_as_often(output: Output) -> None:
    params = changed(PARAMS, optimizer="sgd", momentum=0.0)
    weights = optimization.class_weights(LABELS, "balanced")
    assert weights is not None
    weighted, repeated, equal = (compiled_head(params, output) for _ in range(3))
    step(weighted, POOLED, LABELS, weights[LABELS])
    step(repeated, POOLED[[0, 1, 2, 3, 3, 3]], LABELS[[0, 1, 2, 3, 3, 3]])
    step(equal, POOLED, LABELS)
    for moved, expected, other in zip(*(head.get_weights() for head in (weighted, repeated, equal)), strict=True):
        np.testing.assert_allclose(moved, expected, atol=1e-7)
        assert not np.allclose(moved, other, atol=1e-4)
