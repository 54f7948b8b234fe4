"""The raw table: the same bytes back, in order, in pieces that fit in memory."""

from pathlib import Path

import pytest

from tasks import raw
from tasks.raw import RawRecord, list_chunks, read_chunk, read_shard, shard_paths, write_shards

RECORDS = [RawRecord(f"Cat/{n} é.jpg", "cat", "train" if n else "", bytes([n]) * n) for n in range(10)]


def test_round_trip_in_several_shards_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "ROW_GROUP_BYTES", 8)
    monkeypatch.setattr(raw, "SHARD_BYTES", 16)
    assert write_shards(iter(RECORDS), tmp_path) == 10
    # 0+1+2+3+4 bytes fill a row group, 5+6 the next, and with 21 bytes the shard is full; 7+8 end the table's last two.
    assert [path.name for path in shard_paths(tmp_path)] == ["raw-00000.parquet", "raw-00001.parquet"]
    assert [(chunk.shard.name[4:9], chunk.row_group, chunk.records) for chunk in list_chunks(tmp_path)] == [
        ("00000", 0, 5),
        ("00000", 1, 2),
        ("00001", 0, 2),
        ("00001", 1, 1),
    ]
    assert [record for shard in shard_paths(tmp_path) for record in read_shard(shard)] == RECORDS
    assert [record for chunk in list_chunks(tmp_path) for record in read_chunk(chunk)] == RECORDS
    assert sum(chunk.records for chunk in list_chunks(tmp_path)) == 10


def test_no_records(tmp_path: Path) -> None:
    assert write_shards([], tmp_path) == 0
    assert shard_paths(tmp_path) == []
    assert list_chunks(tmp_path) == []
    assert list_chunks(tmp_path) == []


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_shards(RECORDS, tmp_path / name)
    assert (tmp_path / "a/raw-00000.parquet").read_bytes() == (tmp_path / "b/raw-00000.parquet").read_bytes()


def test_a_chunk_says_where_it_is(tmp_path: Path) -> None:
    write_shards(RECORDS, tmp_path)
    assert str(list_chunks(tmp_path)[0]) == f"{tmp_path}/raw-00000.parquet row group 0"
