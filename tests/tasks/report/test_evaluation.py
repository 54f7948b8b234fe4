import re
from pathlib import Path
from typing import Any

import pytest

from tasks.report.evaluation import area_under, average_precision, calibration_facts, robustness_facts
from tests.tasks.report.inputs import write_plots


def test_area_under_a_curve() -> None:
    assert area_under([(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]) == pytest.approx(0.875)
    assert area_under([(0.0, 0.0), (1.0, 0.0)]) is None


def test_average_precision() -> None:
    assert average_precision([(0.0, 1.0), (0.5, 1.0), (0.5, 0.5), (1.0, 0.67)]) == pytest.approx(0.5 + 0.5 * 0.67)
    assert average_precision([(0.0, 1.0), (0.0, 0.0)]) is None


def test_confidence_is_held_against_the_interval_of_the_accuracy(tmp_path: Path) -> None:
    write_plots(tmp_path, ["cat", "dog"], ["dog", "cat"])  # mean confidence 0.9
    calibration = {"ece": 0.1, "ece_scaled": 0.05, "temperature": 1.5}
    findings = [
        calibration_facts(tmp_path, {"accuracy": at, "accuracy_interval": (at - 0.05, at + 0.05), "images": 123} | {
            "calibration": calibration
        })["calibration_finding"]
        for at in (0.8, 0.9, 0.98)
    ]  # fmt: skip
    assert "as trained it is surer than it is right" in findings[0]
    assert "they agree" in findings[1]
    assert "as trained it is less sure than it is right" in findings[2]


def robustness(**spoilt: float) -> dict[str, Any]:
    def measured(accuracy: float) -> dict[str, Any]:
        fall = accuracy - 0.95
        return {
            "accuracy": accuracy,
            "accuracy_interval": [accuracy - 0.1, min(1.0, accuracy + 0.1)],
            "accuracy_difference": fall,
            "accuracy_difference_interval": [fall - 0.15, fall + 0.15],
        }

    corruptions = {name: {"1 px": measured(accuracy)} for name, accuracy in spoilt.items()}
    return {"split": "test", "images": 50, "clean": measured(0.95), "corruptions": corruptions}


def test_the_worst_corruption_is_named_and_only_clear_falls_are_called_so() -> None:
    facts = robustness_facts(robustness(blur=0.9, jpeg=0.5, noise=0.82))
    assert facts["robustness_finding"] == (
        "The worst is JPEG compression at 1 px: 50.0 % right, against 95.0 % of photos as they are. "
        "The fall by JPEG compression is beyond chance."
    )
    assert [name for name, *_ in facts["panels"]] == ["blur", "JPEG compression", "noise"]
    assert robustness_facts(robustness(blur=0.9))["robustness_finding"].endswith("No fall is beyond chance.")
    several = robustness_facts(robustness(blur=0.5, jpeg=0.4, noise=0.3))["robustness_finding"]
    assert several.endswith("The falls by blur, JPEG compression and noise are beyond chance.")


def test_factors_are_in_order_with_the_photos_as_they_are_between() -> None:
    facts = robustness(brightness=0.9)
    one = facts["corruptions"]["brightness"]["1 px"]
    facts["corruptions"]["brightness"] = {"x 0.5": one, "x 1.5": one, "x 0.25": one}
    [(_, finding, steps, drawn)] = robustness_facts(facts)["panels"]
    assert [step.at for step in steps] == ["x 0.25", "x 0.5", "x 1.5"]
    assert finding == "95.0 % as they are; 90.0 % at x 0.25, 90.0 % at x 0.5, 90.0 % at x 1.5"
    assert re.findall(">(x .*?)</text>", drawn) == ["x 0.25", "x 0.5", "x 1", "x 1.5"]
