"""Which photos int8 is calibrated on."""

import numpy as np
import pytest

from tasks import records
from tasks.export.photos import read_calibration, spread_evenly
from tests.tasks.conftest import Run


@pytest.mark.parametrize("total", [20, 60, 63, 95])
def test_positions_are_spread_from_the_first_to_the_last(total: int) -> None:
    positions = spread_evenly(total, 32)
    assert (positions[0], positions[-1], len(positions)) == (0, total - 1, min(total, 32))
    steps = np.diff(positions)
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


def test_the_photos_are_those_at_the_positions(small_run: Run) -> None:
    shards = records.shard_paths(small_run.tfrecords_dir, "train")
    squares = np.concatenate([batch.images for shard in shards for batch in records.read_shard(shard)])
    wanted = len(squares) - 3  # not all, and no even step
    np.testing.assert_array_equal(
        read_calibration(small_run.tfrecords_dir, wanted), squares[spread_evenly(len(squares), wanted)]
    )
