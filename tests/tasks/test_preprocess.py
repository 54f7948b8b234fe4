"""TFRecords of the kept photos: lossless, in order, loadable by TFDS, the same bytes each time."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tasks import records
from tasks.image_table import ImageRow, read_images
from tasks.images import decode_upright, resize_square
from tasks.preprocess import preprocess
from tasks.raw import read_shard, shard_paths
from tests.tasks.conftest import IMAGE, Run, changed, make_tfrecords


def kept_of(small_run: Run, split: str) -> list[ImageRow]:
    return [row for row in read_images(small_run.images_path) if row.status == "kept" and row.split == split]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_pixels_labels_and_order(small_run: Run, split: str) -> None:
    rows = kept_of(small_run, split)
    contents = {r.path: r.content for shard in shard_paths(small_run.raw_dir) for r in read_shard(shard)}
    batches = [b for path in records.shard_paths(small_run.tfrecords_dir, split) for b in records.read_shard(path)]
    assert len(rows) > 5
    assert [path for batch in batches for path in batch.paths] == [row.path for row in rows]
    assert [image_id for batch in batches for image_id in batch.ids] == [row.id for row in rows]
    labels = records.read_labels(small_run.tfrecords_dir)
    assert [labels[label] for batch in batches for label in batch.labels] == [row.label for row in rows]
    expected = np.stack(
        [resize_square(decode_upright(contents[row.path]), IMAGE.size_px, IMAGE.resize) for row in rows]
    )
    assert np.array_equal(np.concatenate([batch.images for batch in batches]), expected)


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_photos_are_resized_as_the_parameter_says(
    small_run: Run, tmp_path: Path, resize: Literal["crop", "pad"]
) -> None:
    preprocess(
        raw_dir=small_run.raw_dir,
        images_path=small_run.images_path,
        tfrecords_dir=tmp_path / "tfrecords",
        params=changed(IMAGE, resize=resize),
    )
    contents = {r.path: r.content for shard in shard_paths(small_run.raw_dir) for r in read_shard(shard)}
    [shard] = records.shard_paths(tmp_path / "tfrecords", "val")
    [batch] = records.read_shard(shard)
    photos = [decode_upright(contents[path]) for path in batch.paths]
    expected = np.stack([resize_square(photo, IMAGE.size_px, resize) for photo in photos])
    assert np.array_equal(batch.images, expected)
    squashed = np.stack([resize_square(photo, IMAGE.size_px, "squash") for photo in photos])
    assert not np.array_equal(batch.images, squashed)


def test_tfds_loads_the_folder(small_run: Run) -> None:
    builder = tfds.builder_from_directory(small_run.tfrecords_dir)
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    assert sizes == {split: len(kept_of(small_run, split)) for split in ("train", "val", "test")}
    assert sizes == records.split_sizes(small_run.tfrecords_dir)
    assert builder.info.features["label"].names == ["cat", "dog"] == records.read_labels(small_run.tfrecords_dir)
    examples = list(tfds.as_numpy(builder.as_dataset(split="val")))
    ours = next(records.read_shard(records.shard_paths(small_run.tfrecords_dir, "val")[0]))
    assert [example["path"].decode() for example in examples] == ours.paths
    assert [example["label"] for example in examples] == ours.labels.tolist()
    assert np.array_equal([example["image"] for example in examples], ours.images)


def test_shards_of_equal_size_and_the_same_bytes(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tfrecords(small_run, tmp_path / "again")
    for path in small_run.tfrecords_dir.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list((tmp_path / "again").iterdir())) == len(list(small_run.tfrecords_dir.iterdir()))
    train = len(kept_of(small_run, "train"))
    monkeypatch.setattr(records, "IMAGES_PER_SHARD", 10)
    make_tfrecords(small_run, tmp_path / "sharded")
    shards = records.shard_paths(tmp_path / "sharded", "train")
    lengths = [sum(len(batch.labels) for batch in records.read_shard(shard)) for shard in shards]
    assert len(lengths) == -(-train // 10)
    assert sum(lengths) == train
    assert max(lengths) <= 10
    assert records.split_sizes(tmp_path / "sharded")["train"] == train
