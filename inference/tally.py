"""What came of many photos, in one line."""

from collections import Counter

from inference.answers import UNSURE, Answer
from inference.classifier import Classifier
from inference.output import visible

RATED = 20  # a rate of fewer photos says nothing
DECODING = "fetch it again, or save it anew from a program that can open it"
HINTS = {  # what to do about a photo that could not be read, by reason
    "missing": "check the path",
    "empty_folder": "give the files themselves if they are photos",
    "no_match": "check the pattern",
    "unreachable": "check the address and the network",
    "unsupported": "download it first, or give the path of a file",
    "unreadable": "make it accessible",
    "not_a_file": "give the photo as a file, or - and the photo on standard input",
    "too_large": "make it smaller",
    "out_of_memory": "make it smaller",
    "not_an_image": "give a JPEG, PNG, WebP, GIF, TIFF or BMP",
}


class Tally:
    """Counts answers, by class, and remembers the first that could not be read.

    Attributes:
        answered: How many were.
        unreadable: How many could not be read.
    """

    def __init__(self) -> None:
        self.answered = self.unreadable = 0
        self._classes: Counter[str] = Counter()
        self._first: Answer | None = None

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        if answer.label is not None:
            self.answered += 1
            self._classes[answer.label] += 1
            return
        self.unreadable += 1
        self._first = self._first or answer

    def summary(self, classifier: Classifier, seconds: float) -> str:
        """Return the counts in words, and the rate.

        Args:
            classifier: Which answered.
            seconds: For decoding, answering and writing, without loading the classifier.
        """
        classes = [label for label in (*classifier.labels, UNSURE) if self._classes[label]]
        parts = [f"{self._classes[label]:,} {visible(label)}" for label in dict.fromkeys(classes)]
        if self.unreadable:
            parts.append(f"{self.unreadable:,} could not be read")
        photos = self.answered + self.unreadable
        rate = f"; {photos / max(seconds, 1e-9):,.0f} images a second" if photos >= RATED else ""
        return f"{', '.join(parts)}{rate} ({classifier.engine}, {classifier.precision})"

    def why_nothing(self) -> str:
        """Return why no photo at all was answered, in one line that says what to do."""
        if self._first is None:
            return "there is nothing to answer: standard input is an empty list"
        photo, reason = visible(self._first.photo.name), self._first.reason
        first = f"{photo}: {visible(self._first.evidence)}: {HINTS.get(reason, DECODING)}"
        return first if self.unreadable == 1 else f"none of {self.unreadable:,} could be read; the first is {first}"
