"""The CSV files of the evaluation's plots."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tasks import calibration, metrics
from tasks.plot_data import write_plots


def write(plots_dir: Path, *, classes: list[str], images: int = 90) -> tuple[metrics.Labels, metrics.Probs]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, len(classes), images)
    probs = rng.dirichlet([0.5] * len(classes), images).astype(np.float32)
    write_plots(labels, probs, classes, 2.0, plots_dir)
    return labels, probs


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_files_and_their_columns(tmp_path: Path) -> None:
    write(tmp_path, classes=["a", "b"])
    columns = {path.stem: path.read_text(encoding="utf-8").splitlines()[0] for path in tmp_path.iterdir()}
    assert columns == {
        "confusion": "actual,predicted",
        "roc": "class,false_positive_rate,true_positive_rate",
        "precision_recall": "class,recall,precision",
        "reliability": "scaling,confidence,accuracy,low,high,images",
        "thresholds": "threshold,answered,share,wrong,accuracy,low,high",
    }


@pytest.mark.parametrize(("classes", "shown"), [(["a", "b"], {"b"}), (["a", "b", "é, <c>"], {"a", "b", "é, <c>"})])
def test_curves_are_of_each_class_against_the_rest(tmp_path: Path, classes: list[str], shown: set[str]) -> None:
    labels, probs = write(tmp_path, classes=classes)
    for name in ("roc", "precision_recall"):
        assert {row["class"] for row in read(tmp_path / f"{name}.csv")} == shown
    points = [(float(r["recall"]), float(r["precision"])) for r in read(tmp_path / "precision_recall.csv")]
    of_last = metrics.precision_recall_points(labels == len(classes) - 1, probs[:, -1])
    assert points[-len(of_last) :] == [pytest.approx(point, abs=1e-6) for point in of_last]
    assert [row["actual"] for row in read(tmp_path / "confusion.csv")] == [classes[label] for label in labels]


def test_the_reliability_before_and_after_scaling(tmp_path: Path) -> None:
    labels, probs = write(tmp_path, classes=["a", "b"])
    rows = read(tmp_path / "reliability.csv")
    for scaling, answers in (("as trained", probs), ("scaled", calibration.scale(probs, 2.0))):
        of_scaling = [row for row in rows if row["scaling"] == scaling]
        assert sum(int(row["images"]) for row in of_scaling) == 90
        gaps = [abs(float(row["confidence"]) - float(row["accuracy"])) * int(row["images"]) for row in of_scaling]
        expected = calibration.expected_calibration_error(labels, answers)
        assert sum(gaps) / 90 == pytest.approx(expected, abs=1e-6)
        assert all(float(row["low"]) <= float(row["accuracy"]) <= float(row["high"]) for row in of_scaling)
    assert {row["scaling"] for row in rows} == {"as trained", "scaled"}


def test_a_class_that_no_image_has(tmp_path: Path) -> None:
    probs = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], np.float32)
    write_plots(np.array([0, 1]), probs, ["a", "b", "c"], 1.0, tmp_path)
    rows = [row for row in read(tmp_path / "precision_recall.csv") if row["class"] == "c"]
    assert [(row["recall"], row["precision"]) for row in rows] == [("0.0", "1.0"), ("0.0", "0.0")]
