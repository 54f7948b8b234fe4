"""Rows across shards, in the order asked for."""

from pathlib import Path

import numpy as np

from tasks.feature_store import FeatureSplit, read_ids, shard_files, shard_name


def test_rows_across_shards(tmp_path: Path) -> None:
    values = np.arange(7 * 2 * 3, dtype=np.float16).reshape(7, 2, 3)
    for number, (start, end) in enumerate(((0, 3), (3, 4), (4, 7))):
        np.save(tmp_path / shard_name("val", number, "boundary"), values[start:end])
        np.save(tmp_path / shard_name("val", number, "labels"), np.arange(start, end))
    np.save(tmp_path / shard_name("train", 0, "labels"), np.arange(9))
    split = FeatureSplit(tmp_path, "val", "boundary")
    assert (len(split), split.views, split.labels.tolist()) == (7, 2, list(range(7)))
    order = np.array([6, 0, 3, 2, 4])
    for view in (0, 1):
        rows = split.rows(order, view)
        assert rows.dtype == np.float16
        assert np.array_equal(rows, values[order, view])


def test_shards_are_in_order_and_an_empty_split_is_empty(tmp_path: Path) -> None:
    assert shard_name("train", 12, "pooled") == "train-00012-pooled.npy"
    for number in (10, 2, 0):
        np.save(tmp_path / shard_name("train", number, "labels"), np.zeros(1))
    assert [path.name[6:11] for path in shard_files(tmp_path, "train", "labels")] == ["00000", "00002", "00010"]
    assert len(FeatureSplit(tmp_path, "test", "pooled")) == 0


def test_ids_across_shards(tmp_path: Path) -> None:
    ids = [f"{number:064x}" for number in range(5)]
    np.save(tmp_path / shard_name("val", 1, "ids"), np.array(ids[3:], "S64"))
    np.save(tmp_path / shard_name("val", 0, "ids"), np.array(ids[:3], "S64"))
    assert read_ids(tmp_path, "val") == ids
    assert read_ids(tmp_path, "test") == []
