from pathlib import Path

from inference.answers import UNSURE, Answer
from inference.classifier import load
from inference.inputs import Photo
from inference.tally import Tally


def tally_of(labels: list[str], unreadable: int = 0) -> Tally:
    tally = Tally()
    for number in range(unreadable):
        tally.add(Answer(Photo(f"{number}\n.jpg"), reason="missing", evidence="no such file or folder"))
    for label in labels:
        tally.add(Answer(Photo("x"), label=label))
    return tally


def test_the_summary_has_every_class_that_was_found_and_the_rate(colours: Path) -> None:
    classifier = load(colours)
    tally = tally_of(["blue"] * 1500 + ["red", UNSURE], unreadable=3)
    assert (tally.answered, tally.unreadable) == (1502, 3)
    assert tally.summary(classifier, 10.0) == (
        "1 red, 1,500 blue, 1 unsure, 3 could not be read; 150 images a second (openvino, float32)"
    )
    assert tally_of(["red"]).summary(classifier, 0.001) == "1 red (openvino, float32)"


def test_why_nothing_was_answered() -> None:
    first = r"0\n.jpg: no such file or folder: check the path"
    assert tally_of([], unreadable=1).why_nothing() == first
    assert tally_of([], unreadable=1200).why_nothing() == f"none of 1,200 could be read; the first is {first}"
    assert tally_of([]).why_nothing() == "there is nothing to answer: standard input is an empty list"
