"""Stage `label_errors`: photos whose label is likely wrong, for a person to look at.

reads   data/features/ (pooled vectors of every split), data/images.parquet (paths and near-duplicate groups)
writes  data/label_errors.parquet (the likeliest error first), reports/metrics/label_errors.json

python -m tasks.label_errors    (two seconds for 1,000 photos, a minute for 25,000; meanwhile 10 kB of the disk a photo)

Each photo of every split is answered by a regression that was fitted without it and without its near-duplicates. It is
a suspect if the answer is confidently another class (`tasks/confident_learning.py`); the less probable its label, the
likelier an error. The vector of a training photo is the mean of its views'.
"""

import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks import confident_learning, seals, stage, tables
from tasks.confident_learning import Bools, Floats, Ints
from tasks.feature_store import read_ids, read_manifest, shard_files
from tasks.image_table import SPLITS, ImageRow, read_images
from tasks.stage import PawlineError

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "path", "split", "label", "suggested")]
    + [(name, pa.float64()) for name in ("label_probability", "suggested_probability")]
)


class Photos(NamedTuple):
    """The photos of all splits: ids, splits, labels [photos], pooled vectors [photos, channels]."""

    ids: list[str]
    splits: list[str]
    labels: Ints
    vectors: Floats


class Suspect(NamedTuple):
    """A row of data/label_errors.parquet; the probabilities are out of fold."""

    id: str
    path: str
    split: str
    label: str
    suggested: str
    label_probability: float
    suggested_probability: float


def label_errors(*, features_dir: Path, images_path: Path, errors_out: Path, metrics_out: Path) -> None:
    """Find the suspects, write them in order, and count them."""
    seals.check(features_dir, lambda name: "-boundary" not in name)
    names: list[str] = read_manifest(features_dir)["labels"]
    photos = read_photos(features_dir)
    rows = _rows_of(photos.ids, images_path)
    folds = confident_learning.assign_folds([row.group for row in rows], photos.labels)
    probs = confident_learning.out_of_fold(photos.vectors, photos.labels, folds, len(names))
    suspects = _list_suspects(
        photos, rows, probs, confident_learning.known_classes(photos.labels, folds, len(names)), names
    )
    counts = Counter(suspect.label for suspect in suspects)
    fold_count = len(np.unique(folds))
    figures = {
        "images": len(rows),
        "suspects": len(suspects),
        "folds": fold_count,
        # A single fold leaves nothing to learn from.
        "out_of_fold_accuracy": float((probs.argmax(axis=1) == photos.labels).mean()) if fold_count > 1 else None,
        "by_label": {name: counts[name] for name in names},
    }
    with stage.whole_file(errors_out) as unfinished:
        table = pa.Table.from_pylist([suspect._asdict() for suspect in suspects], schema=SCHEMA)
        tables.write_table(table, unfinished)
    with stage.whole_file(metrics_out) as unfinished:
        stage.write_json(figures, unfinished)
    _log_outcome(figures, errors_out)


def read_photos(features_dir: Path) -> Photos:
    """Read the photos of all splits, shard by shard.

    Raises:
        PawlineError: The features have no ids, because an earlier version of the stage `features` wrote them.
    """
    ids = {split: read_ids(features_dir, split) for split in SPLITS}
    shards = [np.load(path, mmap_mode="r") for split in SPLITS for path in shard_files(features_dir, split, "pooled")]
    labels = [np.load(path) for split in SPLITS for path in shard_files(features_dir, split, "labels")]
    count = sum(len(shard) for shard in shards)
    if sum(map(len, ids.values())) != count:
        raise PawlineError(f"{features_dir} does not say which photo is which: run `dvc repro features`")
    # In a file without a name, 10 kB a photo: memory need not hold what the system can write out and read again.
    with tempfile.TemporaryFile(dir=features_dir.parent) as file:
        vectors = np.asarray(np.memmap(file, np.float64, "w+", shape=(count, shards[0].shape[2])))
    start = 0
    for shard in shards:
        vectors[start : start + len(shard)] = shard.mean(axis=1)
        start += len(shard)
    splits = [split for split in SPLITS for _ in ids[split]]
    return Photos([image_id for split in SPLITS for image_id in ids[split]], splits, np.concatenate(labels), vectors)


def _rows_of(ids: list[str], images_path: Path) -> list[ImageRow]:
    kept = {row.id: row for row in read_images(images_path) if not row.reason}
    missing = sum(image_id not in kept for image_id in ids)
    if missing:
        raise PawlineError(
            f"{missing:,} photos of the features are not kept in {images_path}: run `dvc repro features`"
        )
    return [kept[image_id] for image_id in ids]


def _list_suspects(
    photos: Photos, rows: list[ImageRow], probs: Floats, known: Bools, names: list[str]
) -> list[Suspect]:
    """Return the suspects, the least probable label first."""
    found = zip(*confident_learning.find_suspects(photos.labels, probs, known), strict=True)
    suspects = [
        Suspect(
            id=photos.ids[index],
            path=rows[index].path,
            split=photos.splits[index],
            label=names[photos.labels[index]],
            suggested=names[likely],
            label_probability=float(probs[index, photos.labels[index]]),
            suggested_probability=float(probs[index, likely]),
        )
        for index, likely in found
    ]
    return sorted(suspects, key=lambda suspect: (suspect.label_probability, suspect.path))


def _log_outcome(figures: dict[str, Any], errors_out: Path) -> None:
    if figures["out_of_fold_accuracy"] is None:
        log.info("label_errors: too few photos to check one label by the others")
        return
    log.info(
        "label_errors: %s of %s labels look wrong; %.1f %% are recognised by what %d folds taught; in %s",
        *(f"{figures['suspects']:,}", f"{figures['images']:,}", 100 * figures["out_of_fold_accuracy"]),
        *(figures["folds"], errors_out),
    )


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--features-dir", "data/features", "reads: pooled vectors")
    stage.add_path(parser, "--images-path", "data/images.parquet", "reads: paths and near-duplicate groups")
    stage.add_path(parser, "--errors-out", "data/label_errors.parquet", "writes: a row a suspect")
    stage.add_path(parser, "--metrics-out", "reports/metrics/label_errors.json", "writes: counts")
    label_errors(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    stage.run(main)
