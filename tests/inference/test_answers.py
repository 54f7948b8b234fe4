from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.answers import UNSURE, answer
from inference.classifier import Classifier, load
from inference.inputs import Photo
from tests.inference.running import picture


@pytest.fixture(scope="module")
def classifier(colours: Path) -> Classifier:
    return load(colours, threads=1)


def test_answers_come_in_order_and_the_unreadable_among_them(classifier: Classifier) -> None:
    shown = ["red", "blue", "green"] * 20
    photos = [Photo(f"{number}", content=picture(colour)) for number, colour in enumerate(shown)]
    photos.insert(7, Photo("text", content=b"text"))
    photos.insert(30, Photo("none.jpg"))
    answers = list(answer(photos, classifier))
    assert [one.photo for one in answers] == photos
    assert [one.label for one in answers if one.label] == shown
    assert [(one.photo.name, one.label, one.reason) for one in answers if one.reason] == [
        ("text", None, "not_an_image"),
        ("none.jpg", None, "missing"),
    ]
    red = answers[0]
    assert red.predicted == "red"
    assert red.probability == max(red.probabilities) == red.probabilities[0]
    assert sum(red.probabilities) == pytest.approx(1)
    assert (red.content, red.image) == (None, None), "nothing is kept that was not asked for"


def test_a_class_is_withheld_below_a_probability(classifier: Classifier) -> None:
    photos = [Photo("red", content=picture("red")), Photo("gray", content=picture("gray"))]
    surest = next(answer(photos, classifier)).probability or 0
    assert surest > 0.9
    assert [one.label for one in answer(photos, classifier, unsure_below=surest)] == ["red", UNSURE]
    [_, gray] = answer(photos, classifier, unsure_below=surest)
    assert gray.predicted in classifier.labels
    assert [one.label for one in answer(photos, classifier, unsure_below=1)] == [UNSURE, UNSURE]


def test_photos_are_taken_as_they_are_answered(classifier: Classifier) -> None:
    taken = 0

    def endless() -> Iterator[Photo]:
        nonlocal taken
        while True:
            taken += 1
            yield Photo("red", content=picture("red"))

    answers = answer(endless(), classifier, keep=True)
    for _ in range(50):
        kept = next(answers)
    answers.close()
    assert taken < 200
    assert kept.content == picture("red")
    assert kept.image is not None
    assert kept.image.shape == (96, 96, 3)
