"""Calibration against values worked out by hand, and temperatures that are known."""

import numpy as np
import pytest

from tasks import calibration, metrics

LABELS = np.array([0, 1, 1, 0, 1])
PROBS = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.6, 0.4], [0.05, 0.95]], np.float32)


def draw(images: int, *, classes: int, temperature: float, seed: int = 0) -> tuple[metrics.Labels, metrics.Probs]:
    """Labels drawn from probabilities, and answers that need this temperature to become these probabilities."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet([0.3] * classes, images)
    labels = np.array([rng.choice(classes, p=row) for row in true])
    return labels, calibration.scale(true.astype(np.float32), 1 / temperature)


def test_the_bins_by_hand() -> None:
    """0.6 ends the bin from 0.533 and is in it; three are of 0.6, 0.9 and 0.95 have the last two bins."""
    bins = calibration.reliability(LABELS, PROBS)
    assert [part.images for part in bins] == [3, 1, 1]
    assert [part.confidence for part in bins] == pytest.approx([0.6, 0.9, 0.95])
    assert [part.accuracy for part in bins] == pytest.approx([2 / 3, 1, 1])
    expected = (3 * abs(0.6 - 2 / 3) + 0.1 + 0.05) / 5
    assert calibration.expected_calibration_error(LABELS, PROBS) == pytest.approx(expected)


def test_certainty_is_in_the_last_bin() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert calibration.reliability(np.array([0, 0]), sure) == [(1.0, 0.5, 2)]


@pytest.mark.parametrize(("classes", "temperature"), [(2, 0.4), (2, 2.5), (5, 0.6), (5, 3.0)])
def test_a_known_temperature_is_found_and_mended(classes: int, temperature: float) -> None:
    labels, probs = draw(4000, classes=classes, temperature=temperature)
    found = calibration.fit_temperature(labels, probs)
    assert found == pytest.approx(temperature, rel=0.1)
    figures = calibration.calibration(labels, probs, found)
    assert figures["ece_scaled"] < 0.03 < figures["ece"]
    assert figures["loss_scaled"] < metrics.cross_entropy(labels, probs)
    assert figures["temperature"] == found


def test_scaling_keeps_answers_and_sums_and_bears_zeros() -> None:
    probs = np.array([[1.0, 0.0, 0.0], [0.2, 0.5, 0.3], [0.0, 0.5, 0.5]], np.float32)
    np.testing.assert_allclose(calibration.scale(probs, 1), probs, atol=1e-6)
    for temperature in (0.01, 0.5, 3, 100):
        scaled = calibration.scale(probs, temperature)
        assert np.isfinite(scaled).all()
        np.testing.assert_allclose(scaled.sum(axis=1), 1, atol=1e-6)
        assert scaled.argmax(axis=1).tolist() == [0, 1, 1]
    expected = np.sqrt([0.2, 0.5, 0.3])
    np.testing.assert_allclose(calibration.scale(probs, 2)[1], expected / expected.sum(), rtol=1e-6)


def test_a_split_without_a_mistake_does_not_make_certain() -> None:
    """Cross-entropy alone would end at the coldest temperature."""
    labels = np.arange(124) % 2
    sure = np.where(labels == 1, 0.98, 0.02)
    probs = np.stack([1 - sure, sure], axis=1).astype(np.float32)
    temperature = calibration.fit_temperature(labels, probs)
    assert 0.5 < temperature < 1
    assert calibration.scale(probs, temperature).max() < 0.9999


@pytest.mark.parametrize("labels", [[0, 1], [1, 0], [0, 0]])
def test_a_temperature_from_certain_answers_is_within_its_bounds(labels: list[int]) -> None:
    """Right, wrong, and of one class: probabilities of 0 and 1 cost no infinity."""
    temperature = calibration.fit_temperature(np.array(labels), np.eye(2, dtype=np.float32))
    assert calibration.COLDEST <= temperature <= calibration.HOTTEST


def test_what_a_threshold_withholds() -> None:
    rows = calibration.answered_above(LABELS, PROBS)
    assert [row["threshold"] for row in rows] == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]  # no image reaches 0.99
    assert [row["answered"] for row in rows] == [5, 5, 2, 2, 2, 1]
    assert [row["wrong"] for row in rows] == [1, 1, 0, 0, 0, 0]
    assert rows[0]["share"] == 1
    assert rows[2]["share"] == rows[2]["answered"] / 5
    assert (rows[0]["accuracy"], rows[2]["accuracy"]) == (0.8, 1)
    assert (rows[0]["low"], rows[0]["high"]) == metrics.wilson_interval(4, 5)


@pytest.mark.parametrize(
    ("classes", "first"), [(3, [0.3333, 0.4, 0.5]), (5, [0.2, 0.3]), (6, [0.1666, 0.2]), (40, [0.025, 0.1])]
)
def test_more_classes_have_thresholds_from_an_even_guess_up(classes: int, first: list[float]) -> None:
    labels, probs = draw(60, classes=classes, temperature=1)
    probs[0] = np.full(classes, 1 / classes, np.float32)
    rows = calibration.answered_above(labels, probs)
    assert [row["threshold"] for row in rows][: len(first)] == first
    assert rows[0]["answered"] == 60
