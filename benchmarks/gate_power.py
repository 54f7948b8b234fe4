"""How often the gate promotes a challenger: the gate's own `judge` on simulated answers, as a Markdown table.

    python -m benchmarks.gate_power                       all sizes and differences: a minute
    python -m benchmarks.gate_power --correlation 0.2     of models that make more different mistakes

The mistakes of the two models are Bernoulli variables with a stated correlation (phi); the photos fall into the parts
that the gate looks at (SHARES) independently of the mistakes, as if no part were harder; none has near-duplicates.
Every rule of params.yaml's `gate` section is on; latency and size are within their budgets.
"""

import argparse
import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from registry.gate import Entrant, Tally, judge
from registry.records import Answers, SliceResult, Verdict
from tasks.params import GateParams, load_section

SIZES = (67, 124, 250, 500, 1000, 2500)
DIFFERENCES = (0.0, 0.01, 0.02, 0.05, 0.10)
CHAMPIONS = (0.90, 0.97)
CORRELATION = 0.35  # that of two models of petimages.zip, of 96 and 160 px: 0.36 on 123 photos
REPEATS, REPEATS_OF_EQUALS = 1000, 4000
# How photos are spread over the parts: about as those of petimages.zip.
SHARES = {
    "class": (0.5, 0.5),
    "short side": (0.02, 0.08, 0.7, 0.2),
    "shape": (0.25, 0.1, 0.65),
    "format": (0.99, 0.01),
    "colours": (0.99, 0.01),
    "photos": (0.8, 0.2),
}
ENTRANT = Entrant("model", "", 9_700_000, 30.0)


class Setting(NamedTuple):
    """One cell of the table: how many photos, the champion's accuracy, the challenger's, the mistakes' correlation."""

    images: int
    champion: float
    challenger: float
    correlation: float


class Promoted(NamedTuple):
    """Shares of simulated contests: those with `better` passed, those promoted, and how many there were."""

    better: float
    promoted: float
    contests: int

    @property
    def error(self) -> float:
        """The standard error of `promoted` that comes from the number of contests."""
        return math.sqrt(self.promoted * (1 - self.promoted) / self.contests)


def simulate(setting: Setting, rules: GateParams, *, contests: int, rng: np.random.Generator) -> Promoted:
    """Let the gate judge simulated contests.

    Returns:
        How often it found the challenger better, and how often it promoted it.
    """
    verdicts = [judge_once(setting, rules, rng) for _ in range(contests)]
    better = sum(verdict.checks[0].passed for verdict in verdicts)
    return Promoted(better / contests, sum(verdict.promote for verdict in verdicts) / contests, contests)


def judge_once(setting: Setting, rules: GateParams, rng: np.random.Generator) -> Verdict:
    """Draw the answers to some photos and judge them."""
    kinds = rng.choice(4, setting.images, p=joint_probabilities(setting))  # 2 * challenger right + champion right
    neither, only_champion, only_challenger, both = np.bincount(kinds, minlength=4).tolist()
    answers = Answers(both_right=both, only_challenger=only_challenger, only_champion=only_champion, both_wrong=neither)
    slices = [part for by, shares in SHARES.items() for part in _cut(by, shares, kinds, rng)]
    return judge(Tally("test", 0, answers, slices), champion=ENTRANT, challenger=ENTRANT, rules=rules)


def joint_probabilities(setting: Setting) -> tuple[float, float, float, float]:
    """Return the probabilities of: both wrong, only the champion right, only the challenger, both right.

    Two Bernoulli variables of different means cannot be correlated as much as one likes: at most one model's mistakes
    are all mistakes of the other, too.
    """
    wrong, also_wrong = 1 - setting.champion, 1 - setting.challenger
    spread = math.sqrt(wrong * setting.champion * also_wrong * setting.challenger)
    both_wrong = min(wrong * also_wrong + setting.correlation * spread, wrong, also_wrong)
    return both_wrong, also_wrong - both_wrong, wrong - both_wrong, 1 - wrong - also_wrong + both_wrong


def _cut(by: str, shares: tuple[float, ...], kinds: np.ndarray, rng: np.random.Generator) -> list[SliceResult]:
    values = rng.choice(len(shares), len(kinds), p=shares)
    counts = np.bincount(4 * values + kinds, minlength=4 * len(shares)).reshape(-1, 4).tolist()
    return [
        SliceResult(
            by=by,
            value=str(value),
            images=sum(counted),
            challenger=counted[2] + counted[3],
            champion=counted[1] + counted[3],
        )
        for value, counted in enumerate(counts)
        if any(counted)
    ]


def table(rules: GateParams, correlation: float) -> str:
    """Return a row for each accuracy of the champion and number of photos, a column for each true difference."""
    rng = np.random.default_rng(0)
    heads = ["champion", "photos", "equal", *(f"+{100 * difference:.0f} points" for difference in DIFFERENCES[1:])]
    lines = [f"| {' | '.join(heads)} |", "|" + "---:|" * len(heads)]
    for champion in CHAMPIONS:
        for images in SIZES:
            cells = []
            for difference in DIFFERENCES:
                setting = Setting(images, champion, round(champion + difference, 4), correlation)
                cells.append("" if setting.challenger > 1 else _cell(setting, rules, rng))
            lines.append(f"| {champion:.2f} | {images:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(setting: Setting, rules: GateParams, rng: np.random.Generator) -> str:
    equal = setting.challenger == setting.champion
    found = simulate(setting, rules, contests=REPEATS_OF_EQUALS if equal else REPEATS, rng=rng)
    if equal:
        return f"{found.promoted:.2%} ± {found.error:.2%} ({found.better:.2%})"
    return f"{found.promoted:.0%} ({found.better:.0%})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--correlation", type=float, default=CORRELATION, help="of mistakes (default: %(default)s)")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="has the rules (default: %(default)s)")
    args = parser.parse_args()
    rules = load_section(args.params, "gate", GateParams)
    started = time.monotonic()
    print(table(rules, args.correlation))
    print(
        f"\nRules: {', '.join(f'{key} {value:g}' for key, value in rules.model_dump().items() if value is not None)}."
    )
    print(
        f"Mistakes correlated by {args.correlation:g}. Share promoted (in brackets: found better by the test alone); "
        f"equal models: {REPEATS_OF_EQUALS:,} contests, ± their standard error; others {REPEATS:,} contests, at most "
        f"± {0.5 / math.sqrt(REPEATS):.1%}. {time.monotonic() - started:.0f} s."
    )


if __name__ == "__main__":
    main()
