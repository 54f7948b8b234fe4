"""The figures of the training: curves by batch and epoch, and learning rates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tasks.report.figures import COLOURS, DASHES, axes_of_size, inline_svg

Metric = Literal["loss", "accuracy"]
Row = dict[str, float]

MOST_BATCH_POINTS = 300  # of one stage; a longer history is drawn as the means of so many stretches
SMOOTHED_SHARE = 1 / 20  # of a stage's batches, that the moving average spans
LOWEST_RATE_SHOWN = 1 / 30  # of the lowest stage's highest learning rate: a cosine ends at 0, which no logarithm shows


@dataclass(frozen=True)
class StageCurves:
    """One training stage's history.

    Attributes:
        name: As shown.
        batches: Rows of batches.csv: epoch, images, loss, accuracy, learning_rate.
        epochs: Rows of epochs.csv: epoch, loss, accuracy, val_loss, val_accuracy, learning_rate.
        best_epoch: Whose weights were kept, from 1.
    """

    name: str
    batches: list[Row]
    epochs: list[Row]
    best_epoch: int


def draw_curves(stages: Sequence[StageCurves], metric: Metric) -> Markup:
    """Draw a metric over the epochs of all stages, one after the other."""
    with axes_of_size(4.4, 3.1) as (figure, axes):
        for stage, start in _placed(axes, stages):
            _draw_stage(axes, stage, metric, start)
        axes.set(ylabel=metric, ylim=_limits(stages, metric))
        last = stages[-1].epochs[-1]
        about = (
            f"{metric} by epoch; at the end {last[metric]:.3f} in training, {last[f'val_{metric}']:.3f} in validation"
        )
        return inline_svg(figure, about.capitalize())


def draw_learning_rates(stages: Sequence[StageCurves]) -> Markup:
    """Draw the learning rate over the epochs of all stages, with each stage's highest at the axis."""
    with axes_of_size(4.4, 1.7) as (figure, axes):
        highest = []
        for stage, start in _placed(axes, stages):
            times, rates = _batch_times(stage.batches), np.array([row["learning_rate"] for row in stage.batches])
            axes.plot(start + _thin(times), _thin(rates), color=COLOURS["val"])
            highest.append(rates.max())
        axes.set(yscale="log", ylabel="learning rate", ylim=(min(highest) * LOWEST_RATE_SHOWN, max(highest) * 2))
        axes.set_yticks(sorted(set(highest)), [f"{rate:.2g}" for rate in sorted(set(highest))], minor=False)
        axes.set_yticks([], minor=True)
        return inline_svg(figure, "Learning rate by epoch")


def _placed(axes: Axes, stages: Sequence[StageCurves]) -> Iterator[tuple[StageCurves, int]]:
    """Lay the stages one after the other along the axis of epochs; yield each with the epoch before its first."""
    start = 0
    for stage in stages:
        if start:
            axes.axvline(start, color=COLOURS["muted"], linewidth=1, linestyle=DASHES)
        yield stage, start
        start += len(stage.epochs)
    axes.set(xlabel="epoch", xlim=(0, start))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_stage(axes: Axes, stage: StageCurves, metric: Metric, start: int) -> None:
    times = start + _thin(_batch_times(stage.batches))
    values, smooth = np.array([row[metric] for row in stage.batches]), _smooth(stage.batches, metric)
    axes.plot(times, _thin(values), color=COLOURS["train"], alpha=0.25, linewidth=0.7)
    axes.plot(times, _thin(smooth), color=COLOURS["train"], alpha=0.7, linewidth=1)
    epochs = [start + row["epoch"] for row in stage.epochs]
    validation = [row[f"val_{metric}"] for row in stage.epochs]
    axes.plot(
        epochs, [row[metric] for row in stage.epochs], "o-", color=COLOURS["train"], markersize=3.5, clip_on=False
    )
    axes.plot(epochs, validation, "s-", color=COLOURS["val"], markersize=3.5, clip_on=False)
    best = stage.best_epoch - 1
    axes.scatter(
        epochs[best], validation[best], 120, facecolors="none", edgecolors=COLOURS["val"], linewidths=1.6, clip_on=False
    )
    middle = start + len(stage.epochs) / 2
    axes.text(middle, 1.02, stage.name, ha="center", transform=axes.get_xaxis_transform(), color=COLOURS["muted"])


def _limits(stages: Sequence[StageCurves], metric: Metric) -> tuple[float, float]:
    """Return the range that shows every epoch and the smoothed line: single batches may reach out of it."""
    values = [value for stage in stages for value in _smooth(stage.batches, metric)]
    values += [row[name] for stage in stages for row in stage.epochs for name in (metric, f"val_{metric}")]
    low, high = (0.0, max(values)) if metric == "loss" else (min(values), 1.0)
    margin = 0.05 * (high - low) or 0.05
    return (low, high + margin) if metric == "loss" else (low - margin, high + margin)


def _batch_times(batches: Sequence[Row]) -> npt.NDArray[np.float64]:
    """Return when each batch ended, in epochs since the stage began."""
    epoch, images = (np.array([row[name] for row in batches]) for name in ("epoch", "images"))
    seen = np.cumsum(images)
    before_epoch = np.concatenate([[0.0], seen[np.flatnonzero(np.diff(epoch))]])  # images seen when each began
    epoch_images = np.diff(np.append(before_epoch, seen[-1]))
    index = epoch.astype(int) - 1
    times: npt.NDArray[np.float64] = index + (seen - before_epoch[index]) / epoch_images[index]
    return times


def _smooth(batches: Sequence[Row], metric: Metric) -> npt.NDArray[np.float64]:
    """Return the centred moving average over images: an epoch's last batch may hold a single one."""
    values, images = (np.array([row[name] for row in batches]) for name in (metric, "images"))
    window = np.ones(min(len(values), 2 * round(len(values) * SMOOTHED_SHARE / 2) + 1))
    sums: npt.NDArray[np.float64] = np.convolve(values * images, window, "same")
    return sums / np.convolve(images, window, "same")


def _thin(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.array([part.mean() for part in np.array_split(values, min(len(values), MOST_BATCH_POINTS))])
