"""The rules one by one, and how often the gate promotes a model that is only as good."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gate_power import Setting, joint_probabilities, simulate
from registry.gate import Entrant, Tally, judge, mcnemar_p, summary, verdict_markdown
from registry.gate_counts import count_groups
from registry.records import Answers, SliceResult, Verdict
from tasks.params import check_params
from tests.conftest import ROOT

RULES = check_params(ROOT / "params.yaml").gate
OLD, NEW = Entrant("v1.0.0", "a" * 64, 9_700_000, 20.0), Entrant("retrain-1", "b" * 64, 9_800_000, 25.0)


def part(by: str, value: str, images: int, challenger: int, champion: int | None) -> SliceResult:
    return SliceResult(by=by, value=value, images=images, challenger=challenger, champion=champion)


def tally(answers: tuple[int, int, int, int], slices: Sequence[SliceResult] = ()) -> Tally:
    """Of: both right, only the challenger, only the champion, none."""
    names = ("both_right", "only_challenger", "only_champion", "both_wrong")
    return Tally("test", 0, Answers(**dict(zip(names, answers, strict=True))), list(slices))


def verdict_on(counted: Tally, *, champion: Entrant | None = OLD, **rules: float | None) -> Verdict:
    return judge(counted, champion=champion, challenger=NEW, rules=RULES.model_copy(update=rules))


def refused(verdict: Verdict) -> list[str]:
    assert verdict.promote is all(check.passed for check in verdict.checks)
    return [check.name for check in verdict.checks if not check.passed]


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (4, 0, 1 / 16), (0, 5, 1.0), (7, 1, 9 / 256), (3, 3, 42 / 64)],
)
def test_the_test_is_the_tail_of_a_fair_coin(won: int, lost: int, p: float) -> None:
    assert mcnemar_p(won, lost) == pytest.approx(p, rel=1e-12)


def test_a_challenger_wins_that_is_better_beyond_chance() -> None:
    won = verdict_on(tally((60, 5, 0, 2)))
    assert (won.promote, won.groups_won, won.groups_lost, won.p) == (True, 5, 0, 1 / 32)
    assert won.champion is not None
    assert (won.challenger.right, won.champion.right, won.images) == (65, 60, 67)
    assert won.challenger.interval[0] < 65 / 67 < won.challenger.interval[1]
    assert summary(won) == (
        "better (0.9701 against 0.8955 on 67 photos; 5 recognised by the challenger alone, 0 by the champion "
        "alone; p 0.0312, at most 0.05 wanted)"
    )
    for close in ((61, 4, 0, 2), (62, 0, 0, 5), (55, 6, 6, 0), (60, 0, 5, 2)):
        assert refused(verdict_on(tally(close))) == ["better"]
    assert summary(verdict_on(tally((66, 0, 0, 1)))) == (
        "not better (0.9851 against 0.9851 on 67 photos; 0 recognised by the challenger alone, 0 by the "
        "champion alone; p 1.00, at most 0.05 wanted)"
    )


@pytest.mark.parametrize(
    ("rules", "name", "text"),
    [
        ({"min_images": 68}, "photos", "too few photos: 67 of test, at least 68 wanted"),
        ({"min_accuracy": 0.98}, "accuracy", "accuracy 0.9701, at least 0.98 wanted"),
        ({"min_recall": 0.95}, "recall", "recall too low: cat 0.9412, at least 0.95 wanted"),
        ({"max_size_mb": 9.75}, "size", "too large: 9.8 MB (the champion 9.7 MB), at most 9.75 MB wanted"),
        (
            {"max_latency_ms": 24.5},
            "latency",
            "too slow: 25.0 ms a photo (the champion 20.0 ms), at most 24.5 ms wanted",
        ),
    ],
)
def test_each_rule_refuses_by_itself(rules: dict[str, float], name: str, text: str) -> None:
    classes = [part("class", "cat", 34, 32, 30), part("class", "dog", 33, 33, 30)]
    won = tally((60, 5, 0, 2), classes)
    assert verdict_on(won).promote
    verdict = verdict_on(won, champion=OLD, **rules)
    assert refused(verdict) == [name]
    assert summary(verdict) == text
    assert verdict.rules == RULES.model_dump() | rules


def test_no_budget_is_no_check() -> None:
    checks = verdict_on(tally((60, 5, 0, 2)), max_size_mb=None, max_latency_ms=None).checks
    assert [check.name for check in checks] == ["better", "photos", "accuracy", "recall", "classes", "parts"]


def test_a_class_that_vanished_refuses() -> None:
    two, three = frozenset({"cat", "dog"}), frozenset({"cat", "dog", "bi\x1brd"})
    counted = tally((60, 5, 0, 2))

    def against(champion: frozenset[str], challenger: frozenset[str]) -> Verdict:
        old, new = replace(OLD, labels=champion), replace(NEW, labels=challenger)
        return judge(counted, champion=old, challenger=new, rules=RULES)

    lost = against(three, two)
    assert refused(lost) == ["classes"]
    assert re.fullmatch(r"no longer knows bi\S*rd: the champion does; `pawline promote` overrules this", summary(lost))
    assert "\x1b" not in summary(lost)
    for champion, challenger in ((two, two), (two, three)):
        won = against(champion, challenger)
        assert won.promote
        assert won.checks[4].text == "knows every class of the champion"


def test_near_duplicates_count_once() -> None:
    """Eight photos recognised by the challenger alone are two trials if they are two groups of four."""
    photos = tally((60, 8, 0, 2))
    assert verdict_on(photos).promote
    verdict = verdict_on(replace(photos, groups=(2, 0)))
    assert refused(verdict) == ["better"]
    assert (verdict.groups_won, verdict.groups_lost, verdict.p) == (2, 0, 1 / 4)
    assert verdict.answers == photos.answers
    assert "0 by the champion alone; near-duplicates counted once: 2 to 0; p 0.25, at most" in summary(verdict)
    assert "near-duplicates" not in summary(verdict_on(replace(photos, groups=(8, 0))))
    assert verdict_on(replace(photos, groups=(0, 0))).p == 1
    fewer_photos = verdict_on(replace(tally((90, 9, 10, 2)), groups=(9, 1)))  # the ten are near-duplicates
    assert fewer_photos.p == 11 / 1024
    assert refused(fewer_photos) == ["better"]


@pytest.mark.parametrize("alike", [1.0, 0.8])
def test_equal_models_seldom_win_on_near_duplicates(alike: float) -> None:
    """Groups of four, of which a share gets the same answers; each photo a trial, equal models won far too often."""
    rng = np.random.default_rng(2)
    contests, groups = 2000, 80
    ids = [str(at // 4) for at in range(4 * groups)]
    wins = wins_by_photo = 0
    for _ in range(contests):
        kinds = rng.choice(4, 4 * groups, p=joint_probabilities(Setting(4 * groups, 0.85, 0.85, 0.35)))
        copied = rng.random(4 * groups) < alike
        kinds = np.where(copied, np.repeat(kinds[::4], 4), kinds)
        wins += mcnemar_p(*count_groups(ids, (kinds >= 2).tolist(), (kinds % 2 == 1).tolist())) <= RULES.alpha
        wins_by_photo += mcnemar_p(int((kinds == 2).sum()), int((kinds == 1).sum())) <= RULES.alpha
    limit = RULES.alpha + 3 * (RULES.alpha * (1 - RULES.alpha) / contests) ** 0.5
    assert 0 < wins / contests <= limit < wins_by_photo / contests


@pytest.mark.parametrize(
    ("lost", "images", "promote"), [(1, 20, True), (2, 20, False), (7, 140, True), (8, 140, False), (19, 19, True)]
)
def test_a_part_may_lose_what_is_allowed_and_small_parts_anything(lost: int, images: int, promote: bool) -> None:
    some = part("format", "PNG", images, images - lost, images)
    verdict = verdict_on(tally((180, 20, 0, 0), [some]))
    assert (refused(verdict) == []) is promote
    assert promote or summary(verdict).startswith("worse on format PNG (0.9")


def test_a_batch_of_wrong_labels_shows_on_the_old_photos() -> None:
    """The challenger learned them, and so wins on the new test photos, which have wrong labels, too."""
    old, new = part("photos", "known to the champion's data", 400, 360, 388), part("photos", "new since", 200, 180, 80)
    verdict = verdict_on(tally((440, 100, 28, 32), [old, new]))
    assert verdict.checks[0].passed
    assert refused(verdict) == ["parts"]
    assert "worse on photos known to the champion's data (0.9000 against 0.9700 on 400 photos)" in summary(verdict)


def test_the_first_model_needs_no_opponent() -> None:
    classes = [part("class", "cat", 34, 32, None), part("class", "dog", 33, 33, None), part("class", "eel", 9, 0, None)]
    first = verdict_on(tally((0, 65, 0, 2), classes), champion=None)
    assert (first.promote, first.champion, first.answers, first.p) == (True, None, None, None)
    assert (first.groups_won, first.groups_lost) == (None, None)
    assert summary(first) == "accuracy 0.9701 on 67 photos, no champion before"
    assert [check.name for check in first.checks] == ["photos", "accuracy", "recall", "size", "latency"]
    assert refused(verdict_on(tally((0, 20, 0, 20)), champion=None)) == ["accuracy"]


def test_what_was_left_out_and_a_split_that_chose_the_epoch_are_said() -> None:
    counted = replace(tally((60, 5, 0, 2)), split="val", left_out=3)
    assert verdict_on(counted).checks[1].text == (
        "67 of val, at least 30 wanted; 3 left out, known to the champion from its training; there is no test split, "
        "and training chose its epoch on these"
    )


def test_the_verdict_as_markdown() -> None:
    hostile = part("class", "a|b<i>\x1b[31m\nc", 30, 10, 30)
    text = verdict_markdown(verdict_on(tally((60, 5, 0, 2), [hostile])))
    assert text.startswith("# retrain-1 against v1.0.0: refused\n")
    assert "| better   | passed      | better " in text
    row = next(line for line in text.splitlines() if line.startswith("| class:"))
    assert row.endswith("|       30 |   1.0000 |     0.3333 |")
    assert "a\\|b\\<i\\>" in row
    assert "\x1b" not in text


def test_the_simulated_mistakes_are_as_correlated_as_is_said() -> None:
    setting = Setting(400_000, 0.9, 0.93, 0.5)
    kinds = np.random.default_rng(1).choice(4, setting.images, p=joint_probabilities(setting))
    challenger, champion = kinds >= 2, kinds % 2 == 1
    assert (champion.mean(), challenger.mean()) == pytest.approx((0.9, 0.93), abs=0.002)
    assert np.corrcoef(challenger, champion)[0, 1] == pytest.approx(0.5, abs=0.01)


def test_equal_models_seldom_win_and_better_ones_the_more_the_larger_difference_and_test_are() -> None:
    rng = np.random.default_rng(0)

    def promoted(images: int, difference: float, contests: int = 100) -> tuple[float, float]:
        found = simulate(Setting(images, 0.9, 0.9 + difference, 0.5), RULES, contests=contests, rng=rng)
        return found.better, found.promoted

    for images in (67, 250):
        better, all_rules = promoted(images, 0.0, contests=1000)
        assert all_rules <= better <= RULES.alpha + 3 * (RULES.alpha * (1 - RULES.alpha) / 1000) ** 0.5
    by_difference = [promoted(250, difference)[1] for difference in (0.0, 0.02, 0.05, 0.1)]
    assert by_difference == sorted(by_difference)
    assert by_difference[-1] > 0.95
    by_size = [promoted(images, 0.05)[1] for images in (67, 124, 250, 1000)]
    assert by_size == sorted(by_size)
    assert by_size[-1] > 0.95
