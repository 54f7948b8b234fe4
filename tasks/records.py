"""The TFRecords: what an example holds, and how it is written and read. TFDS's own folder format.

`tfds.builder_from_directory` loads the folder. An example has `image` (PNG, uint8 [size, size, 3]), `label` (class
index), `id` (SHA-256 of the original bytes) and `path`.

Writing does without TensorFlow, which takes seconds to import.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
import numpy as np

from tasks import stage

if TYPE_CHECKING:
    from tasks.quiet_tf import Tensor

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


class Writer:
    """Writes serialised examples to a shard.

    The format (tensorflow/core/lib/io/record_writer.h): each record's length, the length's checksum, the record, its
    checksum; numbers are little-endian.
    """

    def __init__(self, shard: Path) -> None:
        self._file = shard.open("wb")

    def write(self, example: bytes) -> None:
        """Append an example."""
        length = struct.pack("<Q", len(example))
        self._file.write(b"".join([length, _masked_crc32c(length), example, _masked_crc32c(example)]))

    def close(self) -> None:
        """Write what is buffered, and close the file."""
        self._file.close()


def _masked_crc32c(content: bytes) -> bytes:
    """Return the checksum as tensorflow/core/lib/hash/crc32c.h masks it: turned right by 15 bits, plus a constant."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def serialize(png: bytes, label: int, image_id: str, path: str) -> bytes:
    """Serialise one example as a `tf.train.Example`, the same bytes every time.

    The message (tensorflow/core/example/example.proto, feature.proto) is a map from names to lists, here of one value
    each, in the order of the names. Every part of it is a field of protobuf's wire type 2: a length, then its bytes.
    """
    texts = {"id": image_id.encode(), "image": png, "path": path.encode()}
    features = {name: _field(1, _field(1, value)) for name, value in texts.items()}  # bytes_list
    features["label"] = _field(3, _field(1, _varint(label)))  # int64_list
    entries = [_field(1, name.encode()) + _field(2, features[name]) for name in sorted(features)]
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Return seven bits a byte, the lowest first; all but the last have their highest bit set."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def read_shard(shard: Path) -> Iterator[Batch]:
    """Yield a shard's examples in order, in batches of at most `BATCH_SIZE`."""
    from tasks.quiet_tf import tf

    spec = {key: tf.io.FixedLenFeature((), tf.string) for key in ("image", "id", "path")}
    spec["label"] = tf.io.FixedLenFeature((), tf.int64)

    def parse(serialized: "Tensor") -> dict[str, "Tensor"]:
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
