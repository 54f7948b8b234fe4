"""The TFRecords: what an example holds, and how it is written and read. TFDS's own folder format.

`tfds.builder_from_directory` loads the folder. An example has `image` (PNG, uint8 [size, size, 3]), `label` (class
index), `id` (SHA-256 of the original bytes) and `path`.

Writing does without TensorFlow, which takes seconds to import.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import google_crc32c
import numpy as np
from blake3 import blake3

from tasks import stage
from tasks.parallel import available_processors

if TYPE_CHECKING:
    from tasks.quiet_tf import Tensor

NAME = "pawline"
VERSION = "1.0.0"
IMAGES_PER_SHARD = 128  # one id in so many ends a shard, which has at most twice as many images
BATCH_SIZE = 32
LENGTH, CHECKSUM_BYTES = "<Q", 4  # what surrounds an example: its length and a checksum of that, and one of itself


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


def cut(ids: Sequence[str]) -> list[range]:
    """Cut a split's images into shards: ranges of their positions.

    A shard ends at an image whose id says so, or when it is full. So where images come or go, only the shards around
    them change (content-defined chunking: Muthitacharoen, Chen and Mazieres, "A low-bandwidth network file system",
    SOSP 2001).
    """
    shards, start = [], 0
    for end, image_id in enumerate(ids, start=1):
        ends_here = int(image_id[:8], 16) % IMAGES_PER_SHARD == 0
        if ends_here or end - start == 2 * IMAGES_PER_SHARD or end == len(ids):
            shards.append(range(start, end))
            start = end
    return shards


class Writer:
    """Writes serialised examples to a shard.

    The format (tensorflow/core/lib/io/record_writer.h): each record's length, the length's checksum, the record, its
    checksum; numbers are little-endian.
    """

    def __init__(self, shard: Path) -> None:
        self._file = shard.open("wb")

    def write(self, example: bytes) -> None:
        """Append an example."""
        length = struct.pack(LENGTH, len(example))
        self._file.write(b"".join([length, _masked_crc32c(length), example, _masked_crc32c(example)]))

    def close(self) -> None:
        """Write what is buffered, and close the file."""
        self._file.close()


def bytes_of_examples(shard: Path, examples: int) -> int:
    """Return the bytes of a shard's examples, without what surrounds them."""
    return shard.stat().st_size - examples * (struct.calcsize(LENGTH) + 2 * CHECKSUM_BYTES)


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


class Example(NamedTuple):
    """What tells examples apart, and where in its shard one lies, as it was serialised."""

    id: str
    path: str
    label: int
    shard: Path
    start: int
    length: int

    def read(self) -> bytes:
        """Read it from its shard."""
        with self.shard.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)

    def digest_image(self) -> bytes:
        """Return the BLAKE3 of its PNG: of one photo there are others, at other settings of `image`."""
        return blake3(next(_fields(_values(self.read())["image"]))[1]).digest()


def scan_shard(shard: Path) -> Iterator[Example]:
    """Yield a shard's examples, their images left where they are.

    Raises:
        PawlineError: The shard is damaged.
    """
    with stage.reading(shard), shard.open("rb") as file:
        while header := file.read(struct.calcsize(LENGTH)):
            _check(file, header)  # before so many bytes are asked for
            [length] = struct.unpack(LENGTH, header)
            start, example = file.tell(), file.read(length)
            _check(file, example)
            yield Example(**_parse(example), shard=shard, start=start, length=length)


def _check(file: BinaryIO, content: bytes) -> None:
    """Compare content with the checksum behind it."""
    if file.read(CHECKSUM_BYTES) != _masked_crc32c(content):
        raise ValueError("a checksum is another")


def _parse(example: bytes) -> dict[str, Any]:
    """Return the id, path and label of what `serialize` has written."""
    values = _values(example)
    texts = {name: bytes(next(_fields(values[name]))[1]).decode() for name in ("id", "path")}
    label, _ = _read_varint(next(_fields(values["label"]))[1], 0)
    return texts | {"label": label}


def _values(example: bytes) -> dict[str, memoryview]:
    """Return the lists of what `serialize` has written, by name."""
    [[_, features]] = _fields(example)
    values = {}
    for _, entry in _fields(features):
        (_, name), (_, feature) = _fields(entry)
        [[_, values[bytes(name).decode()]]] = _fields(feature)
    return values


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and content of each field of wire type 2."""
    view, position = memoryview(message), 0
    while position < len(view):
        number = view[position] >> 3
        length, start = _read_varint(view, position + 1)
        position = start + length
        yield number, view[start:position]


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """Return a number, and where what follows it begins."""
    number = shift = 0
    while view[position] > 0x7F:
        number |= (view[position] & 0x7F) << shift
        position, shift = position + 1, shift + 7
    return number | view[position] << shift, position + 1


def read_all(shard: Path) -> Batch:
    """Read a whole shard: at most `2 * IMAGES_PER_SHARD` images."""
    images, labels, ids, paths = zip(*read_shard(shard), strict=True)
    return Batch(
        np.concatenate(images), np.concatenate(labels), list(chain.from_iterable(ids)), list(chain.from_iterable(paths))
    )


def read_examples(examples: Sequence[Example], positions: Iterable[int]) -> Batch:
    """Read and decode some of the examples that `scan_shard` has found; a thread a processor."""
    from tasks.quiet_tf import tf

    def decode(example: Example) -> np.ndarray:
        parsed = tf.io.parse_single_example(example.read(), {"image": tf.io.FixedLenFeature((), tf.string)})
        image: np.ndarray = tf.io.decode_png(parsed["image"], channels=3).numpy()
        return image

    chosen = [examples[position] for position in positions]
    with ThreadPoolExecutor(available_processors()) as pool:
        images = list(pool.map(decode, chosen))
    return Batch(
        np.stack(images) if images else np.zeros((0, 0, 0, 3), np.uint8),
        np.array([example.label for example in chosen], np.int64),
        [example.id for example in chosen],
        [example.path for example in chosen],
    )


def read_shard(shard: Path) -> Iterator[Batch]:
    """Yield a shard's examples in order, in batches of at most `BATCH_SIZE`.

    Raises:
        PawlineError: The shard is damaged: TensorFlow looks at the checksums.
    """
    from tasks.quiet_tf import tf

    spec = {key: tf.io.FixedLenFeature((), tf.string) for key in ("image", "id", "path")}
    spec["label"] = tf.io.FixedLenFeature((), tf.int64)

    def parse(serialized: "Tensor") -> dict[str, "Tensor"]:
        example: dict[str, Tensor] = tf.io.parse_single_example(serialized, spec)
        return example | {"image": tf.io.decode_png(example["image"], channels=3)}

    dataset = tf.data.TFRecordDataset(str(shard)).map(parse, num_parallel_calls=2, deterministic=True)
    with stage.reading(shard):
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
