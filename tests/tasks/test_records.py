"""The TFRecords: what goes in comes out."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tasks import records
from tasks.quiet_tf import tf


def png(seed: int) -> tuple[np.ndarray, bytes]:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return pixels, buffer.getvalue()


def test_round_trip(tmp_path: Path) -> None:
    shard = records.shard_path(tmp_path, "train", 0, 1)
    assert shard.name == "pawline-train.tfrecord-00000-of-00001"
    pictures = [png(seed) for seed in range(40)]
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for number, (_, content) in enumerate(pictures):
            writer.write(records.serialize(content, number % 3, f"id{number}", f"Cat/é {number}.jpg"))
    batches = list(records.read_shard(shard))
    assert [len(batch.labels) for batch in batches] == [32, 8]
    images = np.concatenate([batch.images for batch in batches])
    assert images.dtype == np.uint8
    assert np.array_equal(images, [pixels for pixels, _ in pictures])
    assert np.concatenate([batch.labels for batch in batches]).tolist() == [number % 3 for number in range(40)]
    assert [name for batch in batches for name in batch.ids] == [f"id{number}" for number in range(40)]
    assert batches[1].paths[-1] == "Cat/é 39.jpg"
    assert records.shard_paths(tmp_path, "train") == [shard]
    assert records.shard_paths(tmp_path, "val") == []


def test_the_same_example_is_the_same_bytes() -> None:
    _, content = png(0)
    assert records.serialize(content, 1, "a", "b") == records.serialize(content, 1, "a", "b")
    assert records.serialize(content, 1, "a", "b") != records.serialize(content, 0, "a", "b")
