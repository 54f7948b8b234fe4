"""What earlier runs of `validate` found: the verdict on each file's bytes, and which pictures look the same.

verdicts.parquet  a row for each different file: `id` (SHA-256 of its bytes) and the fields of `Verdict`
pairs.parquet     perceptual hashes that are close (`left`, `right`), of all files that could be decoded

Neither depends on where a file lies or on other files' labels, so that a later run looks at new files only.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks import tables
from tasks.close_hashes import Hashes
from tasks.images import Verdict
from tasks.stage import PawlineError

log = logging.getLogger(__name__)

KEY = b"pawline_key"
VERDICTS = pa.schema(
    [
        ("id", pa.string()),
        ("reason", pa.string()),
        ("evidence", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("bytes", pa.int64()),
        ("perceptual_hash", pa.string()),
        ("jfif", pa.bool_()),
    ]
)
PAIRS = pa.schema([("left", pa.uint64()), ("right", pa.uint64())])


class Keys(NamedTuple):
    """What verdicts and pairs depend on but the files (`reuse.make_key`)."""

    verdicts: str
    pairs: str


class Known(NamedTuple):
    """What a run begins with: verdicts by id, and the pairs of close hashes among `hashes` ([pairs, 2], uint64)."""

    verdicts: Mapping[str, Verdict]
    hashes: Hashes
    pairs: Hashes


NOTHING = Known({}, np.zeros(0, np.uint64), np.zeros((0, 2), np.uint64))


def read_known(folder: Path, keys: Keys) -> Known:
    """Read what an earlier run wrote under the same keys; nothing is known of what is not there or is damaged."""
    verdicts: dict[str, Verdict] = {}
    table = _read(folder / "verdicts.parquet", keys.verdicts)
    if table is not None:
        for row in table.to_pylist():
            image_id = row.pop("id")
            verdicts[image_id] = Verdict(**row)
    pairs = _read(folder / "pairs.parquet", keys.pairs)
    if pairs is None:
        return NOTHING._replace(verdicts=verdicts)
    hashes = [int(verdict.perceptual_hash, 16) for verdict in verdicts.values() if verdict.perceptual_hash]
    return Known(verdicts, np.array(hashes, np.uint64), np.stack([column.to_numpy() for column in pairs.columns], 1))


def write_known(verdicts: Mapping[str, Verdict], pairs: Hashes, folder: Path, keys: Keys) -> None:
    """Write what the next run need not look at again."""
    rows = [{"id": image_id} | asdict(verdicts[image_id]) for image_id in sorted(verdicts)]
    _write(pa.Table.from_pylist(rows, VERDICTS), folder / "verdicts.parquet", keys.verdicts)
    _write(pa.Table.from_arrays(list(pairs.T), schema=PAIRS), folder / "pairs.parquet", keys.pairs)


def _write(table: Any, path: Path, key: str) -> None:  # noqa: ANN401 - pyarrow ships no types
    tables.write_table(table.replace_schema_metadata({KEY: key}), path, compression="zstd")


def _read(path: Path, key: str) -> Any:  # noqa: ANN401 - as above
    if not path.exists():
        return None
    try:
        table = tables.read_table(path)
    except PawlineError as error:
        log.warning("%s; for now it is made anew", error)
        return None
    return table if (table.schema.metadata or {}).get(KEY) == key.encode() else None
