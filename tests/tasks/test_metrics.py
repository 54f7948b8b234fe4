"""Figures of merit against values worked out by hand or by brute force."""

import numpy as np
import pytest

from tasks import metrics

LABELS = np.array([0, 1, 1, 0, 1])
PROBS = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]], np.float32)


def pairs_in_order(positive: np.ndarray, scores: np.ndarray) -> float:
    pairs = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    return float(np.mean(pairs))


def test_the_probability_of_each_class() -> None:
    of_second = np.array([[0.25], [1.0]], np.float32)
    assert metrics.probs_of_classes(of_second).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert metrics.probs_of_classes(of_second).dtype == np.float32
    assert metrics.probs_of_classes(PROBS) is PROBS


def test_by_hand() -> None:
    assert metrics.accuracy(LABELS, PROBS) == pytest.approx(4 / 5)
    loss = -np.log([0.9, 0.6, 0.4, 0.6, 0.8]).mean()
    assert metrics.cross_entropy(LABELS, PROBS) == pytest.approx(loss, abs=1e-6)
    assert metrics.auc(LABELS, PROBS) == pytest.approx((2 + 1.5 + 2) / 6)  # six pairs, one of them a tie
    assert metrics.summary(LABELS, PROBS).keys() == {"accuracy", "auc", "loss"}


def test_a_probability_of_zero_costs_no_infinity() -> None:
    probs = np.array([[1.0, 0.0]], np.float32)
    assert metrics.cross_entropy(np.array([1]), probs) == pytest.approx(-np.log(1e-7))


def test_auc_with_ties_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    probs = rng.integers(0, 5, (90, 3)).astype(np.float32)
    expected = np.mean([pairs_in_order(labels == index, probs[:, index]) for index in range(3)])
    assert metrics.auc(labels, probs) == pytest.approx(expected)


def test_auc_of_one_class_is_unknown() -> None:
    assert metrics.auc(np.array([1, 1]), PROBS[:2]) is None
    assert metrics.bootstrap_auc_interval(np.array([1, 1]), PROBS[:2]) is None


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_wilson_interval_as_published(correct: int, images: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(correct, images) == pytest.approx((low, high), abs=5e-5)


def test_bootstrap_interval_holds_the_area_and_repeats() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    second = np.clip(labels * 0.3 + rng.random(100) * 0.7, 0, 1)
    probs = np.stack([1 - second, second], axis=1).astype(np.float32)
    interval = metrics.bootstrap_auc_interval(labels, probs)
    area = metrics.auc(labels, probs)
    assert interval is not None
    assert area is not None
    assert 0.5 < interval[0] < area < interval[1] <= 1
    assert metrics.bootstrap_auc_interval(labels, probs) == interval


def test_roc_by_hand() -> None:
    points = metrics.roc_points(LABELS == 1, PROBS[:, 1])
    assert points == [(0, 0), (0, 1 / 3), (0, 2 / 3), (1 / 2, 1), (1, 1)]


def test_the_area_under_the_roc_points_is_the_auc() -> None:
    rng = np.random.default_rng(3)
    positive, scores = rng.random(60) < 0.4, rng.integers(0, 9, 60) / 9
    points = np.array(metrics.roc_points(positive, scores))
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert (np.diff(points, axis=0) >= 0).all()
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(pairs_in_order(positive, scores))


def test_precision_and_recall_by_hand() -> None:
    points = metrics.precision_recall_points(LABELS == 1, PROBS[:, 1])
    assert points == [(0, 1), (1 / 3, 1), (2 / 3, 1), (1, 3 / 4), (1, 3 / 5)]


def test_precision_and_recall_at_every_threshold() -> None:
    rng = np.random.default_rng(4)
    positive, scores = rng.random(60) < 0.4, rng.integers(0, 9, 60) / 9
    expected = [
        ((positive & called).sum() / positive.sum(), (positive & called).sum() / called.sum())
        for called in (scores >= threshold for threshold in np.unique(scores)[::-1])
    ]
    assert metrics.precision_recall_points(positive, scores)[1:] == [pytest.approx(point) for point in expected]


def test_all_right_and_all_wrong_reach_the_ends() -> None:
    """Which floats miss by their last digit, for every fourth number of images."""
    for images in range(1, 501):
        assert metrics.wilson_interval(images, images)[1] == 1
        assert metrics.wilson_interval(0, images)[0] == 0


def test_auc_sees_probabilities_near_zero() -> None:
    probs = metrics.probs_of_classes(np.array([[2e-8], [1e-9]], np.float32))
    assert metrics.auc(np.array([1, 0]), probs) == 1
