import json
import time
from pathlib import Path

import pytest

from benchmarks import rounds


def test_sides_take_turns_and_each_is_timed() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    result = rounds.compare(
        lambda: side("ours", 0.0), lambda: side("theirs", 0.05), what="a nap", against="a longer one", rounds=3, bar=2.0
    )
    assert order == ["ours", "theirs"] * 3
    assert max(result["ours"]) < 0.05 <= min(result["theirs"])
    assert (result["bar"], result["images"], result["notes"]) == (2.0, None, [])
    assert "cores" in result["machine"]


def test_the_ratio_is_the_median_of_the_rounds_own() -> None:
    result = rounds.make_result([1.0, 2.0, 4.0], [2.0, 10.0, 4.0], what="x", against="y")
    assert rounds.times_as_fast(result) == 2.0  # of 2, 5 and 1; the medians alone would give 4 / 2, the means 2.3


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (None, "an epoch: 2.00 s, plain Keras 8.00 s: 4.00 times as fast (bar 3), 1 round"),
        (100, "an epoch: 50.0 images a second, plain Keras 12.5 images a second: 4.00 times as fast (bar 3), 1 round"),
    ],
)
def test_it_is_said_in_one_line(images: int | None, line: str) -> None:
    result = rounds.make_result([2.0], [8.0], what="an epoch", against="plain Keras", images=images, bar=3.0)
    assert rounds.describe(result) == line


def test_figures_are_added_to_those_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "performance.json"
    first, second = (rounds.make_result([1.0], [seconds], what="x", against="y") for seconds in (2.0, 3.0))
    rounds.report({"a": first, "b": first}, path)
    rounds.report({"b": second}, path)
    rounds.report({"c": first}, None)
    assert json.loads(path.read_text()) == {"a": first, "b": second}
    assert capsys.readouterr().out.count("times as fast") == 4
