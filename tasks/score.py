"""Several saved classifiers on the same photos: what each answers, and how long it takes. No stage; the gate runs it.

reads   data/raw/, a table of the photos (id, path, label), a folder a model (classifier.keras, params.yaml and
        summary.json, which has its labels)
writes  a row a photo: id, path, label, and of each model its answer (NAME) and that answer's probability
        (NAME_probability); milliseconds for one photo, by model

python -m tasks.score --photos PHOTOS --models FOLDER --answers-out ANSWERS --latencies-out LATENCIES

Each model gets the photos as its own params.yaml prepares them, and answers with its own labels.
"""

import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks import stage, tables
from tasks.images import decode_upright, resize_square
from tasks.metrics import probs_of_classes
from tasks.params import ImageParams, load_section
from tasks.progress import Progress
from tasks.raw import RawRecord, list_chunks, read_chunk
from tasks.stage import PawlineError

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.quiet_tf import Model

log = logging.getLogger(__name__)

BATCH = 32
TIMED_PHOTOS = 8
WARM_UP_CALLS, TIMED_CALLS = 5, 40

Squares = dict[ImageParams, npt.NDArray[np.uint8]]  # by how they were prepared: [images, size, size, 3]


class Classifier(NamedTuple):
    """A saved classifier, its labels in the order of its answers, and how its photos are prepared."""

    name: str
    network: "Model"
    labels: list[str]
    image: ImageParams


def score(*, raw_dir: Path, photos_path: Path, models_dir: Path, answers_out: Path, latencies_out: Path) -> None:
    """Let every model answer every photo, then time single photos, the models in turn."""
    labels = {row["path"]: row for row in tables.read_table(photos_path).to_pylist()}
    classifiers = [load_classifier(folder) for folder in sorted(models_dir.iterdir())]
    rows: list[dict[str, Any]] = []
    timed: list[Squares] = []
    with Progress("score", total=len(labels)) as progress:
        for records in _batches(raw_dir, labels):
            squares = prepare([record.content for record in records], [model.image for model in classifiers])
            answers = [_answer(model, squares[model.image]) for model in classifiers]
            for record, *given in zip(records, *answers, strict=True):
                rows.append(labels[record.path] | {key: value for answer in given for key, value in answer.items()})
            timed = timed or [{how: images[[at]] for how, images in squares.items()} for at in range(len(records))]
            progress.advance(len(records))
    if len(rows) != len(labels):
        raise PawlineError(f"{len(labels) - len(rows)} photos are not in {raw_dir}: `dvc checkout` or `dvc repro`")
    latencies = time_single_photos(classifiers, timed[:TIMED_PHOTOS])
    with stage.whole_file(answers_out) as unfinished:
        tables.write_table(pa.Table.from_pylist(rows), unfinished)
    with stage.whole_file(latencies_out) as unfinished:
        stage.write_json(latencies, unfinished)
    shown = ", ".join(f"{name} {latency:.1f} ms a photo" for name, latency in latencies.items())
    log.info("score: %s photos answered by %s", f"{len(rows):,}", shown)


def load_classifier(folder: Path) -> Classifier:
    """Load a model from a folder that has its file, its parameters and its labels.

    Raises:
        PawlineError: The parameters prepare photos of another size than the model takes.
    """
    image = load_section(folder / "params.yaml", "image", ImageParams)
    from tasks import keras_files

    network = keras_files.load_model(folder / "classifier.keras")
    size_px = network.input_shape[1]
    if size_px != image.size_px:
        raise PawlineError(
            f"{folder.name}: its classifier takes {size_px} px and its params.yaml has image.size_px {image.size_px}: "
            "they are not of one run; `dvc repro`"
        )
    summary = stage.read_json(folder / "summary.json")
    return Classifier(folder.name, network, summary["labels"], image)


def prepare(contents: Sequence[bytes], ways: Sequence[ImageParams]) -> Squares:
    """Decode photos once and make squares of them in each of several ways, as `preprocess` does."""
    upright = [decode_upright(content) for content in contents]
    return {
        how: np.stack([resize_square(photo, how.size_px, how.resize) for photo in upright])
        for how in dict.fromkeys(ways)
    }


def time_single_photos(classifiers: Sequence[Classifier], photos: Sequence[Squares]) -> dict[str, float]:
    """Return the median milliseconds of answering one photo, by model.

    The models take turns, so that what else the machine does meanwhile slows all of them.
    """
    seconds: dict[str, list[float]] = {model.name: [] for model in classifiers}
    for call in range(WARM_UP_CALLS + TIMED_CALLS):
        for model in classifiers:
            image = photos[call % len(photos)][model.image]
            began = time.perf_counter()
            model.network.predict_on_batch(image)
            seconds[model.name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(calls[WARM_UP_CALLS:]) for name, calls in seconds.items()}


def _batches(raw_dir: Path, wanted: dict[str, Any]) -> Iterator[list[RawRecord]]:
    """Yield the wanted photos, a few at a time: no more is held in memory than a row group of the raw table."""
    records = (record for chunk in list_chunks(raw_dir) for record in read_chunk(chunk) if record.path in wanted)
    while batch := list(islice(records, BATCH)):
        yield batch


def _answer(model: Classifier, images: npt.NDArray[np.uint8]) -> list[dict[str, Any]]:
    probs = probs_of_classes(np.asarray(model.network.predict_on_batch(images)))
    return [{model.name: model.labels[row.argmax()], f"{model.name}_probability": float(row.max())} for row in probs]


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--raw-dir", "data/raw", "reads: photos")
    for flag, text in (
        ("--photos", "reads: which photos, a table (Parquet) of id, path and label"),
        ("--models", "reads: a folder for each model, named after it"),
        ("--answers-out", "writes: answers (Parquet)"),
        ("--latencies-out", "writes: milliseconds a photo (JSON)"),
    ):
        parser.add_argument(flag, type=Path, required=True, help=text)
    args = parser.parse_args(argv)
    score(
        raw_dir=args.raw_dir,
        photos_path=args.photos,
        models_dir=args.models,
        answers_out=args.answers_out,
        latencies_out=args.latencies_out,
    )


if __name__ == "__main__":
    stage.run(main)
