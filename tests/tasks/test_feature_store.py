"""Rows across shards, in the order asked for."""

from pathlib import Path

import numpy as np
import pytest

from tasks.feature_store import FeatureSplit, dequantize, quantize, range_of, read_ids, shard_files, shard_name


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


@pytest.mark.parametrize("shape", [(5, 7, 7, 4), (5, 3)])
def test_no_value_moves_by_more_than_half_a_level(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    tensors = (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 6, shape[-1])).astype(np.float32).clip(-2, None)
    tensors[0, ..., 0] = 5  # a channel that is the same everywhere
    levels, ranges = quantize(tensors)
    assert (str(levels.dtype), levels.shape) == ("uint8", shape)
    assert (str(ranges.dtype), ranges.shape) == ("float32", (5, 2, shape[-1]))
    back = dequantize(levels, ranges)
    assert back.dtype == np.float32
    inner = tuple(range(1, len(shape) - 1))
    low, high = tensors.min(axis=inner, keepdims=True), tensors.max(axis=inner, keepdims=True)
    assert (np.abs(back - tensors) <= (high - low) / 510 * 1.001 + 1e-6 * np.abs(high)).all()
    assert np.array_equal(back[tensors == low], tensors[tensors == low])


def test_rounded_rows_across_shards(tmp_path: Path) -> None:
    tensors = np.random.default_rng(0).normal(size=(5, 2, 4, 4, 3)).astype(np.float32)
    for number, rows in enumerate((slice(0, 2), slice(2, 5))):
        for kind, values in zip(("boundary", range_of("boundary")), _by_view(tensors[rows]), strict=True):
            np.save(tmp_path / shard_name("train", number, kind), values)
        np.save(tmp_path / shard_name("train", number, "labels"), np.zeros(len(tensors[rows]), np.int64))
    split = FeatureSplit(tmp_path, "train", "boundary")
    order = np.array([4, 0, 2])
    for view in (0, 1):
        assert np.array_equal(split.rows(order, view), dequantize(*quantize(tensors[order, view])))


def _by_view(tensors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    views = [quantize(tensors[:, view]) for view in range(tensors.shape[1])]
    return np.stack([levels for levels, _ in views], axis=1), np.stack([ranges for _, ranges in views], axis=1)
