"""Parquet tables: written with checksums, read whole or named."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import tables
from tasks.stage import PawlineError

SCHEMA = pa.schema([("name", pa.string()), ("size", pa.int32())])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = [{"name": f"photo {number}", "size": number} for number in range(100)]
    tables.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_what_was_written_is_read(path: Path) -> None:
    assert tables.read_table(path, schema=SCHEMA)["size"].to_pylist() == list(range(100))
    assert tables.read_table(path, ["name"], SCHEMA).column_names == ["name"]
    assert tables.read_row_group(path, 0, ["size"]).num_rows == tables.read_footer(path).num_rows == 100


def test_no_statistics_to_go_by(path: Path) -> None:
    assert pq.read_metadata(path).row_group(0).column(1).statistics is None


@pytest.mark.parametrize("columns", [["size", "weight"], ["weight"]])
def test_a_column_that_is_not_there(path: Path, columns: list[str]) -> None:
    with pytest.raises(PawlineError, match=r"t\.parquet is damaged \(KeyError: 'no column weight'\)"):
        tables.read_table(path, columns)


def test_columns_of_another_kind(path: Path) -> None:
    with pytest.raises(PawlineError, match="its columns are not those that were written"):
        tables.read_table(path, schema=pa.schema([("name", pa.string()), ("size", pa.int64())]))


def test_a_footer_is_known_by_its_digest(path: Path) -> None:
    before = tables.footer_digest(path)
    content = path.read_bytes()
    path.write_bytes(b"x" + content[1:])
    assert tables.footer_digest(path) == before, "what is not of the footer"
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    assert tables.footer_digest(path) != before
    path.write_bytes(content[:5])
    with pytest.raises(PawlineError, match="is damaged"):
        tables.footer_digest(path)
