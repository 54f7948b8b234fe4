"""Close hashes: those that a comparison of each with each finds, also when most are known."""

from itertools import combinations

import numpy as np
import pytest

from tasks import close_hashes
from tasks.close_hashes import Hashes, find_close_pairs
from tasks.verdicts import NOTHING


def hashes_with_relatives(max_bits: int, count: int = 600) -> Hashes:
    """Random hashes, many of which have another as many bits away as may be, or one more."""
    random = np.random.default_rng(max_bits)
    hashes = random.integers(0, 2**64, count, np.uint64)
    for position in range(0, count, 3):
        bits = random.choice(64, max_bits + position % 2, replace=False)
        hashes[position] = hashes[(position * 31 + 1) % count] ^ np.uint64(sum(1 << int(bit) for bit in bits))
    return hashes


def plainly(hashes: Hashes, max_bits: int) -> list[list[int]]:
    each = sorted({int(value) for value in hashes})
    return [[a, b] for a, b in combinations(each, 2) if (a ^ b).bit_count() <= max_bits]


def find(hashes: Hashes, max_bits: int) -> Hashes:
    return find_close_pairs(hashes, max_bits=max_bits, known=NOTHING.hashes, known_pairs=NOTHING.pairs)


@pytest.mark.parametrize("max_bits", [0, 1, 3, 4, 6, 8, 9])
def test_the_pairs_of_a_plain_comparison(max_bits: int) -> None:
    hashes = hashes_with_relatives(max_bits)
    expected = plainly(hashes, max_bits)
    assert len(expected) >= (50 if max_bits else 0)
    assert find(hashes, max_bits).tolist() == expected


@pytest.mark.parametrize("max_bits", [0, 1, 2, 5, 6, 8])
def test_of_many_hashes_in_three_parts(monkeypatch: pytest.MonkeyPatch, max_bits: int) -> None:
    monkeypatch.setattr(close_hashes, "FEW", 1)
    hashes = hashes_with_relatives(max_bits)
    assert find(hashes, max_bits).tolist() == plainly(hashes, max_bits)


def test_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(close_hashes, "BLOCK", 7)
    hashes = hashes_with_relatives(8)
    assert find(hashes, 8).tolist() == plainly(hashes, 8)


def test_new_hashes_are_compared_with_all_and_known_ones_not_again() -> None:
    hashes = hashes_with_relatives(8)
    known, pairs = hashes[:400], find(hashes[:400], 8)
    grown = find_close_pairs(hashes, max_bits=8, known=known, known_pairs=pairs)
    assert grown.tolist() == plainly(hashes, 8)
    forgetful = find_close_pairs(hashes, max_bits=8, known=known, known_pairs=pairs[:0])
    assert len(forgetful) == len(grown) - len(pairs) > 0


def test_pairs_of_hashes_that_are_gone_are_gone() -> None:
    hashes = hashes_with_relatives(8)
    left = find_close_pairs(hashes[:300], max_bits=8, known=hashes, known_pairs=find(hashes, 8))
    assert left.tolist() == plainly(hashes[:300], 8)


def test_none() -> None:
    assert find(np.zeros(0, np.uint64), 8).shape == (0, 2)
