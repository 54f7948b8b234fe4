"""The figures of the evaluation: ROC, precision and recall, reliability, and accuracy on spoilt photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator, PercentFormatter

from tasks.report.figures import COLOURS, DASHES, Point, axes_of_size, class_colour, inline_svg, thin
from tasks.slices import FEWEST_IMAGES

LONGEST_TICK = 6  # characters of an amount that fit under its place on the axis
CURVE_POINTS, FEWEST_CURVE_POINTS = 1200, 24  # of all curves of a figure, and of each


@dataclass(frozen=True)
class Measured:
    """An accuracy and its 95 % interval on so many images: of an amount by its name, or at a mean confidence."""

    at: str | float
    accuracy: float
    low: float
    high: float
    images: int


def draw_roc(curves: Mapping[str, Sequence[Point]], about: str) -> Markup:
    """Draw ROC curves, each a sequence of (false positive rate, true positive rate), by class."""
    with axes_of_size(3.4, 3.4) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=1, linestyle=DASHES)
        _draw_curves(axes, list(curves.values()))
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        return inline_svg(figure, about)


def draw_precision_recall(curves: Mapping[str, Sequence[Point]], about: str) -> Markup:
    """Draw precision-recall curves, each a sequence of (recall, precision), by class."""
    with axes_of_size(3.4, 3.4) as (figure, axes):
        _draw_curves(axes, list(curves.values()))
        axes.set(xlabel="recall", ylabel="precision")
        return inline_svg(figure, about)


def _draw_curves(axes: Axes, curves: Sequence[Sequence[Point]]) -> None:
    most = max(FEWEST_CURVE_POINTS, CURVE_POINTS // max(len(curves), 1))
    for index, curve in enumerate(curves):
        own = class_colour(index, len(curves))
        look = (COLOURS[own], 1.8) if own else (COLOURS["train"], 0.7)
        axes.plot(*zip(*thin(curve, most), strict=True), color=look[0], linewidth=look[1], clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def draw_reliability(as_trained: Sequence[Measured], scaled: Sequence[Measured], about: str) -> Markup:
    """Draw accuracy against confidence, before and after temperature scaling; on the diagonal they are the same."""
    with axes_of_size(4.0, 3.6) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=1, linestyle=DASHES)
        for bins, marker, colour, shift in ((as_trained, "o", "class-1", -0.004), (scaled, "s", "val", 0.004)):
            for one in bins:  # apart, where both have the same confidence
                strength = 1.0 if one.images >= FEWEST_IMAGES else 0.35
                _draw_intervals(axes, [float(one.at) + shift], [one], marker, colour=COLOURS[colour], alpha=strength)
        lowest = min((float(one.at) for one in [*as_trained, *scaled]), default=0.0)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(max(0.0, lowest - 0.06), 1.02), ylim=(0, 1.02))
        return inline_svg(figure, about)


def draw_robustness(clean: float, steps: Sequence[Measured], lowest: float, about: str) -> Markup:
    """Draw accuracy against the amount of one corruption, and that of clean photos as a line.

    Args:
        clean: The accuracy without any corruption.
        steps: By amount, from mild to strong, or factors by size with the clean photos between them.
        lowest: Where the axis begins: the same for all corruptions.
        about: The finding.
    """
    with axes_of_size(2.9, 2.3) as (figure, axes):
        axes.axhline(clean, color=COLOURS["muted"], linewidth=1, linestyle=DASHES)
        places = [float(index) for index in range(len(steps))]
        _draw_intervals(axes, places, steps, "o-", colour=COLOURS["val"])
        amounts, unit = _split_unit([str(step.at) for step in steps])
        axes.set_xticks(places, amounts)
        axes.set_xlabel(unit)
        axes.set(xlim=(-0.35, len(steps) - 0.65), ylim=(lowest, 1.01))
        axes.yaxis.set_major_locator(MultipleLocator(0.1 if lowest >= 0.5 else 0.2))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        return inline_svg(figure, about)


def _split_unit(amounts: list[str]) -> tuple[list[str], str]:
    """Take the word that long names of amounts have in common out of them, to stand under the axis."""
    words = [amount.split() for amount in amounts]
    if max(map(len, amounts)) > LONGEST_TICK and all(len(pair) == 2 for pair in words):
        for kept, common in ((0, 1), (1, 0)):
            if len({pair[common] for pair in words}) == 1:
                return [pair[kept] for pair in words], words[0][common]
    return amounts, ""


def _draw_intervals(
    axes: Axes, places: Sequence[float], measured: Sequence[Measured], look: str, *, colour: str, alpha: float = 1.0
) -> None:
    heights = [one.accuracy for one in measured]
    reach = [[one.accuracy - one.low for one in measured], [one.high - one.accuracy for one in measured]]
    axes.errorbar(
        *(places, heights, reach),
        fmt=look,
        color=colour,
        alpha=alpha,
        markersize=4.5,
        linewidth=1.5,
        elinewidth=1,
        capsize=2,
    )
