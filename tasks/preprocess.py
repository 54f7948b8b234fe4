"""Stage `preprocess`: kept photos become upright, RGB, square images in TFRecords that TFDS can load.

reads   data/raw/, data/images.parquet, params.yaml: image
writes  data/tfrecords/ (tfds.builder_from_directory opens it; images are lossless PNG),
        data/tfrecords.json (what each shard was made from: the next run takes over what would be the same)

python -m tasks.preprocess    (about 400 photos a second on two cores, and a second to start)
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import cv2

from tasks import records, reuse, seals, stage, tables
from tasks.cluster import map_chunks
from tasks.image_table import SCHEMA, SPLITS
from tasks.images import decode_upright, resize_square
from tasks.limits import quiet_decoders
from tasks.params import ImageParams, load_section
from tasks.progress import Progress
from tasks.raw import Chunk, Wanted, list_chunks, read_candidates, read_contents, split_wanted
from tasks.rescue import Death, Rescue
from tasks.reuse import Finished, Output
from tasks.seals import Digests

log = logging.getLogger(__name__)

# One filter and run lengths: six times the speed of zlib's default for a twentieth more bytes (photos of 224 px).
PNG_OPTIONS = [
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
]


class Photo(NamedTuple):
    """A kept photo, and where its bytes are: a row of one of the raw table's row groups."""

    id: str
    path: str
    label: str
    split: str
    chunk: Chunk
    row: int


class Shard(NamedTuple):
    """A shard of TFRecords that is to be."""

    split: str
    path: Path
    photos: list[Photo]

    @property
    def made_from(self) -> str:
        """A digest of its photos in their order."""
        photos = [[photo.id, photo.path, photo.label] for photo in self.photos]
        return hashlib.sha256(json.dumps(photos).encode()).hexdigest()


def preprocess(*, raw_dir: Path, images_path: Path, tfrecords_dir: Path, record_out: Path, params: ImageParams) -> None:
    """Write the kept photos of each split, in the raw table's order, to sharded TFRecords with TFDS's metadata.

    Shards and photos that the run before has written the same are taken over from it (tasks/reuse.py).
    """
    photos = list_photos(raw_dir, images_path)
    labels = sorted({photo.label for photo in photos})
    output = Output(tfrecords_dir, record_out)
    key = reuse.make_key("preprocess", [params.model_dump(), labels])
    finished = reuse.finished_shards(output, key, Path.cwd())
    with stage.whole_dir(tfrecords_dir) as unfinished, Progress("preprocess", total=len(photos)) as progress:
        shards = plan_shards(photos, unfinished)
        finished.check(finished.made)
        made = {shard.made_from: _take_over(shard, finished, progress) for shard in shards}
        missing = [shard for shard in shards if not made[shard.made_from]]
        known = read_known(finished, set(finished.made) - set(made), labels) if missing else {}
        write_shards(missing, known, labels, params, progress)
        digests = seals.digests_of(shard.path for shard in missing)
        made |= {shard.made_from: {shard.path.name: digests[shard.path.name]} for shard in missing}
        _write_metadata(unfinished, labels, shards, params.size_px)
        seals.seal(unfinished, {name: digest for files in made.values() for name, digest in files.items()})
    reuse.write_record(output, key, made)
    counts = Counter(photo.split for photo in photos)
    sizes = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS)
    log.info("preprocess: %s images of %d px (%s) in %s", f"{len(photos):,}", params.size_px, sizes, tfrecords_dir)


def list_photos(raw_dir: Path, images_path: Path) -> list[Photo]:
    """Return the kept photos in the raw table's order."""
    columns = ["path", "id", "label", "split", "status"]
    table = tables.read_table(images_path, columns, SCHEMA)
    paths, ids, labels, splits, statuses = (table[name].to_pylist() for name in columns)
    kept = {path: place for place, path in enumerate(paths) if statuses[place] == "kept"}
    return [
        Photo(ids[place], file.path, labels[place], splits[place], chunk, row)
        for chunk in list_chunks(raw_dir.absolute())
        for row, file in enumerate(read_candidates(chunk))
        if (place := kept.get(file.path)) is not None
    ]


def plan_shards(photos: list[Photo], tfrecords_dir: Path) -> list[Shard]:
    """Cut each split's photos into shards."""
    shards = []
    for split in SPLITS:
        of_split = [photo for photo in photos if photo.split == split]
        cuts = records.cut([photo.id for photo in of_split])
        for number, cut in enumerate(cuts):
            path = records.shard_path(tfrecords_dir, split, number, len(cuts))
            shards.append(Shard(split, path, of_split[cut.start : cut.stop]))
    return shards


def _take_over(shard: Shard, finished: Finished, progress: Progress) -> Digests:
    """Link a shard from the run before; return its digest by its name, or nothing."""
    files = finished.files(shard.made_from)
    if files:
        progress.advance(len(shard.photos))
    return finished.link(files, lambda _: shard.path)


Known = dict[tuple[str, str, str], records.Example]  # by id, path and label


def read_known(finished: Finished, older: Iterable[str], labels: list[str]) -> Known:
    """Return where older shards have examples that shards of this run may have, too."""
    paths = (finished.paths[name] for made_from in older for name in finished.files(made_from))
    examples = (example for path in paths for example in records.scan_shard(path))
    return {(example.id, example.path, labels[example.label]): example for example in examples}


def write_shards(shards: list[Shard], known: Known, labels: list[str], params: ImageParams, progress: Progress) -> None:
    """Write shards, a photo after the other in the raw table's order, so that each of its row groups is read once."""
    shard_of = {photo.path: shard for shard in shards for photo in shard.photos}
    photos = sorted((photo for shard in shards for photo in shard.photos), key=lambda photo: (photo.chunk, photo.row))
    new = [photo for photo in photos if (photo.id, photo.path, photo.label) not in known]
    wanted = [Wanted(chunk, tuple(photo.row for photo in some)) for chunk, some in groupby(new, lambda one: one.chunk)]
    encode = partial(encode_contents, params=params)
    one_by_one = Rescue(
        split_wanted, encode, encode, name_killer, join=lambda some: [png for pngs in some for png in pngs]
    )
    encoded = map_chunks(encode, wanted, one_by_one)
    pngs = (png for some in encoded for png in some)
    left = {shard.path: len(shard.photos) for shard in shards}
    with ExitStack() as stack:
        writers: dict[Path, records.Writer] = {}
        for photo in photos:
            path = shard_of[photo.path].path
            if path not in writers:
                writers[path] = stack.enter_context(closing(records.Writer(path)))
            old = known.get((photo.id, photo.path, photo.label))
            label = labels.index(photo.label)
            writers[path].write(old.read() if old else records.serialize(next(pngs), label, photo.id, photo.path))
            left[path] -= 1
            if not left[path]:
                writers.pop(path).close()
            progress.advance(1)


def encode_contents(wanted: Wanted, *, params: ImageParams) -> list[bytes]:
    """Decode, resize and encode photos of a row group as PNG; runs in a worker."""
    with quiet_decoders():
        return [encode_png(content, params) for content in read_contents(wanted)]


def name_killer(wanted: Wanted, death: Death) -> list[bytes]:
    """Say which photo ended its process: it survived `validate`, which does not decode all that is here."""
    photo = read_candidates(wanted.chunk)[wanted.rows[0]]
    cure = f"add {photo.id} to validate.reject in params.yaml"
    raise stage.PawlineError(f"{photo.path!r} ends the process that decodes it ({death.how}): {cure}")


def encode_png(content: bytes, params: ImageParams) -> bytes:
    """Turn a photo's bytes into the bytes of a lossless PNG [size_px, size_px, 3]."""
    square = resize_square(decode_upright(content), params.size_px, params.resize)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(square, cv2.COLOR_RGB2BGR), PNG_OPTIONS)
    return encoded.tobytes()


def _write_metadata(tfrecords_dir: Path, labels: list[str], shards: list[Shard], size_px: int) -> None:
    """Write what TFDS needs to load the folder: features.json, dataset_info.json, the label names."""
    # Not in a thread, ahead of time: while it is imported, it puts another import in the place of Python's own, and
    # other threads get modules from it that are none.
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(size_px, size_px, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=labels),
            "id": tfds.features.Text(),
            "path": tfds.features.Text(),
        }
    )
    template = tfds.core.ShardedFileTemplate(
        data_dir=tfrecords_dir, dataset_name=records.NAME, filetype_suffix="tfrecord"
    )
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(shard.photos) for shard in some],
            num_bytes=sum(records.bytes_of_examples(shard.path, len(shard.photos)) for shard in some),
            filename_template=template.replace(split=split),
        )
        for split in SPLITS
        if (some := [shard for shard in shards if shard.split == split])
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=tfrecords_dir,
        features=features,
        split_infos=splits,
        version=records.VERSION,
        filename_template=template,
        check_data=False,
        description="Photos that passed Pawline's validation, upright and square.",
    )


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--raw-dir", "data/raw", "reads: photos")
    stage.add_path(parser, "--images-path", "data/images.parquet", "reads: which photos are kept, and their splits")
    stage.add_path(parser, "--tfrecords-dir", "data/tfrecords", "writes: TFRecords")
    stage.add_path(parser, "--record-out", "data/tfrecords.json", "writes: what the shards were made from")
    args = parser.parse_args(argv)
    preprocess(
        raw_dir=args.raw_dir,
        images_path=args.images_path,
        tfrecords_dir=args.tfrecords_dir,
        record_out=args.record_out,
        params=load_section(args.params, "image", ImageParams),
    )


if __name__ == "__main__":
    stage.run(main)
