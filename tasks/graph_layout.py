"""Where the boxes and lines of a graph's picture go: a row a generation, and long lines in lanes beside the boxes.

Everything runs downwards. A line to the next row goes straight there. A longer one leaves its stage into the gap below,
runs down a lane outside all boxes, and comes back in the gap above its goal: so no line ever crosses a box.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

BOX_WIDTH, BOX_HEIGHT = 188, 56  # pixels: 26 characters of a fact fit
GAP_X, GAP_Y = 28, 46
LANE = 9  # between lanes
MARGIN = 12
PORT_MARGIN = 24  # of a box's upper and lower side, that stays without lines

Side = int  # -1 left, 1 right
Graph = dict[int, list[int]]  # stage to the stages it reads, by their places in the list of names


@dataclass(frozen=True)
class Box:
    """A stage's place: its upper left corner in pixels; `index` is its place in the list of names."""

    index: int
    name: str
    x: float
    y: float
    width: int = BOX_WIDTH
    height: int = BOX_HEIGHT

    @property
    def centre(self) -> float:
        """The middle, from the left."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Line:
    """What one stage wrote and another reads: the indexes of both, and the curve as an SVG path."""

    source: int
    target: int
    path: str


@dataclass(frozen=True)
class Picture:
    """The picture, in pixels."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[Line]


@dataclass(frozen=True)
class _Lane:
    """A way down beside the boxes for the lines of one stage; `slot` 0 is next to the boxes."""

    side: Side
    slot: int
    first_row: int
    last_row: int


def draw(names: Sequence[str], graph: Graph) -> Picture:
    """Lay a graph of stages out.

    Raises:
        graphlib.CycleError: The stages read each other in a circle.
    """
    rows = generations(graph)
    row_of = {stage: number for number, row in enumerate(rows) for stage in row}
    lanes = _lanes(graph, rows, row_of)
    room = {
        side: MARGIN + LANE * (1 + max((lane.slot for lane in lanes.values() if lane.side == side), default=-1))
        for side in (-1, 1)
    }
    inner = max((len(row) for row in rows), default=0) * (BOX_WIDTH + GAP_X) - GAP_X
    boxes = _boxes(names, rows, left=room[-1], inner=inner)
    lane_x: dict[int, float] = {
        stage: room[-1] - LANE * (lane.slot + 1) if lane.side < 0 else room[-1] + inner + LANE * (lane.slot + 1)
        for stage, lane in lanes.items()
    }
    lines = _lines(graph, boxes, row_of, lane_x)
    height = 2 * MARGIN + len(rows) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    return Picture(room[-1] + inner + room[1], height, [boxes[index] for index in sorted(boxes)], lines)


def generations(graph: Graph) -> list[list[int]]:
    """Return the stages in rows: each in the first row below all that it reads.

    Raises:
        CycleError: There is no such order.
    """
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    rows = []
    while sorter.is_active():
        rows.append(sorted(sorter.get_ready()))
        sorter.done(*rows[-1])
    return rows


def _lanes(graph: Graph, rows: list[list[int]], row_of: dict[int, int]) -> dict[int, _Lane]:
    """Give every stage that is read below the next row a lane; short ones first, so that they lie inside."""
    last_row = {stage: max((row_of[t] for t in graph if stage in graph[t]), default=0) for stage in graph}
    long = [stage for stage in row_of if last_row[stage] > row_of[stage] + 1]
    lanes: dict[int, _Lane] = {}
    for stage in sorted(long, key=lambda stage: (last_row[stage] - row_of[stage], row_of[stage])):
        first, last = row_of[stage], last_row[stage]
        beside = [lane for lane in lanes.values() if lane.first_row < last and first < lane.last_row]
        side = _side(rows[first], stage, beside)
        taken = {lane.slot for lane in beside if lane.side == side}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        lanes[stage] = _Lane(side, slot, first, last)
    return lanes


def _side(row: list[int], stage: int, beside: list[_Lane]) -> Side:
    """Return the side a stage stands on in its row, or for one in the middle the side with fewer lanes there."""
    place = 2 * row.index(stage) - (len(row) - 1)
    if place:
        return -1 if place < 0 else 1
    return -1 if sum(lane.side for lane in beside) > 0 else 1


def _boxes(names: Sequence[str], rows: list[list[int]], *, left: float, inner: float) -> dict[int, Box]:
    boxes = {}
    for number, row in enumerate(rows):
        start = left + (inner - len(row) * (BOX_WIDTH + GAP_X) + GAP_X) / 2
        for place, stage in enumerate(row):
            x, y = start + place * (BOX_WIDTH + GAP_X), MARGIN + number * (BOX_HEIGHT + GAP_Y)
            boxes[stage] = Box(stage, names[stage], x, y)
    return boxes


def _lines(graph: Graph, boxes: dict[int, Box], row_of: dict[int, int], lane_x: dict[int, float]) -> list[Line]:
    """Return the curves; those that leave a box, and those that reach it, stand apart, in the order of where to."""
    edges = [(source, target) for target in graph for source in graph[target]]
    ways = {(s, t): lane_x[s] if row_of[t] > row_of[s] + 1 else None for s, t in edges}
    leaving, arriving = defaultdict[int, set[float]](set), defaultdict[int, set[float]](set)
    for (source, target), way in ways.items():
        leaving[source].add(boxes[target].centre if way is None else way)
        arriving[target].add(boxes[source].centre if way is None else way)
    lines = []
    for (source, target), way in ways.items():
        start = _port(boxes[source], leaving[source], boxes[target].centre if way is None else way)
        end = _port(boxes[target], arriving[target], boxes[source].centre if way is None else way)
        path = _curve(start, boxes[source].y + BOX_HEIGHT, end, boxes[target].y, way)
        lines.append(Line(source, target, path))
    return lines


def _port(box: Box, others: set[float], other: float) -> float:
    """Return where on a box's side the line to (or from) a place begins."""
    return box.x + PORT_MARGIN + (box.width - 2 * PORT_MARGIN) * (sorted(others).index(other) + 0.5) / len(others)


def _curve(start: float, top: float, end: float, bottom: float, way: float | None) -> str:
    """Return the path from (start, top) to (end, bottom), by a lane if there is one."""
    if way is None:
        return f"M{start:.1f} {top:.0f}" + _bend(start, top, end, bottom)
    first = _bend(start, top, way, top + GAP_Y)
    last = _bend(way, bottom - GAP_Y, end, bottom)
    return f"M{start:.1f} {top:.0f}{first}V{bottom - GAP_Y:.0f}{last}"


def _bend(x0: float, y0: float, x1: float, y1: float) -> str:
    """Return a curve that begins and ends downwards."""
    half = (y1 - y0) / 2
    return f"C{x0:.1f} {y0 + half:.1f} {x1:.1f} {y1 - half:.1f} {x1:.1f} {y1:.0f}"
