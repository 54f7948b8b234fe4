"""The photos on which exports are held against the classifier, and those that int8 is calibrated on."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks import records
from tasks.export.nasty_images import nasty_images
from tasks.export.replay import Photos
from tasks.image_table import read_images
from tasks.images import decode_upright, resize_square
from tasks.params import ImageParams
from tasks.quiet_tf import tf
from tasks.raw import list_chunks, read_chunk
from tasks.stage import PawlineError

PHOTOS_MADE_NASTY = 3


class Batch(NamedTuple):
    """Photos with their labels: int64 [photos], class indices."""

    photos: Photos
    labels: npt.NDArray[np.int64]


def read_validation(raw_dir: Path, images_path: Path, tfrecords_dir: Path, image: ImageParams) -> Iterator[Batch]:
    """Yield the validation split in batches, from the bytes of the photos' files.

    Raises:
        PawlineError: The squares made of them are not the pixels of the TFRecords.
    """
    wanted = {row.path for row in read_images(images_path) if row.status == "kept" and row.split == "val"}
    # `preprocess` wrote its records in the order of the raw table.
    contents = (
        record.content for chunk in list_chunks(raw_dir) for record in read_chunk(chunk) if record.path in wanted
    )
    for batch in (batch for shard in records.shard_paths(tfrecords_dir, "val") for batch in records.read_shard(shard)):
        photos = prepare(list(islice(contents, len(batch.labels))), image)
        if not np.array_equal(photos.squares, batch.images):
            raise PawlineError(
                f"the files in {raw_dir} do not become the pixels in {tfrecords_dir} ({batch.paths[0]} or one of the "
                f"{len(batch.paths) - 1} after it): `dvc repro --force preprocess`"
            )
        yield Batch(photos, batch.labels)


def make_nasty(photos: Photos, image: ImageParams) -> Photos:
    """Make nasty images of the first few photos."""
    upright = [decode_upright(content) for content in photos.contents[:PHOTOS_MADE_NASTY]]
    return prepare(list(nasty_images(upright).values()), image)


def prepare(contents: Sequence[bytes], image: ImageParams) -> Photos:
    """Make squares of photos, as `preprocess` does."""
    squares = [resize_square(decode_upright(content), image.size_px, image.resize) for content in contents]
    return Photos(contents, np.stack(squares))


def read_calibration(tfrecords_dir: Path, images: int) -> npt.NDArray[np.uint8]:
    """Return so many training photos, or all if there are fewer: uint8 [images, size, size, 3].

    They are spread evenly: the training split is sorted by class, and without one class the range of the output would
    be wrong.
    """
    wanted = set(spread_evenly(records.split_sizes(tfrecords_dir)["train"], images))
    paths = [str(path) for path in records.shard_paths(tfrecords_dir, "train")]
    squares = []
    for position, serialized in enumerate(tf.data.TFRecordDataset(paths)):
        if position not in wanted:
            continue
        example = tf.io.parse_single_example(serialized, {"image": tf.io.FixedLenFeature((), tf.string)})
        squares.append(tf.io.decode_png(example["image"], channels=3).numpy())
    return np.stack(squares)


def spread_evenly(total: int, wanted: int) -> list[int]:
    """Return so many positions of 0 to `total` - 1, from the first to the last, or all if there are fewer."""
    positions: list[int] = np.linspace(0, total - 1, min(total, wanted)).round().astype(int).tolist()
    return positions
