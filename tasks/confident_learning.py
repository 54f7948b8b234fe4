"""Confident learning: which labels a model that was not fitted on them contradicts.

Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 2021, arXiv:1911.00068).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 5
# Of half the squared weights, against the mean loss. With 3 % of the labels flipped, the first suspects, as many as
# were flipped, hold at 0.01, 0.03, 0.1, 0.3 and 1: of 310 flipped cats and dogs 254, 258, 260, 255, 255; of 208 aliens
# and predators 143, 147, 149, 145, 134; of 88 drawn pictures 78, 75, 74, 70, 66.
L2 = 0.03
SMALLEST_GRADIENT = 1e-5  # where it ends, after some 30 steps for two classes
MOST_STEPS = 1000
DECIMALS = 6  # of a probability: what another order of summation does in float64 lies far below
TOLERANCE = 1e-6  # of a threshold, as in cleanlab
UNREACHABLE = 2.0


def assign_folds(groups: Sequence[str], labels: Ints) -> Ints:
    """Return the fold of each photo, in the same way every time.

    Groups stay together. Within each class they are dealt out in the order of their digests, so that a class of two
    groups is in two folds. There are fewer folds than `FOLDS` if there are fewer groups.
    """
    label_of: dict[str, int] = {}
    for group, label in zip(groups, labels.tolist(), strict=True):
        label_of[group] = min(label, label_of.get(group, label))
    dealt = sorted(label_of, key=lambda group: (label_of[group], hashlib.sha256(group.encode()).digest()))
    fold_of = {group: number % FOLDS for number, group in enumerate(dealt)}
    return np.array([fold_of[group] for group in groups], np.int64)


def out_of_fold(vectors: Floats, labels: Ints, folds: Ints, classes: int) -> Floats:
    """Return the probabilities [photos, classes] that regressions on the other folds give.

    Args:
        vectors: [photos, channels]; standardised in place: of 25,000 they are 256 MB, which may lie in a mapped file.
        labels: Class indices.
        folds: Of each photo.
        classes: How many there are.
    """
    from threadpoolctl import threadpool_limits

    vectors -= vectors.mean(axis=0)
    deviations = np.sqrt(np.einsum("ij,ij->j", vectors, vectors) / len(vectors))  # `std` would square a copy
    vectors /= np.maximum(deviations, 1e-6)  # a channel that is the same everywhere says nothing
    probs = np.full((len(labels), classes), 1 / classes)
    # The products are too thin for two threads: beside other work these wait for each other, up to 50 times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        for fold in np.unique(folds):
            held_out = folds == fold
            if not held_out.all():
                weights = _fit_regression(vectors, labels, ~held_out, classes)
                probs[held_out] = _softmax(vectors @ weights[1:] + weights[0])[held_out]
    return probs.round(DECIMALS)


def _fit_regression(vectors: Floats, labels: Ints, used: Bools, classes: int) -> Floats:
    """Return intercepts and weights, [1 + channels, classes], of a multinomial logistic regression with an L2 penalty.

    Args:
        vectors: Of all photos: the others have no weight, which is cheaper than a copy without them.
        labels: Class indices.
        used: Which photos it is fitted on; at least one.
        classes: How many there are.
    """
    from scipy.optimize import minimize  # 0.3 s

    shape = vectors.shape[1] + 1, classes
    own = np.arange(len(labels)), labels
    share = used / used.sum()

    def cost(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        probs = _softmax(vectors @ weights[1:] + weights[0])
        loss = -share @ np.log(np.maximum(probs[own], np.finfo(float).tiny))
        probs[own] -= 1
        slopes = probs * share[:, None]
        gradient = np.vstack([slopes.sum(axis=0), vectors.T @ slopes + L2 * weights[1:]])
        return float(loss + L2 * (weights[1:] ** 2).sum() / 2), gradient.ravel()

    options = {"gtol": SMALLEST_GRADIENT, "ftol": 0, "maxiter": MOST_STEPS}
    found = minimize(cost, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
    weights: Floats = found.x.reshape(shape)
    return weights


def _softmax(logits: Floats) -> Floats:
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: Floats = exps / exps.sum(axis=1, keepdims=True)
    return probs


def known_classes(labels: Ints, folds: Ints, classes: int) -> Bools:
    """Return which classes lie in two folds or more: each photo of another has an answer that never saw its class."""
    return np.array([len(np.unique(folds[labels == index])) > 1 for index in range(classes)], np.bool_)


def confident_thresholds(labels: Ints, probs: Floats, known: Bools) -> Floats:
    """Return of each class the mean probability which photos with this label have of it; nothing reaches an unknown."""
    means = (probs[labels == index, index].mean() if here else UNREACHABLE for index, here in enumerate(known))
    return np.maximum(list(means), 2 * TOLERANCE)


def likely_classes(probs: Floats, thresholds: Floats) -> Ints:
    """Return the class that each photo confidently belongs to: the one whose threshold it reaches; -1 if there is none.

    Of several, it is the most probable class of all, as in cleanlab.
    """
    reached = probs >= thresholds - TOLERANCE
    likely = np.where(reached.sum(axis=1) > 1, probs.argmax(axis=1), reached.argmax(axis=1))
    return np.where(reached.any(axis=1), likely, -1)


def find_suspects(labels: Ints, probs: Floats, known: Bools) -> tuple[Ints, Ints]:
    """Return the indices of photos off the diagonal of the confident joint, and the class that each is likely of."""
    likely = likely_classes(probs, confident_thresholds(labels, probs, known))
    suspects = np.flatnonzero((likely >= 0) & (likely != labels) & known[labels])
    return suspects, likely[suspects]
