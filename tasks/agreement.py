"""How far the answers of an export are from those of the classifier it was made from."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.metrics import Labels, Probs, wilson_interval


@dataclass
class Agreement:
    """Counts over batches of photos, for one export. A row of NaN is an answer that the export could not give."""

    images: int = 0
    unread: int = 0
    max_difference: float = 0.0
    nasty_max_difference: float = 0.0
    same_answers: int = 0
    both_right: int = 0
    only_export_right: int = 0
    only_classifier_right: int = 0
    _sum: float = 0.0

    def add(self, expected: Probs, answered: Probs, labels: Labels) -> None:
        """Count a batch: probabilities [images, classes] of the classifier and of the export, and what is right."""
        read = ~np.isnan(answered).all(axis=1)
        self.unread += int((~read).sum())
        expected, answered, labels = expected[read], answered[read], labels[read]
        differences = _differences(expected, answered)
        self.images += len(labels)
        self.max_difference = max([self.max_difference, *differences.tolist()])
        self._sum += float(differences.sum())
        was, now = expected.argmax(axis=1), answered.argmax(axis=1)
        self.same_answers += int((was == now).sum())
        self.both_right += int(((was == labels) & (now == labels)).sum())
        self.only_export_right += int(((was != labels) & (now == labels)).sum())
        self.only_classifier_right += int(((was == labels) & (now != labels)).sum())

    def add_nasty(self, expected: Probs, answered: Probs) -> None:
        """Count a batch of nasty images, of which only the largest difference is of interest."""
        read = ~np.isnan(answered).all(axis=1)
        differences = _differences(expected[read], answered[read])
        self.nasty_max_difference = max([self.nasty_max_difference, *differences.tolist()])

    @property
    def accuracy_difference(self) -> float:
        """The export's accuracy less the classifier's."""
        return (self.only_export_right - self.only_classifier_right) / max(1, self.images)

    def figures(self) -> dict[str, object]:
        """Return the figures as JSON values; differences are of a probability, the largest of an image's classes."""
        images = max(1, self.images)
        both, gained, lost = self.both_right, self.only_export_right, self.only_classifier_right
        return {
            "max_difference": self.max_difference,
            "mean_difference": self._sum / images,
            "nasty_max_difference": self.nasty_max_difference,
            "accuracy": (both + gained) / images,
            "accuracy_difference": self.accuracy_difference,
            "accuracy_difference_interval": paired_difference_interval(both, gained, lost, images),
            "same_answers": self.same_answers / images,
            "unread_images": self.unread,
        }


def _differences(expected: Probs, answered: Probs) -> npt.NDArray[np.float64]:
    """The largest difference of a probability of each image; infinite where a probability is no number."""
    difference = np.abs(expected.astype(np.float64) - answered).max(axis=1)
    return np.where(np.isnan(difference), np.inf, difference)


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
