"""The TFRecords: what goes in comes out."""

import hashlib
import io
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
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
    writer = records.Writer(shard)
    for number, (_, content) in enumerate(pictures):
        writer.write(records.serialize(content, number % 3, f"id{number}", f"Cat/é {number}.jpg"))
    writer.close()
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


@pytest.mark.parametrize("label", [0, 1, 127, 128, 70_000])
@pytest.mark.parametrize("size", [0, 1, 120, 20_000])
def test_bytes_are_tensorflows_own(tmp_path: Path, label: int, size: int) -> None:
    picture = np.random.default_rng(size).bytes(size)
    texts = {"image": picture, "id": b"12ab", "path": "Cat/é.jpg".encode()}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text])) for name, text in texts.items()}
    features["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    theirs = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)
    assert records.serialize(picture, label, "12ab", "Cat/é.jpg") == theirs
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as their_writer:
        their_writer.write(theirs)
    writer = records.Writer(tmp_path / "ours")
    writer.write(theirs)
    writer.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_writing_needs_no_tensorflow() -> None:
    code = "import sys; from tasks import preprocess, records; records.serialize(b'', 1, 'a', 'b'); "
    code += "preprocess.encode_png; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_example_is_found_and_read_without_its_image(tmp_path: Path) -> None:
    wanted = [(b"\x00" * 300, 0, "a" * 64, "Cat/1 é.jpg"), (b"png", 300, "b" * 64, "d" * 200)]
    shard = tmp_path / "shard"
    with closing(records.Writer(shard)) as writer:
        for png, label, image_id, path in wanted:
            writer.write(records.serialize(png, label, image_id, path))
    found = list(records.scan_shard(shard))
    assert [(one.id, one.path, one.label) for one in found] == [(i, path, label) for _, label, i, path in wanted]
    assert [one.read() for one in found] == [records.serialize(*one) for one in wanted]
    assert records.bytes_of_examples(shard, 2) == sum(one.length for one in found)


def test_where_photos_come_or_go_only_the_shards_around_them_change() -> None:
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]
    new = [hashlib.sha256(f"new {number}".encode()).hexdigest() for number in range(50)]

    def shards(photos: list[str]) -> list[tuple[str, ...]]:
        return [tuple(photos[cut.start : cut.stop]) for cut in records.cut(photos)]

    before, after = shards(ids), shards([*ids[:7000], *new, *ids[7000:]])
    assert [image_id for shard in before for image_id in shard] == ids
    assert max(map(len, before)) <= 2 * records.IMAGES_PER_SHARD
    assert 100 < len(ids) / len(before) < 140
    assert len(set(after) - set(before)) <= 4
    assert records.cut([]) == []
