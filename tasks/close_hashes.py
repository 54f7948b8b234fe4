"""Perceptual hashes that differ in few bits, found without comparing each with each.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012): a
hash of 64 bits is cut into parts. Two hashes that differ in at most k bits are close in one part at least, so that only
those need to be compared that share a part but for a few bits. The more hashes, the longer the parts should be: four of
16 bits leave one comparison in 350, three of 21 or 22 one in 2,900 (k = 8).
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

HASH_BITS = 64
FEW = 2**19  # hashes: of more, three parts are quicker
BLOCK = 2**14  # hashes looked for at a time: of a million, that is 8,000 candidates for a key


class Part(NamedTuple):
    """Some bits of a hash, and in how many of them it may differ."""

    shift: int
    bits: int
    radius: int


def find_close_pairs(hashes: Hashes, *, max_bits: int, known: Hashes, known_pairs: Hashes) -> Hashes:
    """Return every pair of different hashes that differ in at most `max_bits` bits.

    Args:
        hashes: uint64, in any order, repeated or not.
        max_bits: 0 to 64.
        known: Hashes whose pairs among each other are known; not looked for again.
        known_pairs: The pairs of `known`, as this function returned them.

    Returns:
        uint64 [pairs, 2], the smaller hash first, in ascending order.
    """
    distinct = np.unique(hashes)
    still_there = np.isin(known_pairs, distinct).all(axis=1)
    new = np.flatnonzero(~np.isin(distinct, known))
    found = [distinct[pair] for pair in _pairs_of(distinct, new, max_bits)]
    pairs = np.concatenate([known_pairs[still_there], *found]) if found else known_pairs[still_there]
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _pairs_of(distinct: Hashes, wanted: Positions, max_bits: int) -> Iterator[Positions]:
    """Yield pairs [pairs, 2] of positions, the first of them wanted; a pair may come more than once."""
    for part in _parts(4 if len(distinct) < FEW else 3, max_bits):
        keys = (distinct >> np.uint64(part.shift) & np.uint64(2**part.bits - 1)).astype(np.int64)
        by_key = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[by_key], np.arange(2**part.bits + 1))
        for first in range(0, len(wanted), BLOCK):
            block = wanted[first : first + BLOCK]
            for mask in _masks(part):
                yield _compare(distinct, block, keys[block] ^ mask, by_key, starts, max_bits)


def _compare(
    distinct: Hashes, block: Positions, keys: Positions, by_key: Positions, starts: Positions, max_bits: int
) -> Positions:
    """Return the pairs of each wanted hash with those that have its key, if they differ in few enough bits."""
    counts = starts[keys + 1] - starts[keys]
    left = np.repeat(block, counts)
    right = by_key[np.repeat(starts[keys] - np.cumsum(counts) + counts, counts) + np.arange(len(left))]
    close = (np.bitwise_count(distinct[left] ^ distinct[right]) <= max_bits) & (left != right)
    return np.stack([left[close], right[close]], axis=1)


def _parts(count: int, max_bits: int) -> list[Part]:
    """Cut a hash into so many parts.

    If the first `max_bits % count + 1` parts differed in more than `max_bits // count` bits and the others in as many
    or more, all together would differ in more than `max_bits`. So the others need to be looked at one bit less far,
    and not at all where that is below 0.
    """
    ends = [HASH_BITS * number // count for number in range(count + 1)]
    radii = [max_bits // count - (number > max_bits % count) for number in range(count)]
    return [
        Part(start, end - start, radius)
        for start, end, radius in zip(ends, ends[1:], radii, strict=False)
        if radius >= 0
    ]


def _masks(part: Part) -> list[int]:
    """Return every number of a part's bits with at most as many ones as it may differ in."""
    chosen = (bits for ones in range(part.radius + 1) for bits in combinations(range(part.bits), ones))
    return [sum(1 << bit for bit in bits) for bits in chosen]
