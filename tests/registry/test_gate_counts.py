"""Which photos are asked: none that the champion was trained on, and no near-duplicate of one."""

from dataclasses import replace
from pathlib import Path

import pytest

from registry.gate_counts import choose_photos, count, count_groups
from registry.records import SliceResult
from tasks.image_table import ImageRow, write_images
from tasks.stage import PawlineError


def row(name: str, split: str, *, group: str = "", reason: str = "") -> ImageRow:
    return ImageRow(id=name, path=f"{name}.jpg", label="cat", split=split, group=group or name, reason=reason)


def asked(rows: list[ImageRow], champion: list[ImageRow] | None) -> tuple[str, list[str], int]:
    photos = choose_photos(rows, champion)
    return photos.split, [one.id for one in photos.asked], photos.left_out


def test_photos_of_the_champions_training_and_their_near_duplicates_are_left_out() -> None:
    rows = [
        row("a", "test"),
        row("b", "test"),  # was in the champion's training
        row("c", "test", group="b"),  # new, and near b
        row("d", "test"),  # chose the champion's epoch
        row("e", "test"),  # new
        row("f", "train"),
        row("g", "", reason="blank"),
    ]
    champion = [row("a", "test"), row("b", "train"), row("d", "val"), row("f", "test")]
    assert asked(rows, champion) == ("test", ["a", "e"], 3)
    assert choose_photos(rows, champion).known == {"a", "b", "d", "f"}
    assert asked(rows, None) == ("test", ["a", "b", "c", "d", "e"], 0)
    assert choose_photos(rows, None).known is None


def test_near_duplicates_of_a_training_photo_that_left_the_data_are_asked() -> None:
    """As documented: the groups are those of the challenger's data."""
    rows = [row("a", "test"), row("b", "", reason="blank"), row("c", "test")]
    assert asked(rows, [row("gone", "train"), row("b", "train")]) == ("test", ["a", "c"], 0)


def test_a_group_is_won_by_who_recognised_more_of_it() -> None:
    challenger = [True, True, False, True, False, False, True]
    champion = [False, True, True, False, True, False, False]
    assert count_groups("aabbcde", challenger, champion) == (2, 1)  # a and e won, b a tie, c lost, d both wrong
    assert count_groups("aaaaaaa", challenger, champion) == (1, 0)


def test_without_a_test_split_the_validation_photos_that_chose_both_epochs_are_asked() -> None:
    rows = [row("a", "val"), row("b", "val"), row("c", "train"), row("d", "val")]
    assert asked(rows, [row("a", "val"), row("b", "train")]) == ("val", ["a", "d"], 1)


def test_nothing_left_to_ask() -> None:
    with pytest.raises(
        PawlineError, match="nothing to compare on: the champion was trained on all 1 photos of the test"
    ):
        choose_photos([row("a", "test"), row("b", "train")], [row("a", "train")])


def test_right_answers_are_counted_in_all_and_by_part(tmp_path: Path) -> None:
    rows = [
        replace(row(name, "test"), label=label, width=300, height=300, format="JPEG", mode="RGB")
        for name, label in (("a", "cat"), ("b", "cat"), ("c", "dog"), ("d", "eel"))
    ]
    rows[3] = replace(rows[3], group="b")  # won, as b is: together one
    write_images(rows, tmp_path / "images.parquet")
    photos = choose_photos(rows, [row("a", "test"), row("c", "test")])
    said = {"a": ("cat", "cat"), "b": ("cat", "dog"), "c": ("cat", "dog"), "d": ("eel", "cat")}
    answers = [
        {"id": one.id, "label": one.label, "challenger": said[one.id][0], "champion": said[one.id][1]} for one in rows
    ]
    tally = count(answers, tmp_path / "images.parquet", photos)
    assert tuple(tally.answers.model_dump().values()) == (1, 2, 1, 0)
    assert (tally.images, tally.groups) == (4, (1, 1))
    found = {(part.by, part.value): (part.images, part.challenger, part.champion) for part in tally.slices}
    assert found == {
        ("class", "cat"): (2, 2, 1),
        ("class", "dog"): (1, 0, 1),
        ("class", "eel"): (1, 1, 0),
        ("short side", "200 to 399 px"): (4, 3, 2),
        ("shape", "square"): (4, 3, 2),
        ("format", "JPEG"): (4, 3, 2),
        ("colours", "RGB"): (4, 3, 2),
        ("near-duplicates", "some in the data"): (2, 2, 0),
        ("photos", "known to the champion's data"): (2, 1, 2),
        ("photos", "new since"): (2, 2, 0),
    }

    alone = [{key: value for key, value in answer.items() if key != "champion"} for answer in answers]
    first = count(alone, tmp_path / "images.parquet", choose_photos(rows, None))
    assert tuple(first.answers.model_dump().values()) == (0, 3, 0, 1)
    assert first.slices[0] == SliceResult(by="class", value="cat", images=2, challenger=2, champion=None)
    assert {part.by for part in first.slices} == {
        "class",
        "short side",
        "shape",
        "format",
        "colours",
        "near-duplicates",
    }
