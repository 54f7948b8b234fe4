"""The gate's verdict as one page that stands by itself, for people who would rather look than read."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from lineage.words import size
from registry.contest import Contest, Disagreement
from registry.gate import decides, show_p, slice_drop, summary
from registry.records import SliceResult, Verdict
from tasks import gallery, stage
from tasks.metrics import wilson_interval
from tasks.params import GateParams
from tasks.words import percent, visible

TEMPLATE = Path(__file__).with_name("gate.html.j2")
PAGE_NAME, VERDICT_NAME = "gate.html", "gate.json"
MOST_TILES = 24  # of each way in which the two disagree
MOST_PARTS = 60  # in the chart; gate.json has them all
STEPS, TICKS = (0.01, 0.02, 0.05, 0.1, 0.2), 5  # of the chart's axis: sizes, and how many at most


@dataclass(frozen=True)
class Bar:
    """A part of the photos in the chart.

    Attributes:
        name: What the photos have in common.
        images: How many they are.
        challenger: Its accuracy on them.
        champion: The champion's, or None.
        interval: The challenger's 95 % interval.
        fails: Whether the challenger is refused over it.
        decides: Whether there are enough photos for that.
    """

    name: str
    images: int
    challenger: float
    champion: float | None
    interval: tuple[float, float]
    fails: bool
    decides: bool


def write_page(contest: Contest, folder: Path) -> None:
    """Write gate.html, without scripts and with nothing to load, and gate.json, the verdict, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with stage.whole_file(folder / VERDICT_NAME) as unfinished:
        unfinished.write_text(contest.verdict.model_dump_json(indent=2) + "\n", encoding="utf-8")
    with stage.whole_file(folder / PAGE_NAME) as unfinished:
        unfinished.write_text(render(contest), encoding="utf-8")


def render(contest: Contest) -> str:
    """Return the page."""
    verdict = contest.verdict
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=visible, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"size": size, "p": show_p, "share": percent, "count": "{:,}".format}
    ways = [_surest(contest.disagreements, challenger_right) for challenger_right in (False, True)]
    shown = [one.row for tiles in ways for one in tiles[:MOST_TILES]]
    groups = _bars(verdict)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        verdict=verdict,
        headline=_headline(verdict),
        summary=summary(verdict),
        groups=groups,
        parts_left_out=max(0, len(verdict.slices) - MOST_PARTS),
        ticks=_axis(bar for _, bars in groups for bar in bars),
        ways=ways,
        thumbnails=gallery.make_thumbnails(contest.raw_dir, shown),
        MOST_TILES=MOST_TILES,
    )
    return page + "\n"


def _headline(verdict: Verdict) -> str:
    challenger, champion = verdict.challenger.name, verdict.champion
    if champion is None:
        return f"{challenger} may become the first champion" if verdict.promote else f"{challenger} is not good enough"
    if verdict.promote:
        return f"{challenger} beats {champion.name}"
    return f"{champion.name} stays the champion"


def _surest(disagreements: Sequence[Disagreement], challenger_right: bool) -> list[Disagreement]:
    """Return the disagreements of one way, those first in which the wrong one was surest."""

    def sureness(one: Disagreement) -> tuple[float, str]:
        return -(one.champion if challenger_right else one.challenger).probability, one.row.path

    return sorted((one for one in disagreements if one.challenger_is_right is challenger_right), key=sureness)


def _bars(verdict: Verdict) -> list[tuple[str, list[Bar]]]:
    """Return the chart's rows in groups: all photos first, then what was looked at."""
    rules = GateParams(**verdict.rules)  # type: ignore[arg-type]  # they were one when the verdict was given
    champion = None if verdict.champion is None else verdict.champion.right
    whole = SliceResult(
        by="all photos",
        value=verdict.split,
        images=verdict.images,
        challenger=verdict.challenger.right,
        champion=champion,
    )
    bars = [(part.by, _bar(part, rules, judged=True)) for part in verdict.slices]
    # Of many classes the page shows some; what decided against the challenger is among them, and every other part.
    first = sorted(range(len(bars)), key=lambda at: (not bars[at][1].fails, bars[at][0] == "class", at))[:MOST_PARTS]
    groups: dict[str, list[Bar]] = {whole.by: [_bar(whole, rules, judged=False)]}
    for by, bar in (bars[at] for at in sorted(first)):
        groups.setdefault(by, []).append(bar)
    return list(groups.items())


def _bar(part: SliceResult, rules: GateParams, *, judged: bool) -> Bar:
    return Bar(
        name=part.value,
        images=part.images,
        challenger=part.challenger / part.images,
        champion=None if part.champion is None else part.champion / part.images,
        interval=wilson_interval(part.challenger, part.images),
        fails=judged and decides(part, rules) and slice_drop(part) > rules.max_slice_drop,
        decides=not judged or decides(part, rules),
    )


def _axis(bars: Iterable[Bar]) -> list[float]:
    """Return the chart's ticks, from where it begins to 1: parts too small to decide anything may lie below it."""
    shown = [bar for bar in bars if bar.decides]
    lowest = min(value for bar in shown for value in (bar.interval[0], bar.champion) if value is not None)
    step = next((step for step in STEPS if (1 - lowest) / step <= TICKS), STEPS[-1])
    steps = min(round(1 / step), math.ceil((1 - lowest) / step))
    return [1 - at * step for at in range(steps, -1, -1)]
