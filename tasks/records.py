"""The TFRecords: what an example holds, and how it is written and read. TFDS's own folder format.

`tfds.builder_from_directory` loads the folder. An example has `image` (PNG, uint8 [size, size, 3]), `label` (class
index), `id` (SHA-256 of the original bytes) and `path`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks import stage
from tasks.quiet_tf import Tensor, tf

NAME = "pawline"
VERSION = "1.0.0"
IMAGES_PER_SHARD = 128
BATCH_SIZE = 32


class Batch(NamedTuple):
    """Decoded examples: images uint8 [batch, size, size, 3], labels int64 [batch], ids and paths."""

    images: np.ndarray
    labels: np.ndarray
    ids: list[str]
    paths: list[str]


def shard_path(tfrecords_dir: Path, split: str, shard: int, shards: int) -> Path:
    """Return a shard's path by TFDS's naming rule."""
    return tfrecords_dir / f"{NAME}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"


def shard_paths(tfrecords_dir: Path, split: str) -> list[Path]:
    """Return a split's shards in order; none when the split is empty."""
    return sorted(tfrecords_dir.glob(f"{NAME}-{split}.tfrecord-*"))


def serialize(png: bytes, label: int, image_id: str, path: str) -> bytes:
    """Serialise one example, the same bytes every time."""
    values = {"image": png, "id": image_id.encode(), "path": path.encode()}
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in values.items()}
    feature["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def read_shard(shard: Path) -> Iterator[Batch]:
    """Yield a shard's examples in order, in batches of at most `BATCH_SIZE`."""
    spec = {key: tf.io.FixedLenFeature((), tf.string) for key in ("image", "id", "path")}
    spec["label"] = tf.io.FixedLenFeature((), tf.int64)

    def parse(serialized: Tensor) -> dict[str, Tensor]:
        example: dict[str, Tensor] = tf.io.parse_single_example(serialized, spec)
        return example | {"image": tf.io.decode_png(example["image"], channels=3)}

    dataset = tf.data.TFRecordDataset(str(shard)).map(parse, num_parallel_calls=2, deterministic=True)
    for batch in dataset.batch(BATCH_SIZE).prefetch(2).as_numpy_iterator():
        texts = ([value.decode() for value in batch[key]] for key in ("id", "path"))
        yield Batch(batch["image"], batch["label"], *texts)


def read_labels(tfrecords_dir: Path) -> list[str]:
    """Return the class names in the order of their indices."""
    return (tfrecords_dir / "label.labels.txt").read_text(encoding="utf-8").splitlines()


def split_sizes(tfrecords_dir: Path) -> dict[str, int]:
    """Return the number of examples of each split that has any, from `dataset_info.json`."""
    info = stage.read_json(tfrecords_dir / "dataset_info.json")
    return {split["name"]: sum(int(length) for length in split["shardLengths"]) for split in info["splits"]}
