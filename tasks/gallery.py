"""Which pictures the report shows, and their thumbnails."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from tasks.image_table import ImageRow
from tasks.images import UndecodableError, decode_upright
from tasks.progress import Progress
from tasks.raw import list_chunks, read_chunk

MOST_TILES = 24  # of one reason; the image table has them all
MOST_ERRORS = 12
THUMBNAIL_SIDE_PX = 160
JPEG_QUALITY = 80


@dataclass(frozen=True)
class ReasonGroup:
    """The quarantined files of one reason: the first of them, by path, and how many there are in all."""

    reason: str
    rows: list[ImageRow]
    count: int


def group_by_reason(rows: Iterable[ImageRow]) -> list[ReasonGroup]:
    """Group the quarantined files, the commonest reason first."""
    groups: dict[str, list[ImageRow]] = {}
    for row in rows:
        if row.reason:
            groups.setdefault(row.reason, []).append(row)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [ReasonGroup(reason, members[:MOST_TILES], len(members)) for reason, members in ordered]


@dataclass(frozen=True)
class Mistake:
    """An image that the classifier got wrong, and the probability it gave to its wrong answer."""

    path: str
    label: str
    predicted: str
    probability: float


def worst_mistakes(predictions_path: Path) -> tuple[list[Mistake], int]:
    """Return the surest wrong answers, the surest first, and how many wrong answers there are."""
    columns = ["path", "label", "predicted", "probability"]
    table = pq.read_table(predictions_path, columns=columns, use_threads=False)
    wrong = table.filter(pc.not_equal(table["label"], table["predicted"]))
    worst = wrong.sort_by([("probability", "descending"), ("path", "ascending")]).slice(0, MOST_ERRORS)
    return [Mistake(**row) for row in worst.to_pylist()], wrong.num_rows


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
                if record.path in wanted and (thumbnail := _thumbnail(record.content)):
                    thumbnails[record.path] = thumbnail
            progress.advance(chunk.records)
    return thumbnails


def _thumbnail(content: bytes) -> str | None:
    try:
        image = decode_upright(content)
    except UndecodableError:
        return None  # the tile says what was seen instead
    image.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
