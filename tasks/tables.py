"""Parquet tables of our own, with checksums that are looked at: a damaged one is named, never read as if it were whole.

Without them, half of all flipped bits of a compressed table change what is read, and nothing says so. Statistics are
left out: readers go by them, and they lie in the footer, which has no checksum.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks import stage

WRITTEN_WITH = {"write_page_checksum": True, "write_statistics": False}
END_BYTES = 8  # the footer's length, and PAR1


def write_table(table: Any, path: Path, **options: Any) -> None:  # noqa: ANN401 - pyarrow ships no types
    """Write a table, with checksums."""
    pq.write_table(table, path, **WRITTEN_WITH, **options)


def read_table(path: Path, columns: Sequence[str] | None = None, schema: Any = None) -> Any:  # noqa: ANN401 - as above
    """Read a table, or some columns of it.

    Args:
        path: The table.
        columns: Their names; None for all.
        schema: What it must have, where that is known.

    Raises:
        PawlineError: It is damaged.
    """
    with stage.reading(path), _open(path) as file:
        table = file.read(columns=None if columns is None else list(columns), use_threads=False)
        _check(table, file.metadata.num_rows, columns)
        if schema is not None and any(field != schema.field(field.name) for field in table.schema):
            raise ValueError("its columns are not those that were written")
    return table


def read_row_group(path: Path, group: int, columns: Sequence[str]) -> Any:  # noqa: ANN401 - as above
    """Read some columns of a row group.

    Raises:
        PawlineError: It is damaged.
    """
    with stage.reading(path), _open(path) as file:
        table = file.read_row_group(group, list(columns), use_threads=False)
        _check(table, file.metadata.row_group(group).num_rows, columns)
    return table


def read_footer(path: Path) -> Any:  # noqa: ANN401 - as above
    """Read what a table's file says of it.

    Raises:
        PawlineError: It is damaged.
    """
    with stage.reading(path):
        return pq.read_metadata(path)


def footer_digest(path: Path) -> str:
    """Return the SHA-256 of a table's footer, which says where its pages are, each with a checksum of its own.

    Raises:
        PawlineError: It has none.
    """
    with stage.reading(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size - END_BYTES)
        length = int.from_bytes(file.read(END_BYTES)[:4], "little")
        file.seek(size - END_BYTES - length)
        return hashlib.sha256(file.read()).hexdigest()


def _open(path: Path) -> Any:  # noqa: ANN401 - as above
    return pq.ParquetFile(path, page_checksum_verification=True)


def _check(table: Any, rows: int, columns: Sequence[str] | None) -> None:  # noqa: ANN401 - as above
    missing = set(columns or ()) - set(table.column_names)
    if missing:  # pyarrow leaves out what it does not find
        raise KeyError(f"no column {min(missing)}")
    if table.num_rows != rows:
        raise ValueError(f"{table.num_rows} rows, {rows} were written")
    table.validate(full=True)
