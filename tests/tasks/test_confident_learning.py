"""Confident learning against cleanlab, and folds and answers that do not know the photo."""

import numpy as np
import pytest
from cleanlab.count import get_confident_thresholds
from cleanlab.filter import find_label_issues

from tasks import confident_learning
from tasks.confident_learning import FOLDS, Floats, Ints


def blobs(classes: int, *, images: int = 300, flipped: int = 12, seed: int = 0) -> tuple[Floats, Ints, Ints]:
    """Vectors of overlapping classes, labels of which some are wrong, and which."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, images)
    vectors = rng.normal(size=(classes, 8))[true] * 3 + rng.normal(size=(images, 8))
    wrong = rng.choice(images, flipped, replace=False)
    labels = true.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, flipped)) % classes
    return vectors, labels, wrong


def answers(vectors: Floats, labels: Ints, classes: int) -> tuple[Floats, Ints]:
    """Probabilities out of fold, and the folds; every photo is a group of its own."""
    folds = confident_learning.assign_folds([f"photo {index}" for index in range(len(labels))], labels)
    return confident_learning.out_of_fold(vectors.copy(), labels, folds, classes), folds


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_suspects_and_thresholds_are_those_of_cleanlab(classes: int) -> None:
    vectors, labels, wrong = blobs(classes)
    probs, _ = answers(vectors, labels, classes)
    known = np.full(classes, True)
    thresholds = confident_learning.confident_thresholds(labels, probs, known)
    np.testing.assert_allclose(thresholds, get_confident_thresholds(labels, probs), rtol=1e-12)
    suspects, likely = confident_learning.find_suspects(labels, probs, known)
    ranked = find_label_issues(
        labels, probs, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert sorted(ranked) == suspects.tolist()
    assert (likely != labels[suspects]).all()
    assert len(set(wrong) & set(suspects)) >= len(wrong) / 2
    assert len(suspects) < 3 * len(wrong)


def test_thresholds_and_suspects_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    first = np.array([0.9, 0.8, 0.1, 0.3, 0.4])
    probs = np.stack([first, 1 - first], axis=1)
    thresholds = confident_learning.confident_thresholds(labels, probs, np.array([True, True]))
    assert thresholds == pytest.approx([0.6, 0.65])
    assert confident_learning.likely_classes(probs, thresholds).tolist() == [0, 0, 1, 1, -1]
    suspects, likely = confident_learning.find_suspects(labels, probs, np.array([True, True]))
    assert (suspects.tolist(), likely.tolist()) == ([2], [1])


def test_of_several_classes_it_is_the_most_probable() -> None:
    probs = np.array([[0.3, 0.45, 0.25], [0.2, 0.2, 0.6]])
    assert confident_learning.likely_classes(probs, np.array([0.25, 0.3, 0.2])).tolist() == [1, 2]


def test_groups_stay_together_and_folds_are_even() -> None:
    labels = np.arange(400) % 4
    groups = [f"group {index // 8}" for index in range(400)]  # of photos of all classes
    folds = confident_learning.assign_folds(groups, labels)
    assert all(len({folds[i] for i in range(400) if groups[i] == group}) == 1 for group in set(groups))
    assert np.bincount(folds).tolist() == [80] * FOLDS
    order = np.random.default_rng(0).permutation(400)
    assert confident_learning.assign_folds([groups[i] for i in order], labels[order]).tolist() == folds[order].tolist()


def test_a_class_of_two_groups_is_in_two_folds() -> None:
    labels = np.array([0] * 20 + [1] * 2 + [2] * 2 + [3])
    groups = [str(index) for index in range(24)] + ["a"]
    groups[23] = groups[22]  # both photos of class 2 are near-duplicates
    folds = confident_learning.assign_folds(groups, labels)
    assert confident_learning.known_classes(labels, folds, 5).tolist() == [True, True, False, False, False]


def test_a_photo_and_its_near_duplicates_do_not_answer_for_themselves() -> None:
    """Flipping a whole group changes the answer to none of its photos."""
    vectors, labels, _ = blobs(2, images=60, flipped=0)
    groups = ["twins", "twins", *(str(index) for index in range(58))]
    folds = confident_learning.assign_folds(groups, labels)
    probs = confident_learning.out_of_fold(vectors.copy(), labels, folds, 2)
    flipped = labels.copy()
    flipped[:2] = 1 - flipped[:2]
    again = confident_learning.out_of_fold(vectors.copy(), flipped, folds, 2)
    assert again[:2].tolist() == probs[:2].tolist()
    assert not np.array_equal(again[2:], probs[2:])


def test_the_answers_are_good_and_probabilities() -> None:
    vectors, labels, _ = blobs(3, flipped=0)
    vectors = np.hstack([vectors, np.full((len(vectors), 1), 7.0)])  # a channel that is the same everywhere
    probs, _ = answers(vectors, labels, 3)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=3e-6)
    assert (probs.argmax(axis=1) == labels).mean() > 0.9
    assert (probs == probs.round(6)).all()


def test_the_regression_is_at_its_minimum() -> None:
    """There the gradient is nought: the mean of (probability - label) x vector, and L2 x weight, cancel out."""
    vectors, labels, _ = blobs(3)
    used = np.arange(len(labels)) % 4 > 0
    weights = confident_learning._fit_regression(vectors, labels, used, 3)
    probs = confident_learning._softmax(vectors[used] @ weights[1:] + weights[0])
    errors = probs - np.eye(3)[labels[used]]
    np.testing.assert_allclose(vectors[used].T @ errors / used.sum(), -confident_learning.L2 * weights[1:], atol=1e-4)
    np.testing.assert_allclose(errors.mean(axis=0), 0, atol=1e-4)
