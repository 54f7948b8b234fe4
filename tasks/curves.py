"""What happened in a training: its curves, its best epoch, why it ended. Needs no TensorFlow."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

from tasks.params import TrainingParams
from tasks.stage import write_json


@dataclasses.dataclass
class History:
    """What happened: a row an epoch and a row a batch.

    `loss` is what was minimised (smoothing and class weights in it) and `accuracy` is of augmented images with dropout;
    of a batch alone, or the mean over an epoch's images. `val_loss` is the plain cross-entropy of the probabilities
    whatever was minimised, so that epochs, stages and settings compare. `learning_rate` is the one of the batch's step;
    in the row of an epoch, the one at its end.
    """

    epochs: list[dict[str, float]] = dataclasses.field(default_factory=list)
    batches: list[dict[str, float]] = dataclasses.field(default_factory=list)

    @property
    def best(self) -> dict[str, float]:
        """The row of the best epoch: highest validation accuracy, then lowest validation loss, then earliest."""
        return max(self.epochs, key=rank)


def rank(scores: dict[str, float]) -> tuple[float, float]:
    """Order validation figures: accuracy first, and of equal accuracies the lower loss."""
    return scores["val_accuracy"], -scores["val_loss"]


def why_stopped(history: History, params: TrainingParams) -> str:
    """Return `patience` when epochs were left to train, else `all epochs`."""
    return "patience" if len(history.epochs) < params.epochs else "all epochs"


def outcome(history: History, params: TrainingParams) -> dict[str, Any]:
    """Return what a summary says of the training: the best epoch's row, the epochs trained, why it ended."""
    return {"best": history.best, "epochs": len(history.epochs), "stopped": why_stopped(history, params)}


def write_metrics(figures: dict[str, Any], path: Path) -> None:
    """Write figures for DVC, as short as in the curves."""
    write_json({name: _rounded(value) for name, value in figures.items()}, path)


def write_curves(history: History, out_dir: Path) -> None:
    """Write `epochs.csv` and `batches.csv`."""
    for name, rows in (("epochs", history.epochs), ("batches", history.batches)):
        with (out_dir / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _rounded(value) for key, value in row.items()} for row in rows)


def _rounded(value: float | str) -> float | int | str:
    return float(f"{value:.6g}") if isinstance(value, float) else value
