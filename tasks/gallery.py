"""Which pictures the report shows, and their thumbnails."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tasks.image_table import ImageRow
from tasks.images import UndecodableError, decode_upright
from tasks.progress import Progress
from tasks.raw import list_chunks, read_chunk

MOST_TILES = 24  # of one reason; the image table has them all
MOST_QUARANTINED = 120  # of all reasons together, so that the page stays small
MOST_GROUPS, MOST_OF_GROUP = 12, 4
THUMBNAIL_SIDE_PX = 160
THUMBNAIL_BYTES = 8_000  # of a picture with hardly any structure to compress; most take half
JPEG_QUALITIES = (80, 65, 50, 35, 20)


@dataclass(frozen=True)
class ReasonGroup:
    """The quarantined files of one reason: the first of them, by path, and how many there are in all."""

    reason: str
    rows: list[ImageRow]
    count: int


def group_by_reason(rows: Iterable[ImageRow]) -> list[ReasonGroup]:
    """Group the quarantined files, the commonest reason first."""
    groups = _grouped(rows, lambda row: row.reason)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    shown = min(MOST_TILES, MOST_QUARANTINED // max(len(groups), 1))
    return [ReasonGroup(reason, members[:shown], len(members)) for reason, members in ordered]


@dataclass(frozen=True)
class NearDuplicates:
    """Kept photos that look alike: the first of them, by path, and how many there are in all."""

    rows: list[ImageRow]
    count: int


def near_duplicates(rows: Iterable[ImageRow]) -> list[NearDuplicates]:
    """Return the groups of near-duplicates among the kept photos, the largest first."""
    groups = _grouped(rows, lambda row: row.group)
    several = sorted((group for group in groups.values() if len(group) > 1), key=lambda one: (-len(one), one[0].path))
    return [NearDuplicates(members[:MOST_OF_GROUP], len(members)) for members in several]


def make_thumbnails(raw_dir: Path, rows: Sequence[ImageRow]) -> dict[str, str]:
    """Return data URLs of thumbnails by path, of those rows that can be shown.

    Only what `validate` has decoded within its pixel limit is decoded here: it left a perceptual hash.
    """
    wanted = {row.path for row in rows if row.perceptual_hash}
    if not wanted:
        return {}
    chunks = list_chunks(raw_dir)
    thumbnails = {}
    with Progress("report", total=sum(chunk.records for chunk in chunks)) as progress:
        for chunk in chunks:
            for record in read_chunk(chunk):
                if record.path in wanted and (thumbnail := shrink(record.content)):
                    thumbnails[record.path] = thumbnail
            progress.advance(chunk.records)
    return thumbnails


def shrink(content: bytes) -> str | None:
    """Return a thumbnail of an image file as a data URL; None if it cannot be decoded."""
    try:
        image = decode_upright(content)
    except UndecodableError:
        return None  # the tile says what was seen instead
    image.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), Image.Resampling.LANCZOS)
    for quality in JPEG_QUALITIES:
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=quality, optimize=True)
        if encoded.tell() <= THUMBNAIL_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def _grouped(rows: Iterable[ImageRow], key: Callable[[ImageRow], str]) -> dict[str, list[ImageRow]]:
    """Group rows in their order; those whose key is empty are left out."""
    groups: dict[str, list[ImageRow]] = {}
    for row in rows:
        if key(row):
            groups.setdefault(key(row), []).append(row)
    return groups
