from typing import Any

import pyarrow as pa
import pytest

from tasks.metrics import wilson_interval
from tasks.slices import IMAGE_COLUMNS, Slice, count_grouped, never_seen, slices


def image(number: int, **facts: object) -> dict[str, Any]:
    row = {"id": f"id{number}", "status": "kept", "group": f"id{number}", "width": 300, "height": 300}
    return row | {"format": "JPEG", "mode": "RGB"} | facts


def images_of(*rows: dict[str, Any]) -> pa.Table:
    numbers = ("width", "height")
    schema = pa.schema([(name, pa.int32() if name in numbers else pa.string()) for name in IMAGE_COLUMNS])
    return pa.Table.from_pylist(list(rows), schema=schema)


def predictions_of(*answers: tuple[int, str, str]) -> pa.Table:
    rows = [{"id": f"id{number}", "label": label, "predicted": predicted} for number, label, predicted in answers]
    return pa.Table.from_pylist(rows)


def cut(parts: list[Slice], by: str) -> dict[str, tuple[int, int]]:
    return {part.value: (part.images, part.correct) for part in parts if part.by == by}


def test_every_image_is_in_one_slice_of_each_property() -> None:
    predictions = predictions_of((1, "dog", "dog"), (2, "cat", "dog"), (3, "cat", "cat"), (4, "cat", "cat"))
    images = images_of(
        image(1, width=640, height=480),
        image(2, width=90, height=200, format="PNG", mode="L"),
        image(3, width=199, height=210, mode="CMYK"),
        image(4, width=400, height=1000, mode="I;16"),
        image(5, width=10, height=10),  # of another split
    )
    parts = slices(predictions, images)
    assert cut(parts, "class") == {"cat": (3, 2), "dog": (1, 1)}
    assert cut(parts, "short side") == {"below 100 px": (1, 0), "100 to 199 px": (1, 1), "400 px and more": (2, 2)}
    assert cut(parts, "shape") == {"portrait": (2, 1), "square": (1, 1), "landscape": (1, 1)}
    assert cut(parts, "format") == {"JPEG": (3, 3), "PNG": (1, 0)}
    assert cut(parts, "colours") == {"RGB": (1, 1), "greyscale": (2, 1), "other": (1, 1)}
    assert cut(parts, "near-duplicates") == {}
    assert never_seen(parts) == [("short side", "200 to 399 px")]


def test_the_order_does_not_depend_on_the_rows() -> None:
    answers = [(1, "b", "b"), (2, "a", "b"), (3, "c", "c"), (4, "B", "a")]
    rows = [image(number, width=50 * number**2, mode="L" if number % 2 else "RGB") for number in range(1, 5)]
    there = slices(predictions_of(*answers), images_of(*rows))
    assert there == slices(predictions_of(*answers[::-1]), images_of(*rows[::-1]))
    assert [part.value for part in there if part.by == "class"] == ["B", "a", "b", "c"]
    assert there[0].by == "class"


def test_near_duplicates_are_counted_in_all_splits_and_among_kept_photos_only() -> None:
    images = images_of(
        image(1),
        image(2, group="id9"),
        image(9, group="id9"),  # in another split
        image(3, group=""),
        image(4, group="", status="quarantined"),
    )
    parts = slices(predictions_of((1, "a", "a"), (2, "a", "b"), (3, "a", "a")), images)
    assert cut(parts, "near-duplicates") == {"some in the data": (1, 0)}
    assert count_grouped(images) == 2


def test_an_image_that_is_not_in_the_table_counts_under_its_class() -> None:
    parts = slices(predictions_of((1, "a", "a")), images_of(image(1, status="quarantined")))
    assert [(part.by, part.value) for part in parts] == [("class", "a")]
    assert never_seen(parts) == []


def test_a_slice_is_clearly_below_only_with_enough_images_and_its_whole_interval() -> None:
    weak, few, near = Slice("class", "a", 40, 20), Slice("class", "b", 9, 0), Slice("class", "c", 40, 34)
    assert weak.interval == pytest.approx(wilson_interval(20, 40))
    assert weak.accuracy == 0.5
    assert weak.is_clearly_below(0.9)
    assert not few.says_enough
    assert not few.is_clearly_below(0.9)
    assert near.accuracy < 0.9 < near.interval[1]
    assert not near.is_clearly_below(0.9)


def test_brightness_is_a_slice_where_the_predictions_have_it() -> None:
    predictions = predictions_of((1, "a", "a"), (2, "a", "b"), (3, "a", "a"), (4, "a", "a"))
    images = images_of(*(image(number) for number in range(1, 4)))  # the last is not in the table
    assert cut(slices(predictions, images), "brightness") == {}
    grey = pa.array([79.9, 80, 160, 159.9], pa.float32())
    parts = slices(predictions.append_column("brightness", grey), images)
    assert list(cut(parts, "brightness").items()) == [("dark", (1, 1)), ("medium", (2, 1)), ("bright", (1, 1))]
    assert never_seen([part for part in parts if part.value != "bright"])[-1] == ("brightness", "bright")
