"""The picture of a sweep: what the swept keys do to the metrics that rank it."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.sweep import Row, in_words, rank_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_FROM = 20.0  # a key whose largest value is so many times its smallest gets a logarithmic axis
MOST_DOTS = 40  # rows that a picture of many keys shows, the best
BLUE, ORANGE = "#1f5fa8", "#d9730d"


def draw_sweep(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw the metrics that rank the sweep side by side.

    One key of numbers: a line. Two keys: a heat map. Else: the experiments one below the other, best first.

    Args:
        rows: Best first.
        title: The figure's title; to it are added the keys where no axis has them.
        path: PNG.
    """
    from matplotlib.figure import Figure

    metrics = rank_by(rows)
    keys = [key for key in rows[0].combination if len({row.combination[key] for row in rows}) > 1]
    draw = _line if len(keys) == 1 and _are_numbers(rows, keys[0]) else _heat_map if len(keys) == 2 else _dots
    height = 4.2 if draw is not _dots else 1.8 + 0.26 * min(len(rows), MOST_DOTS)
    figure = Figure(figsize=(5.6 * len(metrics) + (1.5 if draw is _dots else 0.0), height), layout="constrained")
    figure.suptitle(", ".join([title, *keys]) if draw is _dots else title)
    (panels,) = figure.subplots(1, len(metrics), squeeze=False)
    for index, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
        draw(axes, rows, keys, metric)
        axes.set_title(metric)
        if draw is _dots and index:
            axes.set_yticklabels([])
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _line(axes: "Axes", rows: Sequence[Row], keys: Sequence[str], metric: str) -> None:
    (key,) = keys
    points = sorted((float(row.combination[key]), row.metrics.get(metric, float("nan"))) for row in rows)
    axes.plot(*zip(*points, strict=True), color=BLUE, marker="o")
    best = (float(rows[0].combination[key]), rows[0].metrics.get(metric, float("nan")))
    axes.plot(*best, "o", color=ORANGE, markersize=9, label=f"best: {rows[0].name}")
    values = [value for value, _ in points]
    if values[0] > 0 and values[-1] > LOG_FROM * values[0]:
        axes.set_xscale("log")
    axes.set_xlabel(key)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend()


def _heat_map(axes: "Axes", rows: Sequence[Row], keys: Sequence[str], metric: str) -> None:
    across, down = (_in_order(rows, key) for key in keys)
    values = {(row.combination[keys[0]], row.combination[keys[1]]): row.metrics.get(metric) for row in rows}
    grid = [[values.get((x, y)) for x in across] for y in down]
    numbers = [[float("nan") if value is None else value for value in line] for line in grid]
    image = axes.imshow(numbers, aspect="auto", cmap="viridis_r" if metric.endswith("loss") else "viridis")
    for (i, y), (j, x) in itertools.product(enumerate(down), enumerate(across)):
        if grid[i][j] is not None:
            is_best = (rows[0].combination[keys[0]], rows[0].combination[keys[1]]) == (x, y)
            text = f"{grid[i][j]:.4f}" + ("\nbest" if is_best else "")
            box = {"facecolor": "white", "alpha": 0.8, "edgecolor": ORANGE if is_best else "none", "pad": 2}
            axes.text(j, i, text, ha="center", va="center", fontsize=9, bbox=box)
    axes.set_xticks(range(len(across)), across, rotation=30 if max(map(len, across)) > 8 else 0)
    axes.set_yticks(range(len(down)), down)
    axes.set_xlabel(keys[0])
    axes.set_ylabel(keys[1])
    axes.figure.colorbar(image, ax=axes, label=metric)


def _dots(axes: "Axes", rows: Sequence[Row], keys: Sequence[str], metric: str) -> None:
    shown = rows[:MOST_DOTS]
    names = [key.rpartition(".")[2] for key in keys]
    short = dict(zip(keys, names if len(set(names)) == len(names) else keys, strict=True))
    labels = [in_words({short[key]: row.combination[key] for key in keys}) or row.name for row in shown]
    colors = [ORANGE, *[BLUE] * (len(shown) - 1)]
    axes.scatter([row.metrics.get(metric, float("nan")) for row in shown], range(len(shown)), c=colors)
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(metric)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)


def _in_order(rows: Sequence[Row], key: str) -> list[str]:
    """Return a key's values: numbers by size, other values as they come by name of experiment."""
    as_run = sorted(rows, key=lambda row: (len(row.name), row.name))
    values = list(dict.fromkeys(row.combination[key] for row in as_run))
    return sorted(values, key=float) if _are_numbers(rows, key) else values


def _are_numbers(rows: Sequence[Row], key: str) -> bool:
    try:
        [float(row.combination[key]) for row in rows]
    except ValueError:
        return False
    return True
