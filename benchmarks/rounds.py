"""What every comparison does: two sides take turns, round by round, and medians are what is said and kept.

A comparison is a command of its own, `python -m benchmarks.<name>`. With `--results FILE` it adds its figures to a JSON
file, from which `python -m benchmarks.performance_page` writes docs/performance.md.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from benchmarks.machine import describe_machine
from tasks import stage
from tasks.progress import Progress


class Result(TypedDict):
    """A comparison's figures.

    Attributes:
        what: What was timed, in words, its sizes included.
        against: The other side, in words.
        ours: Seconds of each round.
        theirs: Seconds of each round.
        images: Images in a round, or None where a rate says nothing.
        bar: How many times as fast ours should be, or None where nothing was promised.
        notes: What a reader must know of this run, such as accuracies.
        machine: Cores, processor and versions.
    """

    what: str
    against: str
    ours: list[float]
    theirs: list[float]
    images: int | None
    bar: float | None
    notes: list[str]
    machine: str


def compare(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    what: str,
    against: str,
    rounds: int,
    images: int | None = None,
    bar: float | None = None,
) -> Result:
    """Time both sides in turn, as many rounds as asked."""
    sides: tuple[list[float], list[float]] = ([], [])
    with Progress(what, total=2 * rounds, unit="runs") as progress:
        for _ in range(rounds):
            for seconds, side in zip(sides, (ours, theirs), strict=True):
                seconds.append(timed(side))
                progress.advance()
    return make_result(*sides, what=what, against=against, images=images, bar=bar)


def timed(side: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    side()
    return time.perf_counter() - began


def make_result(
    ours: list[float],
    theirs: list[float],
    *,
    what: str,
    against: str,
    images: int | None = None,
    bar: float | None = None,
) -> Result:
    """Return a comparison's figures, rounded to a tenth of a millisecond."""
    ours, theirs = ([round(seconds, 4) for seconds in side] for side in (ours, theirs))
    return {
        "what": what,
        "against": against,
        "ours": ours,
        "theirs": theirs,
        "images": images,
        "bar": bar,
        "notes": [],
        "machine": describe_machine(),
    }


def times_as_fast(result: Result) -> float:
    """Return the median, over the rounds, of how many times as fast ours was."""
    return statistics.median(slow / fast for slow, fast in zip(result["theirs"], result["ours"], strict=True))


def describe(result: Result) -> str:
    """Say it in one line, as `an epoch of stage 2: 6.4 s, plain Keras 25.1 s: 3.9 times as fast (bar 2), 3 rounds`."""
    bar = "" if result["bar"] is None else f" (bar {result['bar']:g})"
    rounds = len(result["ours"])
    return (
        f"{result['what']}: {_figure(result, result['ours'])}, {result['against']} "
        f"{_figure(result, result['theirs'])}: {times_as_fast(result):.2f} times as fast{bar}, "
        f"{rounds} {'round' if rounds == 1 else 'rounds'}"
    )


def _figure(result: Result, seconds: list[float]) -> str:
    median = statistics.median(seconds)
    return f"{median:.2f} s" if result["images"] is None else f"{result['images'] / median:,.1f} images a second"


def add_options(parser: argparse.ArgumentParser, *, rounds: int = 3) -> None:
    """Add `--rounds` and `--results`."""
    parser.add_argument("--rounds", type=int, default=rounds, help=f"(default: {rounds})")
    parser.add_argument("--results", type=Path, metavar="FILE", help="adds the figures to this JSON file")


def report(results: dict[str, Result], path: Path | None) -> None:
    """Print each comparison and, where a file is named, keep its figures there under its name."""
    for result in results.values():
        print(describe(result))
        for note in result["notes"]:
            print(f"  {note}")
    if path is not None:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        stage.write_json(known | results, path)
