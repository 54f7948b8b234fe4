"""The figure of the data: how large the photos are, and of what shape."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes

from tasks.report.figures import COLOURS, axes_of_size, inline_svg

BARS = 24
SIZE_TICKS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
ASPECT_TICKS = {0.25: "1:4", 0.5: "1:2", 2 / 3: "2:3", 1.0: "1:1", 1.5: "3:2", 2.0: "2:1", 4.0: "4:1"}


def draw_short_sides(sides_px: Sequence[int], about: str) -> Markup:
    """Draw how many photos have a short side of how many pixels, on a logarithmic scale."""
    with axes_of_size(4.4, 2.2) as (figure, axes):
        _draw_bars(axes, np.array(sides_px, np.float64))
        low, high = axes.get_xlim()
        shown = [tick for tick in SIZE_TICKS if low <= tick <= high] or [sorted(sides_px)[len(sides_px) // 2]]
        axes.set_xticks(shown, [str(tick) for tick in shown])
        axes.set(xlabel="short side (px)", ylabel="photos")
        return inline_svg(figure, about)


def draw_aspects(aspects: Sequence[float], about: str) -> Markup:
    """Draw how many photos have which width for their height, on a logarithmic scale."""
    with axes_of_size(4.4, 2.2) as (figure, axes):
        _draw_bars(axes, np.array(aspects, np.float64))
        low, high = axes.get_xlim()
        middle = sorted(aspects)[len(aspects) // 2]
        shown = {tick: name for tick, name in ASPECT_TICKS.items() if low <= tick <= high} or {
            middle: f"{middle:.2g}:1"
        }
        axes.set_xticks(list(shown), list(shown.values()))
        axes.set(xlabel="width : height", ylabel="photos")
        return inline_svg(figure, about)


def _draw_bars(axes: Axes, values: npt.NDArray[np.float64]) -> None:
    low, high = values.min() / 1.1, values.max() * 1.1
    counts, edges = np.histogram(values, np.geomspace(low, high, BARS + 1))
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=COLOURS["val"], edgecolor="none", linewidth=0)
    axes.set(xscale="log", xlim=(low, high))
    axes.minorticks_off()
    axes.grid(visible=False, axis="x")
