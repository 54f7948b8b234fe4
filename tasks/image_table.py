"""The image table, data/images.parquet: one row a candidate file, with its verdict, duplicate group and split."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tasks import tables

SPLITS = ("train", "val", "test")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("label", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("duplicate_of", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("bytes", pa.int64()),
        ("evidence", pa.string()),
        ("perceptual_hash", pa.string()),
        ("jfif", pa.bool_()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One candidate file.

    Attributes:
        id: SHA-256 of the file's bytes, in hex.
        path: Inside the source.
        label: Its class.
        reason: Why it is quarantined; empty when kept.
        duplicate_of: For an exact duplicate, the path of the kept original.
        group: The smallest id among its kept near-duplicates and itself; empty when quarantined.
        split: train, val or test; empty when quarantined. Until splits are assigned: the predefined one, or empty.
        width: As stored, before the EXIF orientation; 0 when the header could not be read.
        height: See `width`.
        format: What the bytes are, whatever the name says.
        mode: Pillow's mode, such as RGB, L or CMYK.
        bytes: The file's size.
        evidence: What was seen, and by which decoder; on a kept row, the verdict that a person overrode.
        perceptual_hash: 16 hex digits; empty when undecodable.
        jfif: Whether the file begins with a JFIF header.
    """

    id: str
    path: str
    label: str
    reason: str = ""
    duplicate_of: str = ""
    group: str = ""
    split: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    bytes: int = 0
    evidence: str = ""
    perceptual_hash: str = ""
    jfif: bool = False

    @property
    def status(self) -> str:
        """`kept` or `quarantined`."""
        return "quarantined" if self.reason else "kept"


def write_images(rows: Iterable[ImageRow], path: Path) -> None:
    """Write the table, sorted by path."""
    ordered = sorted(rows, key=lambda row: row.path)
    columns = [pa.array([getattr(row, field.name) for row in ordered], field.type) for field in SCHEMA]
    tables.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), path, compression="zstd")


def read_images(path: Path) -> list[ImageRow]:
    """Read the table, in its order."""
    names = [name for name in SCHEMA.names if name != "status"]
    return [ImageRow(**row) for row in tables.read_table(path, names, SCHEMA).to_pylist()]
