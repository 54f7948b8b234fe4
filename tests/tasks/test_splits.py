"""Splits by content, and predefined ones."""

from collections import Counter

import pytest

from tasks.image_table import ImageRow
from tasks.params import SplitShares
from tasks.splits import assign_splits, hash_split, required_splits
from tests.tasks.rows import id_of, pairs, photo, unlike

SHARES = SplitShares(train=0.8, val=0.1, test=0.1)


def assigned(rows: list[ImageRow], kept_ids: tuple[str, ...] = ()) -> dict[str, ImageRow]:
    rows = assign_splits(rows, shares=SHARES, close_hashes=pairs(rows, max_bits=4), kept_ids=kept_ids)
    return {row.path: row for row in rows}


def many(count: int, split: str = "") -> list[ImageRow]:
    return [photo(f"{split}{number}.jpg", looks=unlike(number), split=split) for number in range(count)]


def test_shares_are_met() -> None:
    splits = Counter(row.split for row in assigned(many(2000)).values())
    assert splits["train"] == pytest.approx(1600, abs=60)
    assert splits["val"] == pytest.approx(200, abs=45)


def test_new_photos_never_move_old_ones() -> None:
    few, more = assigned(many(300)), assigned(many(600))
    assert all(more[path] == row for path, row in few.items())


def test_the_hash_is_the_documented_one() -> None:
    # sha256("a") = ca97... = 0.7914 of the range, sha256("b") = 3e23... = 0.2427
    assert hash_split("a", SplitShares(train=0.79, val=0.1, test=0.11)) == "val"
    assert hash_split("a", SplitShares(train=0.8, val=0.1, test=0.1)) == "train"
    assert hash_split("b", SplitShares(train=0.1, val=0.1, test=0.8)) == "test"


def test_near_duplicates_share_group_and_split() -> None:
    pairs = [photo(f"{n}{copy}.jpg", looks=unlike(n) ^ copy) for n in range(60) for copy in (0, 1)]
    rows = assigned(pairs)
    for number in range(60):
        one, other = rows[f"{number}0.jpg"], rows[f"{number}1.jpg"]
        assert (one.group, one.split) == (other.group, other.split)
        assert one.group == min(one.id, other.id)


def test_quarantined_rows_have_neither_group_nor_split() -> None:
    row = assigned([photo("bad.jpg", reason="blank", split="train"), *many(3)])["bad.jpg"]
    assert (row.group, row.split) == ("", "")


def test_predefined_train_val_test_are_respected() -> None:
    rows = assigned([row for split in ("train", "val", "test") for row in many_apart(50, split)])
    assert all(row.path.startswith(row.split) for row in rows.values())


def test_without_a_validation_folder_a_part_of_train_becomes_it() -> None:
    rows = assigned(many_apart(900, "train") + many_apart(100, "test"))
    splits = Counter((row.path[:4], row.split) for row in rows.values())
    assert splits["test", "test"] == 100
    assert splits["trai", "val"] == pytest.approx(100, abs=30)  # val / (train + val) = 1/9
    assert splits["trai", "train"] + splits["trai", "val"] == 900


def test_without_a_test_folder_there_is_no_test_split() -> None:
    rows = many_apart(50, "train") + many_apart(20, "val")
    assert {row.split for row in assigned(rows).values()} == {"train", "val"}
    assert required_splits(rows, SHARES) == ["train", "val"]


def test_photos_outside_the_predefined_folders_are_trained_on() -> None:
    rows = assigned([photo("loose.jpg", looks=unlike(-1)), *many_apart(5, "train"), *many_apart(5, "val")])
    assert rows["loose.jpg"].split == "train"


def test_a_train_folder_alone_predefines_nothing() -> None:
    assert {row.split for row in assigned(many_apart(300, "train")).values()} == {"train", "val", "test"}


def test_leaks_leave_the_less_precious_split() -> None:
    leaky = [photo(f"{split}/x.jpg", looks=7, split=split) for split in ("train", "val", "test")]
    rows = assigned([*leaky, *many_apart(5, "train")])
    assert [rows[f"{split}/x.jpg"].reason for split in ("train", "val", "test")] == ["split_leak", "split_leak", ""]
    assert rows["train/x.jpg"].evidence == "looks the same as test/x.jpg of split test"
    assert rows["test/x.jpg"].group == rows["test/x.jpg"].id


def test_a_person_keeps_a_leak_as_a_photo_of_its_own() -> None:
    leaky = [photo(f"{split}/x.jpg", looks=7, split=split) for split in ("train", "test")]
    rows = assigned(leaky, kept_ids=(id_of("train/x.jpg"),))
    assert (rows["train/x.jpg"].reason, rows["train/x.jpg"].split) == ("", "train")
    assert rows["train/x.jpg"].group != rows["test/x.jpg"].group


def test_required_splits_follow_the_shares() -> None:
    assert required_splits(many(3), SplitShares(train=0.9, val=0.1, test=0.0)) == ["train", "val"]
    assert required_splits(many(3), SHARES) == ["train", "val", "test"]


def many_apart(count: int, split: str) -> list[ImageRow]:
    """Photos that look unlike those of the other splits, too."""
    first = {"train": 0, "val": 10_000, "test": 20_000}[split]
    return [photo(f"{split}/{n}.jpg", looks=unlike(n), split=split) for n in range(first, first + count)]
