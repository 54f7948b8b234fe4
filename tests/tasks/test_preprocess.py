"""TFRecords of the kept photos: lossless, in order, loadable by TFDS, the same bytes each time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from tasks import preprocess as preprocess_module
from tasks import records
from tasks.cluster import map_chunks
from tasks.image_table import ImageRow, read_images
from tasks.images import decode_upright, resize_square
from tasks.params import ImageParams
from tasks.preprocess import name_killer, preprocess
from tasks.raw import Wanted, list_chunks, read_candidates, read_shard, shard_paths
from tasks.rescue import Death, Kind
from tasks.stage import PawlineError
from tests.tasks.conftest import IMAGE, Run, changed, make_tfrecords


def kept_of(small_run: Run, split: str) -> list[ImageRow]:
    return [row for row in read_kept(small_run) if row.split == split]


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
        record_out=tmp_path / "tfrecords.json",
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


def test_the_same_bytes_each_time(small_run: Run, tmp_path: Path) -> None:
    make_tfrecords(small_run, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(small_run.tfrecords_dir)
    assert (tmp_path / "again.json").read_bytes() == small_run.tfrecords_dir.with_suffix(".json").read_bytes()


def test_a_photo_that_ends_its_process_is_named_with_the_cure(small_run: Run) -> None:
    chunk = list_chunks(small_run.raw_dir)[0]
    photo = read_candidates(chunk)[3]
    cure = f"add {photo.id} to validate.reject in params.yaml"
    with pytest.raises(PawlineError, match=rf"^'{photo.path}' ends the process .* \(SIGSEGV\): {cure}$"):
        name_killer(Wanted(chunk, (3,)), Death(Kind.CRASH, "SIGSEGV"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def many_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "IMAGES_PER_SHARD", 4)


def without(small_run: Run, tmp_path: Path, *left_out: ImageRow) -> Path:
    """The image table as if some photos had not been there."""
    table = pq.read_table(small_run.images_path)
    gone = pa.array([row.path for row in left_out])
    pq.write_table(table.filter(pc.invert(pc.is_in(table["path"], gone))), tmp_path / "images.parquet")
    return tmp_path / "images.parquet"


def write(small_run: Run, images_path: Path, out: Path, params: ImageParams = IMAGE) -> None:
    record = out.with_suffix(".json")
    preprocess(raw_dir=small_run.raw_dir, images_path=images_path, tfrecords_dir=out, record_out=record, params=params)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of photos that each run encodes."""
    numbers = []

    def count(
        function: Callable[[Wanted], list[bytes]], wanted: list[Wanted], rescue: Callable[[Wanted], list[bytes]]
    ) -> Iterator[list[bytes]]:
        numbers.append(sum(len(some.rows) for some in wanted))
        return map_chunks(function, wanted, rescue)

    monkeypatch.setattr(preprocess_module, "map_chunks", count)
    return numbers


@pytest.mark.usefixtures("many_shards")
def test_new_photos_cost_what_they_add(small_run: Run, tmp_path: Path, encoded: list[int]) -> None:
    train = kept_of(small_run, "train")
    new = [train[5], train[-3]]
    write(small_run, without(small_run, tmp_path, *new), tmp_path / "grown")
    before = {path.stat().st_ino for path in (tmp_path / "grown").iterdir()}
    write(small_run, small_run.images_path, tmp_path / "grown")
    write(small_run, small_run.images_path, tmp_path / "anew")
    assert encoded == [len(read_kept(small_run)) - 2, 2, len(read_kept(small_run))]
    assert contents(tmp_path / "grown") == contents(tmp_path / "anew")
    assert (tmp_path / "grown.json").read_bytes() == (tmp_path / "anew.json").read_bytes()
    shards = [path for path in (tmp_path / "grown").iterdir() if "tfrecord-" in path.name]
    assert len(shards) - 4 <= sum(path.stat().st_ino in before for path in shards) < len(shards)


@pytest.mark.usefixtures("many_shards")
def test_photos_that_left_are_gone(small_run: Run, tmp_path: Path, encoded: list[int]) -> None:
    gone = kept_of(small_run, "train")[7]
    write(small_run, small_run.images_path, tmp_path / "shrunk")
    write(small_run, without(small_run, tmp_path, gone), tmp_path / "shrunk")
    write(small_run, tmp_path / "images.parquet", tmp_path / "anew")
    assert encoded[1] == 0
    assert contents(tmp_path / "shrunk") == contents(tmp_path / "anew")
    everything = b"".join(contents(tmp_path / "shrunk").values()) + (tmp_path / "shrunk.json").read_bytes()
    assert gone.id.encode() not in everything


@pytest.mark.usefixtures("many_shards")
def test_a_damaged_shard_is_made_anew(small_run: Run, tmp_path: Path, encoded: list[int]) -> None:
    write(small_run, small_run.images_path, tmp_path / "twice")
    before = contents(tmp_path / "twice")
    damaged = records.shard_paths(tmp_path / "twice", "train")[1]
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"x" * 9)
    write(small_run, small_run.images_path, tmp_path / "twice")
    assert 0 < encoded[1] < 9
    assert contents(tmp_path / "twice") == before


def test_another_size_takes_nothing_over(small_run: Run, tmp_path: Path, encoded: list[int]) -> None:
    write(small_run, small_run.images_path, tmp_path / "resized")
    write(small_run, small_run.images_path, tmp_path / "resized", changed(IMAGE, size_px=128))
    assert encoded[0] == encoded[1] > 0
    [shard, *_] = records.shard_paths(tmp_path / "resized", "val")
    assert next(records.read_shard(shard)).images.shape[1:3] == (128, 128)


def read_kept(small_run: Run) -> list[ImageRow]:
    return [row for row in read_images(small_run.images_path) if row.status == "kept"]
