"""Stage `probe`: where the classifier looked when it was wrong or unsure, and how it bears spoilt photos.

reads   data/tfrecords/, models/classifier.keras, data/predictions.parquet
writes  data/explanations.parquet (Grad-CAM overlays), reports/metrics/robustness.json

python -m tasks.probe    (about 6 ms an image and corruption on two cores, beside TensorFlow's start)

At most `MOST_PROBED` images of the evaluated split are spoilt, so that a large data set takes no longer.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks import corruptions, metrics, seals, stage, tables
from tasks.parallel import available_processors
from tasks.progress import Progress

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.engines import Runner
    from tasks.quiet_tf import Model

log = logging.getLogger(__name__)

MOST_EXPLAINED = 12  # of each kind
MOST_PROBED = 500  # the 95 % interval of an accuracy is then 0.04 wide or less, above 0.95
JPEG_QUALITY = 85
EXPLANATIONS = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("probability", pa.float32()),
        ("kind", pa.string()),
        ("overlay", pa.binary()),
    ]
)
Row = dict[str, Any]  # of predictions.parquet
Figures = dict[str, Any]  # an accuracy and its interval


class Batch(NamedTuple):
    """Some images of a split: uint8 [batch, size, size, 3], and their ids."""

    images: npt.NDArray[np.uint8]
    ids: list[str]


def probe(
    *,
    tfrecords_dir: Path,
    classifier_path: Path,
    predictions_path: Path,
    explanations_out: Path,
    robustness_out: Path,
) -> None:
    """Explain the surest wrong and the least sure right answers, and score the split under corruptions."""
    from tasks import engines, keras_files, records

    columns = ["id", "path", "split", "label", "predicted", "probability"]
    seals.check(tfrecords_dir)
    rows = tables.read_table(predictions_path, columns).to_pylist()
    explained, probed = choose_explained(rows), choose_probed(rows)
    classifier, labels = keras_files.load_model(classifier_path), records.read_labels(tfrecords_dir)
    overlays = explain(classifier, labels, explained, tfrecords_dir)
    runner = engines.classifier_runner(classifier)
    robustness = measure(runner, labels, probed, tfrecords_dir) | {"split_images": len(rows)}
    with stage.whole_file(explanations_out) as unfinished:
        table = [row | {"overlay": overlays[row["id"]]} for row in explained]
        tables.write_table(pa.Table.from_pylist(table, EXPLANATIONS), unfinished)
    with stage.whole_file(robustness_out) as unfinished:  # in its order, from mild to strong
        unfinished.write_text(json.dumps(robustness, indent=2) + "\n", encoding="utf-8")
    _log_outcome(len(explained), robustness, explanations_out, robustness_out)


def choose_explained(rows: list[Row]) -> list[Row]:
    """Return the surest wrong answers, then the right ones of lowest probability, each with its `kind`."""
    wrong = [row | {"kind": "wrong"} for row in rows if row["predicted"] != row["label"]]
    right = [row | {"kind": "unsure"} for row in rows if row["predicted"] == row["label"]]
    wrong.sort(key=lambda row: (-row["probability"], row["path"]))
    right.sort(key=lambda row: (row["probability"], row["path"]))
    return wrong[:MOST_EXPLAINED] + right[:MOST_EXPLAINED]


def choose_probed(rows: list[Row]) -> list[Row]:
    """Return the images to spoil: those of the lowest ids, which are hashes, so that new images displace few."""
    return sorted(rows, key=lambda row: row["id"])[:MOST_PROBED]


def explain(classifier: "Model", labels: list[str], rows: list[Row], tfrecords_dir: Path) -> dict[str, bytes]:
    """Return a JPEG by id: each image with the heat of the class that was predicted."""
    from tasks import gradcam

    predicted = {row["id"]: labels.index(row["predicted"]) for row in rows}
    overlays: dict[str, bytes] = {}
    for batch in _read_batches(tfrecords_dir, rows):
        classes = np.array([predicted[image_id] for image_id in batch.ids])
        jpegs = gradcam.explain(classifier, batch.images, classes, quality=JPEG_QUALITY)
        overlays |= zip(batch.ids, jpegs, strict=True)
    return overlays


def measure(runner: "Runner", labels: list[str], rows: list[Row], tfrecords_dir: Path) -> dict[str, Any]:
    """Return the accuracy on some images of a split, as they are and by corruption and amount."""
    truth = {row["id"]: labels.index(row["label"]) for row in rows}
    variants = [(kind, name) for kind, amounts in corruptions.AMOUNTS.items() for name in amounts]
    was_right = {row["id"]: row["predicted"] == row["label"] for row in rows}
    right: dict[tuple[str, str], list[tuple[bool, bool]]] = {variant: [] for variant in variants}  # spoilt, and before
    with Progress("probe", total=len(rows) * len(variants)) as progress:
        for batch in _read_batches(tfrecords_dir, rows):
            expected = [truth[image_id] for image_id in batch.ids]
            for variant, outputs in zip(variants, runner(_spoil(batch)), strict=True):
                answered = metrics.probs_of_classes(outputs["answers"]).argmax(axis=1)
                spoilt = (answered == expected).tolist()
                right[variant] += zip(spoilt, map(was_right.__getitem__, batch.ids), strict=True)
                progress.advance(len(expected))
    return {
        "split": rows[0]["split"],
        "images": len(rows),
        "clean": _figures(sum(was_right.values()), len(rows)),
        "corruptions": {
            kind: {name: _spoilt_figures(Counter(right[kind, name]), len(rows)) for name in amounts}
            for kind, amounts in corruptions.AMOUNTS.items()
        },
    }


def _spoil(batch: Batch) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the batch in every corruption and amount."""
    with ThreadPoolExecutor(available_processors()) as pool:  # Pillow and NumPy let other threads run
        for kind, amounts in corruptions.AMOUNTS.items():
            for amount in amounts.values():
                spoil = partial(corruptions.corrupt, kind=kind, amount=amount)
                yield np.stack(list(pool.map(spoil, batch.images, batch.ids)))


def _read_batches(tfrecords_dir: Path, rows: list[Row]) -> Iterator[Batch]:
    """Yield the images of some rows of the predictions, in batches of the same size but for the last.

    Raises:
        PawlineError: If some are not there.
    """
    from tasks import records

    wanted, found = {row["id"] for row in rows}, 0
    pictures = (
        (image, image_id)
        for split in {row["split"] for row in rows}  # one, if any
        for shard in records.shard_paths(tfrecords_dir, split)
        for batch in records.read_shard(shard)
        for image, image_id in zip(batch.images, batch.ids, strict=True)
        if image_id in wanted
    )
    while some := list(islice(pictures, records.BATCH_SIZE)):
        found += len(some)
        yield Batch(np.stack([image for image, _ in some]), [image_id for _, image_id in some])
    if found < len(wanted):
        raise stage.PawlineError(f"{len(wanted) - found} predicted images are not in {tfrecords_dir}: run `dvc repro`")


def _figures(correct: int, images: int) -> Figures:
    return {"accuracy": correct / images, "accuracy_interval": metrics.wilson_interval(correct, images)}


def _spoilt_figures(right: Counter[tuple[bool, bool]], images: int) -> dict[str, Any]:
    """Return the accuracy on spoilt images and its difference from that on the same images as they are."""
    both, gained, lost = right[True, True], right[True, False], right[False, True]
    return {
        **_figures(both + gained, images),
        "accuracy_difference": (gained - lost) / images,
        "accuracy_difference_interval": metrics.paired_difference_interval(both, gained, lost, images),
    }


def _log_outcome(explained: int, robustness: dict[str, Any], explanations_out: Path, robustness_out: Path) -> None:
    worst, name = min(
        (figures["accuracy"], f"{kind}, {amount}")
        for kind, amounts in robustness["corruptions"].items()
        for amount, figures in amounts.items()
    )
    log.info(
        "probe: %d answers explained, in %s; accuracy on %d images of %s %.4f as they are, %.4f at worst (%s), in %s",
        *(explained, explanations_out, robustness["images"], robustness["split"]),
        *(robustness["clean"]["accuracy"], worst, name, robustness_out),
    )


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--tfrecords-dir", "data/tfrecords", "reads: images")
    stage.add_path(parser, "--classifier-path", "models/classifier.keras", "reads: the classifier")
    stage.add_path(parser, "--predictions-path", "data/predictions.parquet", "reads: its answers")
    stage.add_path(parser, "--explanations-out", "data/explanations.parquet", "writes: overlays")
    stage.add_path(parser, "--robustness-out", "reports/metrics/robustness.json", "writes: accuracy under corruptions")
    probe(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    stage.run(main)
