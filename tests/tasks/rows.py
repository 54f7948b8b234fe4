"""Rows of the image table for tests."""

import hashlib
from collections.abc import Iterable

from tasks.close_hashes import Hashes, find_close_pairs
from tasks.duplicates import hashes_of
from tasks.image_table import ImageRow
from tasks.verdicts import NOTHING


def photo(
    path: str,
    *,
    label: str = "cat",
    content: str | None = None,
    looks: int = 0,
    split: str = "",
    reason: str = "",
    evidence: str = "",
) -> ImageRow:
    """A decodable photo whose bytes are `content` (by default its path) and whose perceptual hash is `looks`."""
    return ImageRow(
        id=id_of(path if content is None else content),
        path=path,
        label=label,
        split=split,
        reason=reason,
        evidence=evidence,
        width=100,
        height=80,
        perceptual_hash=f"{looks:016x}",
    )


def pairs(rows: Iterable[ImageRow], *, max_bits: int) -> Hashes:
    """The close pairs of the rows' hashes, as a first run finds them."""
    nothing = {"known": NOTHING.hashes, "known_pairs": NOTHING.pairs}
    return find_close_pairs(hashes_of(rows), max_bits=max_bits, **nothing)


def id_of(content: str) -> str:
    """The id of a photo with these bytes."""
    return hashlib.sha256(content.encode()).hexdigest()


def unlike(number: int) -> int:
    """A perceptual hash far from those of other numbers."""
    return int(hashlib.sha256(str(number).encode()).hexdigest()[:16], 16)
