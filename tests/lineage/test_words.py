"""Amounts and names as people read them."""

from lineage.words import first_of, size


def test_sizes_are_words() -> None:
    sizes = [0, 999, 1000, 9_724_582, 99_940_000, 99_960_000, 999_600, 5_000_000_000_000]
    assert [size(amount) for amount in sizes] == [
        *("0 B", "999 B", "1.0 kB", "9.7 MB", "99.9 MB", "100 MB", "1.0 MB", "5000 GB"),
    ]


def test_names_beyond_the_most_are_counted() -> None:
    assert first_of(["a", "b"], 2) == "a, b"
    assert first_of(["a", "b", "c"], 2) == "a, b and 1 more"
