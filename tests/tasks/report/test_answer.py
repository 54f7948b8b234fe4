from pathlib import Path
from typing import Any

import pytest

from tasks.metrics import difference_interval, wilson_interval
from tasks.report.answer import Context, compare, read_context
from tasks.stage import PawlineError, write_json
from tests.tasks.report.inputs import CHAMPION


def evaluation(right: int, images: int, **changes: object) -> dict[str, Any]:
    figures = {"accuracy": right / images, "accuracy_interval": wilson_interval(right, images), "images": images}
    return {"split": "test", **figures, **changes}


def compared(right: int, images: int, **changes: object) -> str:
    """What is said of 950 of 1,000 right against another."""
    against = CHAMPION | evaluation(right, images) | changes
    found = compare(evaluation(950, 1000), Context(is_current=True, against=against))
    assert found is not None
    return found.finding


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """The examples (a), (c) and (g) of table II in Newcombe (1998), method 10."""
    for one, other, low, high in [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ]:
        shares = [(right / images, wilson_interval(right, images)) for right, images in (one, other)]
        assert difference_interval(shares[0], shares[1]) == pytest.approx((low, high), abs=1e-4)


def test_a_difference_is_called_what_the_photos_allow() -> None:
    assert compared(800, 1000).startswith("15.0 points above the champion v2.0.0, which was right on 80.0 % of 1,000")
    assert compared(800, 1000).endswith("leaves out 0: it is beyond chance.")
    assert compared(990, 1000).startswith("4.0 points below")
    assert compared(940, 1000).startswith("1.0 point above")
    assert compared(940, 1000).endswith("holds 0: these photos do not say which is better.")
    assert compared(950, 1000).startswith("As accurate as the champion v2.0.0")


def test_what_cannot_be_compared_is_not() -> None:
    assert compared(1, 2, same_classifier=True) == "This is the champion v2.0.0."
    assert compared(1, 2, accuracy=None).endswith("its figures are not kept here.")
    other_split = compared(1, 2, split="val", kind="previous run", name="a1b2")
    assert other_split.startswith("Not comparable with the previous run a1b2, which was measured on the validation")
    assert compare(evaluation(1, 2), Context(is_current=True)) is None


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"classifier_sha256": "1", "unheard": 0}', "\xff"])
def test_a_damaged_context_is_named_with_what_to_do(content: str, tmp_path: Path) -> None:
    path = tmp_path / "context.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(PawlineError, match=r"is damaged .*`git checkout \S*context.json` .*`pawline report`") as caught:
        read_context(path, "1")
    assert "\n" not in str(caught.value)


def test_who_was_champion_before_is_called_so_and_forgotten_by_the_next_run(tmp_path: Path) -> None:
    former = {**CHAMPION, "kind": "former champion"}
    found = compare(evaluation(1, 2), Context(is_current=True, against=former))
    assert found is not None
    assert found.other == "the former champion v2.0.0"
    path = tmp_path / "context.json"
    for kind, still_known in (("champion", True), ("former champion", False), ("previous run", False)):
        write_json({"classifier_sha256": "1" * 64, "against": {**CHAMPION, "kind": kind}, "verdict": None}, path)
        assert (read_context(path, "2" * 64).against is not None) == still_known
