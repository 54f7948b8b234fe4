"""A finished small run's exports, and the photos behind its predictions, for the tests of what runs them."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.raw import list_chunks, read_chunk
from tests.inference.running import make_export
from tests.tasks.export.exports import exports_made, finished_run


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that tells red, green and blue apart: made at once, and without TensorFlow."""
    return make_export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="session")
def exports(shared_folder: Path) -> Path:
    """The small run's classifier in every format."""
    return exports_made(shared_folder)


@pytest.fixture(scope="session")
def predicted(shared_folder: Path) -> list[tuple[bytes, list[float]]]:
    """The bytes of every photo in data/predictions.parquet, and the probabilities that stand there."""
    run = finished_run(shared_folder)
    rows = {row["path"]: row["probabilities"] for row in pq.read_table(run.predictions_path).to_pylist()}
    records = [record for chunk in list_chunks(run.raw_dir) for record in read_chunk(chunk)]
    return [(record.content, rows[record.path]) for record in records if record.path in rows]
