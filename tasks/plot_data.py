"""The data of the plots of the evaluation, as CSV: for `dvc plots`, and for the report."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks import calibration, metrics

Row = dict[str, Any]


def write_plots(
    labels: metrics.Labels, probs: metrics.Probs, classes: Sequence[str], temperature: float, plots_dir: Path
) -> None:
    """Write confusion.csv, roc.csv, precision_recall.csv, reliability.csv and thresholds.csv.

    Args:
        labels: Of the evaluated images.
        probs: What the classifier answered.
        classes: Their names, in the order of the columns of `probs`.
        temperature: Fitted on validation; for the second curve of the reliability diagram.
        plots_dir: An existing folder.
    """
    tables = {
        "confusion": _confusion(labels, probs, classes),
        "roc": _roc(labels, probs, classes),
        "precision_recall": _precision_recall(labels, probs, classes),
        "reliability": _reliability(labels, probs, temperature),
        "thresholds": calibration.answered_above(labels, probs),
    }
    for name, rows in tables.items():
        _write_csv(rows, plots_dir / f"{name}.csv")


def _confusion(labels: metrics.Labels, probs: metrics.Probs, classes: Sequence[str]) -> list[Row]:
    """Return a row an image, as DVC's confusion template wants it."""
    answers = zip(labels, probs.argmax(axis=1), strict=True)
    return [{"actual": classes[actual], "predicted": classes[guess]} for actual, guess in answers]


def _roc(labels: metrics.Labels, probs: metrics.Probs, classes: Sequence[str]) -> list[Row]:
    return [
        {"class": name, "false_positive_rate": false, "true_positive_rate": true}
        for name, positive, scores in _one_against_rest(labels, probs, classes)
        for false, true in metrics.roc_points(positive, scores)
    ]


def _precision_recall(labels: metrics.Labels, probs: metrics.Probs, classes: Sequence[str]) -> list[Row]:
    return [
        {"class": name, "recall": recall, "precision": precision}
        for name, positive, scores in _one_against_rest(labels, probs, classes)
        for recall, precision in metrics.precision_recall_points(positive, scores)
    ]


def _one_against_rest(
    labels: metrics.Labels, probs: metrics.Probs, classes: Sequence[str]
) -> Iterator[tuple[str, npt.NDArray[np.bool_], npt.NDArray[Any]]]:
    """Yield name, membership and scores of each class; of two classes the second says it all."""
    for index, name in enumerate(classes):
        if index or len(classes) > 2:
            yield name, labels == index, probs[:, index]


def _reliability(labels: metrics.Labels, probs: metrics.Probs, temperature: float) -> list[Row]:
    scaled = calibration.scale(probs, temperature)
    rows = []
    for scaling, answers in (("as trained", probs), ("scaled", scaled)):
        for part in calibration.reliability(labels, answers):
            low, high = metrics.wilson_interval(round(part.accuracy * part.images), part.images)
            bounds = {"confidence": part.confidence, "accuracy": part.accuracy, "low": low, "high": high}
            rows.append({"scaling": scaling, **bounds, "images": part.images})
    return rows


def _write_csv(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}
            )
