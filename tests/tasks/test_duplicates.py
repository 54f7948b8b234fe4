"""Duplicates: exact ones, label conflicts, near ones."""

from tasks.duplicates import (
    natural_order,
    near_duplicate_groups,
    quarantine_conflicts,
    quarantine_exact_duplicates,
)
from tests.tasks.rows import id_of, pairs, photo


def test_natural_order_puts_2_before_10() -> None:
    assert sorted(["a10b", "a2b", "a²", "2", "b"], key=natural_order) == ["2", "a2b", "a10b", "a²", "b"]


def test_the_first_exact_duplicate_in_natural_order_stays() -> None:
    rows = quarantine_exact_duplicates([photo("10.jpg", content="x"), photo("2.jpg", content="x"), photo("3.jpg")])
    assert [(row.path, row.reason, row.duplicate_of) for row in rows] == [
        ("10.jpg", "exact_duplicate", "2.jpg"),
        ("2.jpg", "", ""),
        ("3.jpg", "", ""),
    ]


def test_of_exact_duplicates_in_predefined_splits_the_evaluation_copy_stays() -> None:
    rows = [photo(f"{split}/1.jpg", content="x", split=split) for split in ("train", "test", "val")]
    kept = [row.split for row in quarantine_exact_duplicates(rows) if not row.reason]
    assert kept == ["test"]


def test_files_that_are_unfit_anyway_are_no_duplicates() -> None:
    rows = [photo("1.jpg", content="", reason="empty"), photo("2.jpg", content="", reason="empty")]
    assert quarantine_exact_duplicates(quarantine_conflicts(rows, {})) == rows


def test_the_same_bytes_under_two_labels_all_go() -> None:
    rows = quarantine_conflicts([photo("c.jpg", content="x"), photo("d.jpg", content="x", label="dog")], {})
    assert [row.reason for row in rows] == ["label_conflict", "label_conflict"]
    assert rows[0].evidence == "the same bytes are also under dog"


def test_a_person_decides_the_label_of_a_conflict() -> None:
    rows = [photo("c.jpg", content="x"), photo("d.jpg", content="x", label="dog")]
    decided = quarantine_conflicts(rows, {id_of("x"): "dog"})
    assert [row.reason for row in decided] == ["label_conflict", ""]
    assert decided[1].evidence.startswith("kept by a person")


def test_groups_are_connected_components() -> None:
    looks = {"a": 0b0, "b": 0b11, "c": 0b1111, "alone": 0xFFFF0000, "same as a": 0b0}
    rows = [photo(path, looks=bits) for path, bits in looks.items()]
    groups = near_duplicate_groups(rows, pairs(rows, max_bits=2))
    assert sorted(sorted(row.path for row in group) for group in groups) == [["a", "b", "c", "same as a"], ["alone"]]


def test_hashes_that_no_photo_has_connect_nothing() -> None:
    rows = [photo("a", looks=0b0), photo("c", looks=0b1111)]
    between = [*rows, photo("b", looks=0b11)]
    assert len(near_duplicate_groups(rows, pairs(between, max_bits=2))) == 2


def test_no_photos_no_groups() -> None:
    assert near_duplicate_groups([], pairs([photo("a"), photo("b", looks=1)], max_bits=8)) == []
