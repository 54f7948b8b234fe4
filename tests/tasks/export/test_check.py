"""The verdict on an export."""

import numpy as np
import pytest

from tasks.export.agreement import Agreement
from tasks.export.check import reason_to_refuse, tolerance
from tasks.metrics import paired_difference_interval

LABELS = np.array([0, 0, 1, 1])
EXPECTED = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.8, 0.2]], np.float32)  # the last is wrong


NOTHING = [float("nan")] * 2


def agreement(*answered: list[float], decodes: bool = False) -> Agreement:
    counted = Agreement(decodes)
    counted.add(EXPECTED, np.array(answered, np.float32), LABELS)
    return counted


def test_figures() -> None:
    counted = agreement([0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.45, 0.55])  # one wrong now, another right
    counted.add_nasty(EXPECTED[:1], np.array([[0.5, 0.5]], np.float32))
    figures = counted.figures()
    assert figures["max_difference"] == pytest.approx(0.35)
    assert figures["mean_difference"] == pytest.approx((0.2 + 0.35) / 4)
    assert figures["nasty_max_difference"] == pytest.approx(0.4)
    assert (figures["accuracy"], figures["accuracy_difference"], figures["same_answers"]) == (0.75, 0.0, 0.5)


def test_batches_add_up() -> None:
    answered = np.array([[0.7, 0.3], [0.4, 0.6], [0.4, 0.6], [0.45, 0.55]], np.float32)
    counted = Agreement()
    for at in range(4):
        counted.add(EXPECTED[at : at + 1], answered[at : at + 1], LABELS[at : at + 1])
    assert counted.figures() == agreement(*answered.tolist()).figures()


def test_what_could_not_be_read_is_counted_and_left_out() -> None:
    counted = agreement([0.9, 0.1], NOTHING, NOTHING, [0.8, 0.2], decodes=True)
    counted.add_nasty(EXPECTED[:3], np.array([NOTHING, EXPECTED[1], NOTHING], np.float32))
    figures = counted.figures()
    assert (figures["unread_images"], figures["max_difference"], figures["accuracy"]) == (2, 0, 0.5)
    assert (figures["nasty_unread_images"], figures["nasty_max_difference"]) == (2, 0)
    reason = reason_to_refuse("saved_model_bytes", agreement(NOTHING, NOTHING, NOTHING, NOTHING, decodes=True))
    assert reason == "it can read none of the 4 validation photos"


@pytest.mark.parametrize("name", ["onnx", "litert_int8"])
def test_what_is_given_squares_must_answer_every_one(name: str) -> None:
    counted = agreement(NOTHING, *EXPECTED[1:].tolist())
    assert reason_to_refuse(name, counted) == "the answer for a validation photo is not a number"
    assert (counted.images, counted.unread) == (4, 0)
    counted = agreement(*EXPECTED.tolist())
    counted.add_nasty(EXPECTED[:1], np.array([NOTHING], np.float32))
    assert reason_to_refuse(name, counted) == "the answer for a nasty image is not a number"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([0.9, 0.1], None),
        ([0.90009, 0.09991], None),
        ([0.8, 0.2], "the probability of a validation photo differs by 0.1, 0.0001 is allowed"),
        ([float("nan"), 0.1], "the answer for a validation photo is not a number"),
    ],
)
def test_a_probability_that_differs(answer: list[float], reason: str | None) -> None:
    assert reason_to_refuse("onnx", agreement(answer, *EXPECTED[1:].tolist())) == reason


def test_a_nasty_image_that_differs() -> None:
    counted = agreement(*EXPECTED.tolist())
    counted.add_nasty(EXPECTED[:1], EXPECTED[1:2])
    assert reason_to_refuse("openvino", counted) == "the probability of a nasty image differs by 0.3, 0.0001 is allowed"


@pytest.mark.parametrize(
    ("images", "lost", "reason"),
    [
        (1000, 10, None),
        (1000, 11, "of the accuracy on validation 0.0110 is lost, 0.0100 is allowed"),
        (30, 1, None),  # one photo always
        (30, 2, "of the accuracy on validation 0.0667 is lost, 0.0333 is allowed"),
    ],
)
def test_int8_may_lose_a_point_of_the_accuracy(images: int, lost: int, reason: str | None) -> None:
    counted = Agreement(images=images, max_difference=0.4, both_right=images - lost, only_classifier_right=lost)
    assert reason_to_refuse("litert_int8", counted) == reason
    gained = Agreement(images=images, both_right=images - lost, only_export_right=lost)
    assert reason_to_refuse("litert_int8", gained) is None
    assert tolerance("litert_int8") == {"tolerance": 0.01, "tolerance_of": "accuracy"}


def test_interval_of_a_paired_difference() -> None:
    # Fagerland, Lydersen and Laake, "Recommended tests and confidence intervals for paired binomial proportions"
    # (2014): airway hyper-responsiveness before and after stem cell transplantation.
    assert paired_difference_interval(1, 1, 7, 21) == pytest.approx((-0.507, -0.026), abs=5e-4)
    low, high = paired_difference_interval(2300, 0, 0, 2300)  # no pair differs, which is no proof that none would
    assert -0.002 < low < 0 < high < 0.002
