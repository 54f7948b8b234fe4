"""What the report says of the evaluation: errors, curves, calibration, thresholds, slices and single photos."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks import tables
from tasks.report import figures, figures_evaluation
from tasks.report.figures_evaluation import Measured
from tasks.slices import Slice, slices
from tasks.words import figure, percent

MOST_MATRIX_CLASSES = 30  # a larger confusion matrix is a list of the commonest confusions
MOST_CONFUSIONS = 30
SAMPLE = 30
MOST_SLICES = 80
SCALINGS = ("as trained", "scaled")  # of reliability.csv
CORRUPTION_NAMES = {"jpeg": "JPEG compression"}
FACTOR = "x "  # begins an amount of which 1 leaves the image as it is

Curves = dict[str, list[figures.Point]]  # by class


def error_facts(plots_dir: Path, labels: Sequence[str]) -> dict[str, Any]:
    """Return the confusion counts, by (actual, predicted) label, and what confuses most."""
    confusion = Counter((row["actual"], row["predicted"]) for row in _read_rows(plots_dir / "confusion.csv"))
    wrong = [(pair, count) for pair, count in confusion.items() if pair[0] != pair[1]]
    return {
        "confusion": confusion,
        "actual_counts": Counter(actual for actual, _ in confusion.elements()),
        "wrong": sum(count for _, count in wrong),
        "confusions": sorted(wrong, key=lambda item: (-item[1], item[0]))[:MOST_CONFUSIONS],
        "matrix_is_shown": len(labels) <= MOST_MATRIX_CLASSES,
    }


def curve_facts(plots_dir: Path) -> dict[str, Any]:
    """Return the ROC and the precision-recall curves, drawn, with the area under each by class."""
    roc = _read_curves(plots_dir / "roc.csv", "false_positive_rate", "true_positive_rate")
    precision = _read_curves(plots_dir / "precision_recall.csv", "recall", "precision")
    areas = {label: area_under(curve) for label, curve in roc.items()}
    averages = {label: average_precision(curve) for label, curve in precision.items()}
    return {
        "roc": figures_evaluation.draw_roc(roc, f"ROC curves: {_range('area under the curve', areas)}"),
        "precision_recall": figures_evaluation.draw_precision_recall(
            precision, f"Precision against recall: {_range('average precision', averages)}"
        ),
        "curve_legend": [
            (label, figures.class_colour(index, len(roc)), area, averages.get(label))
            for index, (label, area) in enumerate(areas.items())
        ],
    }


def _range(name: str, values: Mapping[str, float | None]) -> str:
    """Say a figure of each class in a few words, without the classes' names."""
    known = [value for value in values.values() if value is not None]
    if not known:
        return f"{name} unknown"
    if len(known) == 1:
        return f"{name} {figure(known[0])}"
    return f"{name} from {figure(min(known))} to {figure(max(known))} over {len(known)} classes"


def area_under(curve: list[figures.Point]) -> float | None:
    """Return the area under a ROC curve by the trapezoidal rule; None for a class without, or with only, positives."""
    if curve[-1] != (1.0, 1.0):
        return None
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(curve))


def average_precision(curve: list[figures.Point]) -> float | None:
    """Return the sum of each precision times the recall it adds; None for a class without positives."""
    ordered = sorted(curve, key=lambda point: point[0])
    if not ordered or ordered[-1][0] == 0:
        return None
    return sum((x1 - x0) * y1 for (x0, _), (x1, y1) in pairwise([(0.0, 1.0), *ordered]))


def calibration_facts(plots_dir: Path, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reliability diagram and what it says, and the threshold table."""
    rows = list(_read_rows(plots_dir / "reliability.csv"))
    bins = {name: [_measured(row, "confidence") for row in rows if row["scaling"] == name] for name in SCALINGS}
    trained = [row for row in rows if row["scaling"] == SCALINGS[0]]
    confidence = sum(int(row["images"]) * float(row["confidence"]) for row in trained) / evaluation["images"]
    accuracy, (low, high), calibration = (evaluation[key] for key in ("accuracy", "accuracy_interval", "calibration"))
    gap = "less sure than it is right" if confidence < accuracy else "surer than it is right"
    gap = "they agree, within the accuracy's interval" if low <= confidence <= high else f"as trained it is {gap}"
    finding = (
        f"Its mean confidence is {percent(confidence)}, its accuracy {percent(accuracy)}: {gap}. The "
        f"expected calibration error (ECE) is {calibration['ece']:.3f} as trained and {calibration['ece_scaled']:.3f} "
        f"after temperature scaling with T = {calibration['temperature']:.2f}."
    )
    return {
        "calibration_finding": finding,
        "reliability": figures_evaluation.draw_reliability(bins["as trained"], bins["scaled"], finding),
        "reliability_rows": rows,
        "thresholds": [_threshold(row) for row in _read_rows(plots_dir / "thresholds.csv")],
    }


def slice_facts(predictions: pa.Table, images_path: Path, accuracy: float) -> dict[str, Any]:
    """Return the accuracy on parts of the evaluated split, by what they have in common, and which are weak."""
    parts = slices(predictions, tables.read_table(images_path))
    weak = [part for part in parts if part.is_clearly_below(accuracy)]
    shown = parts if len(parts) <= MOST_SLICES else [part for part in parts if part.by != "class" or part in weak]
    grouped: list[tuple[str, list[Slice]]] = [(by, list(group)) for by, group in groupby(shown, lambda part: part.by)]
    lowest = min((part.interval[0] for part in shown if part.says_enough), default=0.0)
    return {
        "slices": grouped,
        "slices_left_out": len(parts) - len(shown),
        "slices_from": _axis_start(lowest),
        "weak_slices": weak,
    }


def sample_facts(predictions: pa.Table) -> dict[str, Any]:
    """Return predictions to look at: those whose hashes come first, which is as good as by chance."""
    columns = ["id", "path", "label", "predicted", "probability"]
    sample = predictions.select(columns).sort_by("id").slice(0, SAMPLE).to_pylist()
    return {"sample": sample, "sample_right": sum(one["label"] == one["predicted"] for one in sample)}


def robustness_facts(robustness: Mapping[str, Any]) -> dict[str, Any]:
    """Return a panel for each corruption, and the finding of all."""
    images, clean = robustness["images"], robustness["clean"]["accuracy"]
    untouched = _spoilt(f"{FACTOR}1", robustness["clean"], images)
    panels = {
        CORRUPTION_NAMES.get(name, name): _in_order([_spoilt(amount, one, images) for amount, one in amounts.items()])
        for name, amounts in robustness["corruptions"].items()
    }
    lowest = min((one.low for steps in panels.values() for one in steps), default=0.0)
    start = _axis_start(lowest)  # of all panels
    return {
        "robustness": robustness,
        "panels": [
            (name, finding, steps, figures_evaluation.draw_robustness(clean, drawn, start, f"{name}: {finding}"))
            for name, steps in panels.items()
            for finding in [_panel_finding(clean, steps)]
            for drawn in [_in_order([*steps, untouched]) if _are_factors(steps) else steps]
        ],
        "robustness_finding": _worst_corruption(robustness["corruptions"], clean),
    }


def _spoilt(amount: str, figures: Mapping[str, Any], images: int) -> Measured:
    low, high = figures["accuracy_interval"]
    return Measured(amount, figures["accuracy"], low, high, images)


def _are_factors(steps: list[Measured]) -> bool:
    return all(str(step.at).startswith(FACTOR) for step in steps)


def _in_order(steps: list[Measured]) -> list[Measured]:
    """Put factors in order of size; other amounts are written from mild to strong."""
    return sorted(steps, key=lambda step: float(str(step.at).removeprefix(FACTOR))) if _are_factors(steps) else steps


def _panel_finding(clean: float, steps: list[Measured]) -> str:
    return f"{percent(clean)} as they are; " + ", ".join(f"{percent(step.accuracy)} at {step.at}" for step in steps)


def _worst_corruption(corruptions: Mapping[str, Mapping[str, Any]], clean: float) -> str:
    named = {CORRUPTION_NAMES.get(name, name): amounts for name, amounts in corruptions.items()}
    found = [(one["accuracy"], name, amount) for name, amounts in named.items() for amount, one in amounts.items()]
    if not found:
        return "Nothing was tried."
    accuracy, worst, amount = min(found, key=lambda one: one[0])
    below = [
        name
        for name, amounts in named.items()
        if any(one["accuracy_difference_interval"][1] < 0 for one in amounts.values())
    ]
    fall = f"{percent(accuracy)} right, against {percent(clean)} of photos as they are"
    return f"The worst is {worst} at {amount}: {fall}. {_beyond_chance(below)}"


def _beyond_chance(names: list[str]) -> str:
    if len(names) < 2:
        return f"The fall by {names[0]} is beyond chance." if names else "No fall is beyond chance."
    return f"The falls by {', '.join(names[:-1])} and {names[-1]} are beyond chance."


def _axis_start(lowest: float) -> float:
    """Return where an axis of accuracies begins: the tenth below the lowest, and not so high that nothing is left."""
    return min(0.9, int(lowest * 10) / 10)


def _threshold(row: Mapping[str, str]) -> dict[str, Any]:
    numbers = {name: float(value) for name, value in row.items()}
    return numbers | {"answered": int(row["answered"]), "wrong": int(row["wrong"])}


def _measured(row: Mapping[str, str], at: str) -> Measured:
    return Measured(float(row[at]), float(row["accuracy"]), float(row["low"]), float(row["high"]), int(row["images"]))


def _read_curves(path: Path, x: str, y: str) -> Curves:
    return {
        label: [(float(row[x]), float(row[y])) for row in rows]
        for label, rows in groupby(_read_rows(path), key=lambda row: row["class"])
    }


def _read_rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
