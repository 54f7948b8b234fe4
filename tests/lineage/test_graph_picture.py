"""The picture of the graph: rows of stages, and lines that never cross a box."""

import random
import re
from collections.abc import Iterator

import pytest

from lineage import graph_picture
from lineage.records import Lineage, StageRecord
from tasks.graph_layout import Line, Picture
from tasks.stage import PawlineError
from tests.lineage.test_tree import artifact, sample
from tests.test_pipeline import STAGES, outputs

Point = tuple[float, float]


def lineage_of(reads: dict[str, list[str]]) -> Lineage:
    """A lineage whose stages each write one file, and read those of some others."""
    stages = [
        StageRecord(
            name=name,
            description="",
            command="",
            params={},
            code=[],
            inputs=[artifact(f"{other}.txt", other) for other in others],
            outputs=[artifact(f"{name}.txt", name)],
        )
        for name, others in reads.items()
    ]
    return sample(stages=stages)


def pipeline() -> dict[str, list[str]]:
    """What each stage of dvc.yaml reads of others."""
    made_by = {path: name for name, stage in STAGES.items() for path in outputs(stage)}
    return {name: [made_by[dep] for dep in stage["deps"] if dep in made_by] for name, stage in STAGES.items()}


def anything(seed: int) -> dict[str, list[str]]:
    """A graph by chance, with wide rows, long lines and stages that stand alone."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    count = chance.randint(1, 16)
    share = chance.choice([0.05, 0.2, 0.5])
    return {f"s{i}": [f"s{j}" for j in range(i) if chance.random() < share] for i in range(count)}


def points(line: Line) -> Iterator[Point]:
    """Points along a line, close to each other."""
    numbers = {
        command: [float(number) for number in rest.split()]
        for command, rest in re.findall(r"([MV])([^MCV]*)", line.path)
    }
    (x, y), here = numbers["M"], None
    for command, rest in re.findall(r"([MCV])([^MCV]*)", line.path):
        values = [float(number) for number in rest.split()]
        if command == "M":
            here = (values[0], values[1])
        elif command == "V":
            x, y = here or (x, y)
            yield from ((x, y + (values[0] - y) * step / 50) for step in range(51))
            here = (x, values[0])
        else:
            start = here or (x, y)
            corners = [start, (values[0], values[1]), (values[2], values[3]), (values[4], values[5])]
            yield from (bezier(corners, step / 50) for step in range(51))
            here = corners[-1]


def bezier(corners: list[Point], t: float) -> Point:
    shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    return (
        sum(share * x for share, (x, _) in zip(shares, corners, strict=True)),
        sum(share * y for share, (_, y) in zip(shares, corners, strict=True)),
    )


def check(picture: Picture) -> None:
    """Boxes lie apart and within the picture, and every line joins its two boxes and touches no other."""
    boxes = picture.boxes
    for box in boxes:
        assert box.x >= 0
        assert box.x + box.width <= picture.width
        assert box.y + box.height <= picture.height
        for other in boxes[box.index + 1 :]:
            assert abs(box.x - other.x) >= box.width + 8 or abs(box.y - other.y) >= box.height + 8
    for line in picture.lines:
        way = list(points(line))
        source, target = boxes[line.source], boxes[line.target]
        assert source.x < way[0][0] < source.x + source.width
        assert target.x < way[-1][0] < target.x + target.width
        assert way[0][1] == pytest.approx(source.y + source.height, abs=1)
        assert way[-1][1] == pytest.approx(target.y, abs=1)
        for x, y in way:
            assert 0 <= x <= picture.width
            assert not [b for b in boxes if b.x < x < b.x + b.width and b.y + 1 < y < b.y + b.height - 1]


def test_the_pipelines_picture_has_every_stage_below_what_it_reads() -> None:
    reads = pipeline()
    picture = graph_picture.draw(lineage_of(reads))
    assert [box.name for box in picture.boxes] == list(STAGES)
    place = {box.name: box for box in picture.boxes}
    assert all(place[other].y < place[name].y for name, others in reads.items() for other in others)
    drawn = {(picture.boxes[line.source].name, picture.boxes[line.target].name) for line in picture.lines}
    assert drawn == {(other, name) for name, others in reads.items() for other in others}
    assert len(picture.lines) == len(drawn), "two files that one stage reads of another are one line"
    assert place["ingest"].y == place["backbone"].y
    assert picture.width <= 520, "readable on a phone"
    check(picture)


@pytest.mark.parametrize("seed", range(40))
def test_no_line_crosses_a_box_whatever_the_graph(seed: int) -> None:
    check(graph_picture.draw(lineage_of(anything(seed))))


def test_lanes_of_lines_that_run_side_by_side_are_apart() -> None:
    reads = {f"s{i}": [f"s{j}" for j in range(i)] for i in range(7)}
    picture = graph_picture.draw(lineage_of(reads))
    lanes = {line.source: line.path.split("V")[0].split()[-2] for line in picture.lines if "V" in line.path}
    assert len(set(lanes.values())) == len(lanes) == 5
    check(picture)


def test_a_circle_is_refused_in_one_line() -> None:
    with pytest.raises(PawlineError, match=r"dvc.lock of v2.0.0: its stages read each other in a circle"):
        graph_picture.draw(lineage_of({"a": ["b"], "b": ["a"]}))


def test_a_lineage_without_stages_has_an_empty_picture() -> None:
    assert graph_picture.draw(sample(stages=[])).boxes == []
