"""Reading Parquet tables that are in memory."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def read_columns(table: bytes, names: Sequence[str] | None = None) -> pa.Table:
    """Return columns of a Parquet file, in the order of their names; all if none are named.

    In this thread and without a Python file: with either, Arrow's threads can still be at work when the interpreter
    ends, and abort it (apache/arrow issue 33975).
    """
    columns = pq.ParquetFile(pa.BufferReader(table)).read(columns=names and list(names), use_threads=False)
    return columns.select(list(names)) if names else columns
