"""Rows of the image table for tests."""

import hashlib

from tasks.image_table import ImageRow


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


def id_of(content: str) -> str:
    """The id of a photo with these bytes."""
    return hashlib.sha256(content.encode()).hexdigest()


def unlike(number: int) -> int:
    """A perceptual hash far from those of other numbers."""
    return int(hashlib.sha256(str(number).encode()).hexdigest()[:16], 16)
