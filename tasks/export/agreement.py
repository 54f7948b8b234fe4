"""How far the answers of an export are from those of the classifier it was made from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.metrics import Labels, Probs, paired_difference_interval


@dataclass
class Agreement:
    """Counts over batches of photos, for one export.

    Attributes:
        decodes: It is given files, and a row of NaN is a file that it cannot read. Elsewhere NaN is a wrong answer.
    """

    decodes: bool = False
    images: int = 0
    unread: int = 0
    nasty_unread: int = 0
    max_difference: float = 0.0
    nasty_max_difference: float = 0.0
    same_answers: int = 0
    both_right: int = 0
    only_export_right: int = 0
    only_classifier_right: int = 0
    _sum: float = 0.0

    def add(self, expected: Probs, answered: Probs, labels: Labels) -> None:
        """Count a batch: probabilities [images, classes] of the classifier and of the export, and what is right."""
        read = self._read(answered)
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
        read = self._read(answered)
        self.nasty_unread += int((~read).sum())
        differences = _differences(expected[read], answered[read])
        self.nasty_max_difference = max([self.nasty_max_difference, *differences.tolist()])

    def _read(self, answered: Probs) -> npt.NDArray[np.bool_]:
        unread: npt.NDArray[np.bool_] = np.isnan(answered).min(axis=1) & self.decodes
        return ~unread

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
            "nasty_unread_images": self.nasty_unread,
        }


def _differences(expected: Probs, answered: Probs) -> npt.NDArray[np.float64]:
    """The largest difference of a probability of each image; infinite where a probability is no number."""
    difference = np.abs(expected.astype(np.float64) - answered).max(axis=1)
    return np.where(np.isnan(difference), np.inf, difference)
