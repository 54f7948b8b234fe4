"""Exports held against the classifier that they were made from, and the verdict on each."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.export.agreement import Agreement
from tasks.export.photos import Batch, make_nasty
from tasks.export.replay import PATHS, Photos, Replay, open_export, replay_keras
from tasks.metrics import Probs, probs_of_classes
from tasks.params import ImageParams
from tasks.progress import Progress
from tasks.quiet_tf import Model

BATCH = 8  # every engine keeps the memory that its largest batch took, all of them at the same time
# How far a probability may be from the classifier's.
TOLERANCES = {
    "keras": 1e-5,  # the same network by the same library
    "h5": 1e-5,
    "saved_model": 1e-4,  # float32 throughout, summed up in another order
    "saved_model_bytes": 1e-4,
    "litert_float32": 1e-4,
    "openvino": 1e-4,
    "onnx": 1e-4,
    "litert_float16": 0.05,  # of MobileNetV2, whose early filters cancel most of the signal: 0.013 on real photos
}
# int8 moves probabilities; what counts is how many answers are right, and how much of that may be lost. One photo may
# always be: where there are fewer than a hundred, that is more than a point.
ACCURACY_TOLERANCES = {"litert_int8": 0.01}


class Comparison(NamedTuple):
    """How exports agree with the classifier, by name, and on how many images that was seen."""

    agreements: dict[str, Agreement]
    images: int
    nasty_images: int


def compare(
    classifier: Model, folder: Path, names: Sequence[str], batches: Iterable[Batch], *, image: ImageParams, total: int
) -> Comparison:
    """Let exports answer for photos and for nasty images made of the first of them.

    Args:
        classifier: The original.
        folder: Where the exports are, by `PATHS`.
        names: Which to load.
        batches: The photos.
        image: How they became squares.
        total: How many there are, for the progress bar.
    """
    original = replay_keras(classifier)
    # `keras` is the classifier's own file, byte for byte: its answers are those that the others are held against.
    replays = {name: open_export(name, folder / PATHS[name]) for name in names if name != "keras"}
    agreements = {name: Agreement(decodes=name == "saved_model_bytes") for name in names}
    images = nasty_images = 0

    def answer(photos: Photos) -> tuple[Probs, dict[str, Probs]]:
        expected = _class_probs(original, photos)
        answers = {name: _class_probs(replay, photos) for name, replay in replays.items()}
        return expected, {name: answers.get(name, expected) for name in names}

    with Progress("replay", total=total) as progress:
        for batch in batches:
            if not images:
                nasty = make_nasty(batch.photos, image)
                nasty_images = len(nasty.contents)
                expected, answers = answer(nasty)
                for name, answered in answers.items():
                    agreements[name].add_nasty(expected, answered)
            expected, answers = answer(batch.photos)
            for name, answered in answers.items():
                agreements[name].add(expected, answered, batch.labels)
            images += len(batch.labels)
            progress.advance(len(batch.labels))
    return Comparison(agreements, images, nasty_images)


def tolerance(name: str) -> dict[str, object]:
    """Return how far an export may be from the classifier, and in what, as JSON values."""
    if name in ACCURACY_TOLERANCES:
        return {"tolerance": ACCURACY_TOLERANCES[name], "tolerance_of": "accuracy"}
    return {"tolerance": TOLERANCES[name], "tolerance_of": "probability"}


def reason_to_refuse(name: str, agreement: Agreement) -> str | None:
    """Say in one line why an export is not good enough, or return None."""
    if not agreement.images:
        return f"it can read none of the {agreement.unread} validation photos"
    largest = {"a validation photo": agreement.max_difference, "a nasty image": agreement.nasty_max_difference}
    for where, difference in largest.items():
        if not np.isfinite(difference):
            return f"the answer for {where} is not a number"
    if name in ACCURACY_TOLERANCES:
        allowed = max(ACCURACY_TOLERANCES[name], 1 / agreement.images)
        lost = -agreement.accuracy_difference
        if lost > allowed + 1e-9:  # they are quotients of the same number
            return f"of the accuracy on validation {lost:.4f} is lost, {allowed:.4f} is allowed"
        return None
    for where, difference in largest.items():
        if difference > TOLERANCES[name]:
            return f"the probability of {where} differs by {difference:.2g}, {TOLERANCES[name]:g} is allowed"
    return None


def _class_probs(replay: Replay, photos: Photos) -> Probs:
    starts = range(0, len(photos.contents), BATCH)
    batches = [Photos(photos.contents[at : at + BATCH], photos.squares[at : at + BATCH]) for at in starts]
    return probs_of_classes(np.concatenate([replay(batch) for batch in batches]))
