"""The gate before the champion is replaced: the rules, and the verdict on what two models answered.

Pure arithmetic on counts; `registry.contest` has the models answer. The test of `better` is exact and counts
near-duplicates once, so that a challenger that is only as good wins with a probability of at most `gate.alpha`; every
other rule can only refuse.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lineage.words import first_of, size
from registry.records import Answers, Check, Contender, SliceResult, Verdict
from tasks.params import GateParams
from tasks.words import visible

MOST_NAMED = 3  # parts or classes in a check's phrase; the verdict has them all
BYTES_PER_MB = 1_000_000


@dataclass(frozen=True)
class Entrant:
    """What is known of a model besides its answers: see `Contender`; `labels` are the classes that it can answer."""

    name: str
    sha256: str
    bytes: int
    latency_ms: float
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tally:
    """What the models answered to the same photos, at least one.

    Attributes:
        split: Whose photos they are.
        left_out: How many of its photos were not asked.
        answers: Who was right; without a champion, it counts as right on none.
        slices: Accuracy on parts of the photos; those by `class` are the classes.
        groups: How many groups of near-duplicates the challenger won and lost, a photo without near-duplicates being a
            group of its own; None if all photos are without.
    """

    split: Literal["test", "val"]
    left_out: int
    answers: Answers
    slices: list[SliceResult]
    groups: tuple[int, int] | None = None

    @property
    def images(self) -> int:
        """How many photos were asked."""
        answers = self.answers
        return answers.both_right + answers.only_challenger + answers.only_champion + answers.both_wrong

    @property
    def won_and_lost(self) -> tuple[int, int]:
        """How many groups the challenger won, and how many it lost."""
        return self.groups or (self.answers.only_challenger, self.answers.only_champion)


def judge(tally: Tally, *, champion: Entrant | None, challenger: Entrant, rules: GateParams) -> Verdict:
    """Say whether the challenger may replace the champion; without one, whether it is good enough to be the first."""
    answers = tally.answers
    new = _contender(challenger, answers.both_right + answers.only_challenger, tally.images)
    old = None if champion is None else _contender(champion, answers.both_right + answers.only_champion, tally.images)
    won, lost = tally.won_and_lost
    p = None if old is None else mcnemar_p(won, lost)
    checks = [
        *([] if old is None or p is None else [_check_better(tally, new, old, p, rules)]),
        _check_images(tally, rules),
        _check_accuracy(new, rules),
        _check_recall(tally, rules),
        *([] if champion is None else [_check_classes(champion, challenger), _check_slices(tally, rules)]),
        *_check_budgets(new, old, rules),
    ]
    return Verdict(
        promote=all(check.passed for check in checks),
        split=tally.split,
        images=tally.images,
        left_out=tally.left_out,
        champion=old,
        challenger=new,
        answers=None if old is None else answers,
        groups_won=None if old is None else won,
        groups_lost=None if old is None else lost,
        p=p,
        checks=checks,
        slices=tally.slices,
        rules=rules.model_dump(),
    )


def mcnemar_p(won: int, lost: int) -> float:
    """Return how likely the challenger would do so well, or better, if it were only as good as the champion.

    The exact one-sided form of McNemar's test ("Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12, 1947): of the photos that only one of the two recognised, it has
    one half by chance. Dietterich ("Approximate Statistical Tests for Comparing Supervised Classification Learning
    Algorithms", Neural Computation 10, 1998) recommends it for two models that can be trained once only.

    Near-duplicates tend to get the same answer, so a group of them is one trial: won by the model that recognised more
    of its photos, and no trial if both recognised as many. Then this is the sign test on groups.

    Args:
        won: Groups of which the challenger recognised more photos than the champion did.
        lost: Groups of which it recognised fewer.
    """
    from scipy.stats import binomtest

    differing = won + lost
    return float(binomtest(won, differing, 0.5, alternative="greater").pvalue) if differing else 1.0


def slice_drop(part: SliceResult) -> float:
    """Return by how much the challenger's accuracy on a part is below the champion's; 0 without a champion."""
    return 0.0 if part.champion is None else (part.champion - part.challenger) / part.images


def decides(part: SliceResult, rules: GateParams) -> bool:
    """Say whether a part has enough photos to refuse a challenger over it."""
    return part.images >= rules.min_slice_images


def summary(verdict: Verdict) -> str:
    """Return the reason in one line: which rules were not kept, or what the challenger won by."""
    if not verdict.promote:
        return "; ".join(check.text for check in verdict.checks if not check.passed)
    if verdict.champion is None:
        return f"accuracy {verdict.challenger.accuracy:.4f} on {verdict.images:,} photos, no champion before"
    return verdict.checks[0].text


def verdict_markdown(verdict: Verdict) -> str:
    """Return the verdict as Markdown: in words, then the checks and the parts of the photos as tables."""
    from tasks.markdown import align_tables, escape

    challenger, champion = verdict.challenger, verdict.champion
    opponent = "no champion" if champion is None else champion.name
    checks = [
        f"| {check.name} | {'passed' if check.passed else '**refused**'} | {escape(check.text)} |"
        for check in verdict.checks
    ]
    parts = [
        f"| {escape(part.by)}: {escape(part.value)} | {part.images:,} | "
        f"{_share(part.champion, part.images)} | {_share(part.challenger, part.images)} |"
        for part in verdict.slices
    ]
    lines = [
        f"# {escape(challenger.name)} against {escape(opponent)}: {'passed' if verdict.promote else 'refused'}",
        "",
        f"{escape(summary(verdict))}",
        "",
        "| check | | |",
        "|---|---|---|",
        *checks,
        "",
        f"Accuracy on parts of the {verdict.images:,} photos of {verdict.split}:",
        "",
        "| photos | how many | champion | challenger |",
        "|---|---:|---:|---:|",
        *parts,
    ]
    return align_tables("\n".join(lines)) + "\n"


def _share(right: int | None, images: int) -> str:
    return "" if right is None else f"{right / images:.4f}"


def show_p(p: float) -> str:
    """Format a probability: two digits after the point, below 0.1 three significant ones."""
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3g}"


def _contender(entrant: Entrant, right: int, images: int) -> Contender:
    from tasks.metrics import wilson_interval

    return Contender(
        name=entrant.name,
        sha256=entrant.sha256,
        bytes=entrant.bytes,
        latency_ms=entrant.latency_ms,
        right=right,
        accuracy=right / images,
        interval=wilson_interval(right, images),
    )


def _check_better(tally: Tally, new: Contender, old: Contender, p: float, rules: GateParams) -> Check:
    passed = p <= rules.alpha and new.right > old.right  # a large group may outweigh the small ones that were won
    answers, (won, lost) = tally.answers, tally.won_and_lost
    by_photo = (won, lost) == (answers.only_challenger, answers.only_champion)
    by_group = "" if by_photo else f"near-duplicates counted once: {won:,} to {lost:,}; "
    figures = (
        f"{new.accuracy:.4f} against {old.accuracy:.4f} on {tally.images:,} photos; {answers.only_challenger:,} "
        f"recognised by the challenger alone, {answers.only_champion:,} by the champion alone; "
        f"{by_group}p {show_p(p)}, at most {rules.alpha:g} wanted"
    )
    return Check(name="better", passed=passed, text=f"{'better' if passed else 'not better'} ({figures})")


def _check_images(tally: Tally, rules: GateParams) -> Check:
    passed = tally.images >= rules.min_images
    text = (
        f"{'' if passed else 'too few photos: '}{tally.images:,} of {tally.split}, at least {rules.min_images:,} wanted"
    )
    if tally.left_out:
        text += f"; {tally.left_out:,} left out, known to the champion from its training"
    if tally.split == "val":
        text += "; there is no test split, and training chose its epoch on these"
    return Check(name="photos", passed=passed, text=text)


def _check_accuracy(new: Contender, rules: GateParams) -> Check:
    passed = new.accuracy >= rules.min_accuracy
    text = f"accuracy {new.accuracy:.4f}, at least {rules.min_accuracy:g} wanted"
    return Check(name="accuracy", passed=passed, text=text)


def _check_recall(tally: Tally, rules: GateParams) -> Check:
    classes = [part for part in tally.slices if part.by == "class" and decides(part, rules)]
    if not classes:
        text = f"no class has {rules.min_slice_images:,} photos: recall not judged"
        return Check(name="recall", passed=True, text=text)
    ordered = sorted(classes, key=lambda part: part.challenger / part.images)
    low = [part for part in ordered if part.challenger / part.images < rules.min_recall]
    shown = [f"{visible(part.value)} {part.challenger / part.images:.4f}" for part in low or ordered[:1]]
    what = "recall too low" if low else "lowest recall"
    text = f"{what}: {first_of(shown, MOST_NAMED)}, at least {rules.min_recall:g} wanted"
    return Check(name="recall", passed=not low, text=text)


def _check_classes(champion: Entrant, challenger: Entrant) -> Check:
    lost = sorted(visible(label) for label in champion.labels - challenger.labels)
    text = "knows every class of the champion"
    if lost:
        text = f"no longer knows {first_of(lost, MOST_NAMED)}: the champion does; `pawline promote` overrules this"
    return Check(name="classes", passed=not lost, text=text)


def _check_slices(tally: Tally, rules: GateParams) -> Check:
    parts = sorted((part for part in tally.slices if decides(part, rules)), key=slice_drop, reverse=True)
    worse = [part for part in parts if slice_drop(part) > rules.max_slice_drop]
    if worse:
        named = first_of([_describe(part) for part in worse], MOST_NAMED)
        text = f"worse on {named}; a loss of {rules.max_slice_drop:g} is allowed"
    elif parts and slice_drop(parts[0]) > 0:
        text = f"no part loses more than {rules.max_slice_drop:g}; most: {_describe(parts[0])}"
    else:
        text = f"no part of at least {rules.min_slice_images:,} photos loses any"
    return Check(name="parts", passed=not worse, text=text)


def _check_budgets(new: Contender, old: Contender | None, rules: GateParams) -> Iterator[Check]:
    if rules.max_size_mb is not None:
        passed = new.bytes <= rules.max_size_mb * BYTES_PER_MB
        before = "" if old is None else f" (the champion {size(old.bytes)})"
        text = f"{'' if passed else 'too large: '}{size(new.bytes)}{before}, at most {rules.max_size_mb:g} MB wanted"
        yield Check(name="size", passed=passed, text=text)
    if rules.max_latency_ms is not None:
        passed = new.latency_ms <= rules.max_latency_ms
        before = "" if old is None else f" (the champion {old.latency_ms:.1f} ms)"
        text = f"{new.latency_ms:.1f} ms a photo{before}, at most {rules.max_latency_ms:g} ms wanted"
        yield Check(name="latency", passed=passed, text=f"{'' if passed else 'too slow: '}{text}")


def _describe(part: SliceResult) -> str:
    champion = 0 if part.champion is None else part.champion
    figures = f"{part.challenger / part.images:.4f} against {champion / part.images:.4f} on {part.images:,} photos"
    return f"{part.by} {visible(part.value)} ({figures})"
