"""Figures of merit, from labels and class probabilities."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]  # [images], class indices
Probs = npt.NDArray[np.float32]  # [images, classes], rows add up to 1

Share = tuple[float, tuple[float, float]]  # a share and its 95 % interval

NORMAL_975 = 1.959963984540054  # the standard normal distribution's 97.5 % quantile
BOOTSTRAP_SAMPLES = 1000


def probs_of_classes(answers: npt.NDArray[np.float32]) -> Probs:
    """Return one probability a class, given a classifier's answers: these, or, of two classes, the second's alone."""
    return np.concatenate([1 - answers, answers], axis=1) if answers.shape[1] == 1 else answers


def summary(labels: Labels, probs: Probs) -> dict[str, float | None]:
    """Return accuracy, AUC and loss."""
    return {"accuracy": accuracy(labels, probs), "auc": auc(labels, probs), "loss": cross_entropy(labels, probs)}


def accuracy(labels: Labels, probs: Probs) -> float:
    """Return the share of images whose most probable class is their label."""
    return float((probs.argmax(axis=1) == labels).mean())


def cross_entropy(labels: Labels, probs: Probs) -> float:
    """Return the mean negative log probability of the labels, in nats; clipped at 1e-7 as in Keras."""
    return float(-np.log(np.clip(probs[np.arange(len(labels)), labels], 1e-7, 1)).mean())


def auc(labels: Labels, probs: Probs) -> float | None:
    """Return the area under the ROC curve: the mean over classes of one class against the rest.

    None when no class has both positives and negatives. By ranks, ties counted half (Hanley and McNeil 1982). Of two
    classes both areas are the same; the second's is taken, as in one less a tiny probability its digits are lost.
    """
    if probs.shape[1] == 2:
        return _auc_of_class(labels == 1, probs[:, 1])
    areas = [_auc_of_class(labels == index, probs[:, index]) for index in range(probs.shape[1])]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None


def _auc_of_class(positive: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> float | None:
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    from scipy.stats import rankdata  # 0.7 s

    ranks = rankdata(scores)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    share, z2 = correct / images, NORMAL_975**2
    middle = share + z2 / (2 * images)
    half = NORMAL_975 * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    scale = 1 + z2 / images
    low, high = (middle - half) / scale, (middle + half) / scale
    return (low if correct else 0.0), (high if correct < images else 1.0)  # in exact numbers; floats may miss the ends


def difference_interval(one: Share, other: Share) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares, from theirs by Wilson (Newcombe 1998, method 10).

    It takes the shares as independent: for two classifiers on the same photos it is wider than it need be.
    """
    (p1, (low1, high1)), (p2, (low2, high2)) = one, other
    difference = p1 - p2
    return difference - math.hypot(p1 - low1, high2 - p2), difference + math.hypot(high1 - p1, p2 - low2)


def paired_difference_interval(both: int, first_only: int, second_only: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference, first less second, of two shares of the same images.

    Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data"
    (1998), method 10: Wilson's intervals of both shares, put together with their correlation.

    Args:
        both: Images that count in both shares.
        first_only: Those that count in the first share alone.
        second_only: Those that count in the second alone.
        images: All.
    """
    neither = images - both - first_only - second_only
    first, second = both + first_only, both + second_only
    (low_1, high_1), (low_2, high_2) = wilson_interval(first, images), wilson_interval(second, images)
    below_1, above_1 = first / images - low_1, high_1 - first / images
    below_2, above_2 = second / images - low_2, high_2 - second / images
    cross: float = both * neither - first_only * second_only
    if cross > 0:
        cross = max(cross - images / 2, 0)  # the paper's correction for continuity
    spread = math.sqrt(first * (images - first) * second * (images - second))
    correlation = cross / spread if spread else 0.0
    difference = (first_only - second_only) / images
    down = below_1**2 - 2 * correlation * below_1 * above_2 + above_2**2
    up = above_1**2 - 2 * correlation * above_1 * below_2 + below_2**2
    return difference - math.sqrt(max(0.0, down)), difference + math.sqrt(max(0.0, up))


def bootstrap_auc_interval(labels: Labels, probs: Probs) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the AUC over resampled images (Efron 1979); the seed is fixed."""
    rng = np.random.default_rng(0)
    picks = (rng.integers(0, len(labels), len(labels)) for _ in range(BOOTSTRAP_SAMPLES))
    areas = [area for pick in picks if (area := auc(labels[pick], probs[pick])) is not None]
    if not areas:
        return None
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def roc_points(positive: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> list[tuple[float, float]]:
    """Return (false positive rate, true positive rate) at each distinct threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    true = np.cumsum(positive[order])[last_of_ties] / max(int(positive.sum()), 1)
    false = np.cumsum(~positive[order])[last_of_ties] / max(int((~positive).sum()), 1)
    return [(0.0, 0.0), *zip(false.tolist(), true.tolist(), strict=True)]


def precision_recall_points(positive: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> list[tuple[float, float]]:
    """Return (recall, precision) at each distinct threshold, the highest first.

    Before them (0, 1), where nothing is called positive: there is no precision there, and 1 is scikit-learn's choice.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    true = np.cumsum(positive[order])[last_of_ties]
    called = np.flatnonzero(last_of_ties) + 1
    recall, precision = true / max(int(positive.sum()), 1), true / called
    return [(0.0, 1.0), *zip(recall.tolist(), precision.tolist(), strict=True)]
