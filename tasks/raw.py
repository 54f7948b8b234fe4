"""The raw table: original, unmodified bytes of every candidate file, in Parquet shards that are read as a stream.

Columns: `path` (inside the source), `label` (class folder, lower case), `split` (predefined: train, val, test or
empty), `id` (SHA-256 of the file's bytes, in hex), `content` (those bytes).
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import seals, tables
from tasks.stage import PawlineError

SHARD_SUFFIX = ".parquet"  # by which shards are told from the seal beside them
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("id", pa.string()),
        ("content", pa.large_binary()),
    ]
)
SHARD_BYTES = 64 * 2**20
ROW_GROUP_BYTES, ROW_GROUP_RECORDS = 8 * 2**20, 256  # what a reader holds in memory at a time, at most


class Candidate(NamedTuple):
    """One candidate file without its bytes, of which `id` is the SHA-256 in hex."""

    path: str
    label: str
    split: str
    id: str


class RawRecord(NamedTuple):
    """One candidate file as the source has it."""

    path: str
    label: str
    split: str
    content: bytes


def write_shards(records: Iterable[RawRecord], out_dir: Path) -> int:
    """Write the records, in their order, to `raw-00000.parquet` and so on, and a seal; return how many there were."""
    shard = _Shards(out_dir)
    group: list[RawRecord] = []
    group_bytes = count = 0
    for record in records:
        group.append(record)
        group_bytes += len(record.content)
        count += 1
        if group_bytes >= ROW_GROUP_BYTES or len(group) == ROW_GROUP_RECORDS:
            shard.write(group, group_bytes)
            group, group_bytes = [], 0
    if group:
        shard.write(group, group_bytes)
    shard.close()
    seals.seal(out_dir, {path.name: tables.footer_digest(path) for path in shard_paths(out_dir)})
    return count


def shard_paths(raw_dir: Path) -> list[Path]:
    """Return the shards in order."""
    return sorted(raw_dir.glob(f"raw-*{SHARD_SUFFIX}"))


class Chunk(NamedTuple):
    """A piece of the table that one worker holds in memory at a time."""

    shard: Path
    row_group: int
    records: int

    def __str__(self) -> str:
        return f"{self.shard} row group {self.row_group}"


def list_chunks(raw_dir: Path) -> list[Chunk]:
    """Return the row groups of all shards in order, from the shards' footers, which are those that were written."""
    seals.check(raw_dir, digest=tables.footer_digest)
    return [
        Chunk(shard, group, footer.row_group(group).num_rows)
        for shard in shard_paths(raw_dir)
        for footer in [tables.read_footer(shard)]
        for group in range(footer.num_row_groups)
    ]


def read_chunk(chunk: Chunk) -> Iterator[RawRecord]:
    """Yield a row group's records."""
    yield from _records(chunk.shard, chunk.row_group)


def read_shard(shard: Path) -> Iterator[RawRecord]:
    """Yield a shard's records, holding one row group in memory."""
    for group in range(tables.read_footer(shard).num_row_groups):
        yield from _records(shard, group)


def _records(shard: Path, group: int) -> Iterator[RawRecord]:
    table = tables.read_row_group(shard, group, RawRecord._fields)
    for row in zip(*(table.column(name) for name in RawRecord._fields), strict=True):
        yield RawRecord(*(value.as_py() for value in row))


def read_candidates(chunk: Chunk) -> list[Candidate]:
    """Read what a row group says of its files; their bytes are not touched."""
    table = tables.read_row_group(chunk.shard, chunk.row_group, Candidate._fields)
    return [Candidate(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


class Wanted(NamedTuple):
    """Some files of a row group, by their rows in it."""

    chunk: Chunk
    rows: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.chunk}, row {self.rows[0]}" if len(self.rows) == 1 else str(self.chunk)


def split_wanted(wanted: Wanted) -> list[Wanted]:
    """Return the wanted files one by one."""
    return [wanted._replace(rows=(row,)) for row in wanted.rows]


def read_contents(wanted: Wanted) -> Iterator[bytes]:
    """Yield the bytes of the wanted files.

    Raises:
        PawlineError: They are not those that were ingested.
    """
    table = tables.read_row_group(wanted.chunk.shard, wanted.chunk.row_group, ["id", "content"])
    for row in wanted.rows:
        content: bytes = table["content"][row].as_py()
        if hashlib.sha256(content).hexdigest() != table["id"][row].as_py():
            raise PawlineError(f"{wanted}: a file is not what was ingested: run `dvc repro --force ingest`")
        yield content


class _Shards:
    """Writes row groups, starting a new shard when one is full."""

    def __init__(self, out_dir: Path) -> None:
        self._out_dir, self._number, self._bytes = out_dir, 0, 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, group: list[RawRecord], group_bytes: int) -> None:
        if self._writer is None or self._bytes >= SHARD_BYTES:
            self.close()
            path = self._out_dir / f"raw-{self._number:05d}.parquet"
            # Photos are compressed already: a codec would cost time and save nothing.
            self._writer = pq.ParquetWriter(
                path, SCHEMA, compression="none", use_dictionary=["label", "split"], **tables.WRITTEN_WITH
            )
            self._number, self._bytes = self._number + 1, 0
        columns = {name: list(column) for name, column in zip(RawRecord._fields, zip(*group, strict=True), strict=True)}
        columns["id"] = [hashlib.sha256(record.content).hexdigest() for record in group]
        self._writer.write_table(pa.Table.from_pydict(columns, SCHEMA))
        self._bytes += group_bytes

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
