"""What the report's figures share: Matplotlib's SVG that stands in an HTML page and takes its colours from it.

No text of the user's goes into a figure: names of classes stand in the page around it.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Point = tuple[float, float]

# Placeholders: the page's style sheet has a light and a dark value for each of these names.
CSS_NAMES = {
    "#010101": "ink",
    "#020202": "muted",
    "#030303": "grid",
    "#040404": "train",
    "#050505": "val",
    **{f"#0601{number:02d}": f"class-{number}" for number in range(8)},
}
COLOURS = {name: placeholder for placeholder, name in CSS_NAMES.items()}
CLASS_COLOURS = 8  # more cannot be told apart
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so that the layout is the same everywhere
    "font.size": 10,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "xtick.color": COLOURS["grid"],
    "ytick.color": COLOURS["grid"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
}
DASHES = (0, (4, 3))


@contextmanager
def axes_of_size(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield an empty figure of a size in inches, and its axes, in the report's style."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def class_colour(index: int, classes: int) -> str | None:
    """Return the CSS name of a class's colour; None when there are too many classes for each to have its own."""
    return f"class-{index}" if classes <= CLASS_COLOURS else None


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most so many points of a curve: the first, the last, and evenly many between."""
    if len(points) <= most:
        return list(points)
    return [points[index] for index in np.linspace(0, len(points) - 1, most).round().astype(int)]


def inline_svg(figure: Figure, about: str) -> Markup:
    """Return a figure as an `svg` element: no times, ids of its own, the page's colours.

    Args:
        figure: Drawn within `axes_of_size`.
        about: What a reader who does not see it should know: the finding.
    """
    drawn = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with style.context({"svg.hashsalt": about}):  # ids are digests: of equal parts of two figures they must differ
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    svg = drawn.getvalue()
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])
    svg = re.sub(
        r' (?:d|x|y)="[^"]*"', lambda match: re.sub(r"(?<=\.\d\d)\d+", "", match[0]), svg
    )  # finer than a screen
    svg = re.sub("|".join(CSS_NAMES), lambda match: f"var(--{CSS_NAMES[match[0]]})", svg)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(about)}" ', 1))  # noqa: S704 -- Matplotlib's
