"""How good the classifier is against the one before: what reports/context.json says, and what may be said of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.metrics import difference_interval
from tasks.stage import PawlineError
from tasks.words import SPLIT_NAMES, percent, points

Interval = tuple[float, float]


@dataclass(frozen=True)
class Context:
    """What no stage's output may hold: other runs, times, machines.

    Attributes:
        is_current: Whether it was written for this classifier.
        against: The champion, the former one if this one replaced it, or the previous run; None if none is known.
        verdict: Whether this classifier was promoted, and why, in a line.
        latency_ms: Median milliseconds for one image, by export format.
        stages: `seconds` of each stage that ran.
        machine: On which the times were taken.
    """

    is_current: bool
    against: Mapping[str, Any] | None = None
    verdict: Mapping[str, Any] | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    machine: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The classifier against another.

    Attributes:
        other: What it is, such as `the champion v2.0.0`.
        finding: In a sentence or two.
        difference: Of the accuracies, as a share; None if they were not measured on the same split.
        interval: The 95 % interval of the difference.
    """

    other: str
    finding: str
    difference: float | None = None
    interval: Interval | None = None


def read_context(path: Path, classifier_sha256: str) -> Context:
    """Read reports/context.json.

    Args:
        path: The file.
        classifier_sha256: This run's classifier. Of a context written for another one, only the champion still holds.

    Raises:
        PawlineError: The file is not what `pawline report` writes.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("classifier_sha256") == classifier_sha256:
            return Context(is_current=True, **raw)
        against = raw["against"]
        if against is None or against["kind"] != "champion":
            return Context(is_current=False)
        return Context(is_current=False, against={**against, "same_classifier": False})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PawlineError(
            f"{path} is damaged ({error}): `git checkout {path}` brings it back, `pawline report` writes it anew"
        ) from error


def compare(evaluation: Mapping[str, Any], context: Context) -> Comparison | None:
    """Say how an evaluation compares with that of the champion or the previous run; None if none is known."""
    against = context.against
    if against is None:
        return None
    other = f"the {against['kind']} {against['name']}"
    if against["same_classifier"]:
        return Comparison(other, f"This is {other}.")
    if against["accuracy"] is None:
        return Comparison(other, f"Not compared with {other}: its figures are not kept here.")
    if evaluation["split"] != against["split"]:
        splits = [f"the {SPLIT_NAMES[one['split']]} split" for one in (against, evaluation)]
        return Comparison(
            other, f"Not comparable with {other}, which was measured on {splits[0]}, this on {splits[1]}."
        )
    difference = evaluation["accuracy"] - against["accuracy"]
    shares = [(one["accuracy"], one["accuracy_interval"]) for one in (evaluation, against)]
    interval = difference_interval(shares[0], shares[1])
    measured = f"{other}, which was right on {percent(against['accuracy'])} of {against['images']:,} images"
    return Comparison(other, f"{_size(difference)} {measured}. {_may_say(interval)}", difference, interval)


def _size(difference: float) -> str:
    shown = points(abs(difference)).removeprefix("+")
    if shown == "0.0":
        return "As accurate as"
    return f"{shown} {'point' if shown == '1.0' else 'points'} {'above' if difference > 0 else 'below'}"


def _may_say(interval: Interval) -> str:
    low, high = interval
    between = f"The 95 % interval of the difference, {points(low)} to {points(high)} points,"
    if low > 0 or high < 0:
        return f"{between} leaves out 0: it is beyond chance."
    return f"{between} holds 0: these photos do not say which is better."
