"""Stage `evaluate`: the selected classifier on the test split, once, from the images to the figures.

reads   data/tfrecords/, data/features/, models/stage1/, models/stage2/, models/classifier.keras
writes  reports/metrics/evaluation.json, reports/plots/ (CSV: confusion, roc, precision_recall, reliability,
        thresholds), data/predictions.parquet

python -m tasks.evaluate    (about 12 ms an image on two cores, beside TensorFlow's start)

The images go through the saved classifier end to end. The figures of each stage by itself come from the stored
features, so that the two paths check each other: `end_to_end_max_difference` is the largest difference of a probability
between them. The temperature is fitted on the selected stage's answers on the validation split.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks import calibration, metrics, plot_data, seals, stage, tables
from tasks.feature_store import FeatureSplit
from tasks.progress import Progress

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.heads import Output
    from tasks.quiet_tf import Model

log = logging.getLogger(__name__)

# How far a probability may differ between the saved classifier and the stored features: both are float32, by two
# engines, and the boundary tensor is stored in float16.
END_TO_END_TOLERANCE = 0.01

GREY_OF_RGB = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts to greyscale


class Predictions(NamedTuple):
    """The classifier's answers: ids and paths, labels [images], probabilities [images, classes].

    And the brightness [images]: the mean grey level of the image that the classifier saw, 0 to 255.
    """

    ids: list[str]
    paths: list[str]
    labels: metrics.Labels
    probs: metrics.Probs
    brightness: npt.NDArray[np.float32]


class Scores(NamedTuple):
    """Answers from the stored features: labels [images], probabilities [images, classes]."""

    labels: metrics.Labels
    probs: metrics.Probs


def evaluate(
    *,
    tfrecords_dir: Path,
    features_dir: Path,
    models_dir: Path,
    metrics_out: Path,
    plots_dir: Path,
    predictions_out: Path,
) -> None:
    """Score the test split, or the validation split when there is no test split, and say which it was."""
    from tasks import records

    seals.check(tfrecords_dir)
    seals.check(features_dir, lambda name: not name.startswith("train-"))
    for name in ("stage1", "stage2"):
        seals.check(models_dir / name)
    labels = records.read_labels(tfrecords_dir)
    split = "test" if "test" in records.split_sizes(tfrecords_dir) else "val"
    predictions = predict(models_dir / "classifier.keras", tfrecords_dir, split)
    stage1, stage2 = (stage.read_json(models_dir / name / "summary.json") for name in ("stage1", "stage2"))
    output = stage1["output"]
    stages = {"stage1": _score_stage(models_dir / "stage1" / "head.keras", features_dir, "pooled", split, output)}
    if stage2["best"] is not None:
        stages["stage2"] = _score_stage(models_dir / "stage2" / "tail.keras", features_dir, "boundary", split, output)
    selected = stages[stage2["selected"]]
    temperature = calibration.fit_temperature(*selected["val"])
    evaluation = {
        "split": split,
        "selected": stage2["selected"],
        "end_to_end_max_difference": _check_end_to_end(selected[split].probs, predictions.probs),
        "end_to_end_tolerance": END_TO_END_TOLERANCE,
        **_figures(predictions),
        "calibration": calibration.calibration(predictions.labels, predictions.probs, temperature),
        **{name: _stage_figures(scores, split) for name, scores in stages.items()},
    }
    with stage.whole_dir(plots_dir) as unfinished:
        plot_data.write_plots(predictions.labels, predictions.probs, labels, temperature, unfinished)
        seals.seal(unfinished)
    with stage.whole_file(predictions_out) as unfinished:
        _write_predictions(predictions, split, labels, unfinished)
    with stage.whole_file(metrics_out) as unfinished:
        stage.write_json(evaluation, unfinished)
    _log_outcome(evaluation, metrics_out)


def predict(classifier_path: Path, tfrecords_dir: Path, split: str) -> Predictions:
    """Run the images of a split through the saved classifier."""
    from tasks import keras_files, records

    classifier = keras_files.load_model(classifier_path)
    batches, probs, grey = [], [], []
    with Progress("evaluate", total=records.split_sizes(tfrecords_dir)[split]) as progress:
        for shard in records.shard_paths(tfrecords_dir, split):
            for batch in records.read_shard(shard):
                grey.append(batch.images.mean(axis=(1, 2)) @ GREY_OF_RGB)
                probs.append(metrics.probs_of_classes(_answer(classifier, batch.images, records.BATCH_SIZE)))
                batches.append(batch._replace(images=np.empty(0)))
                progress.advance(len(batch.labels))
    return Predictions(
        [image_id for batch in batches for image_id in batch.ids],
        [path for batch in batches for path in batch.paths],
        np.concatenate([batch.labels for batch in batches]),
        np.concatenate(probs),
        np.concatenate(grey).astype(np.float32),
    )


def _answer(classifier: "Model", images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return a classifier's answers; a smaller batch is filled: TensorFlow would trace its size anew."""
    filled = np.resize(images, (batch_size, *images.shape[1:]))
    return np.asarray(classifier.predict_on_batch(filled))[: len(images)]


def _score_stage(model_path: Path, features_dir: Path, kind: str, split: str, output: "Output") -> dict[str, Scores]:
    """Score one stage from the stored features: the evaluated split and the validation split, by name."""
    from tasks import heads, keras_files, training

    network: Model = keras_files.load_model(model_path)
    scores: dict[str, Scores] = {}
    for name in dict.fromkeys(("val", split)):
        features = FeatureSplit(features_dir, name, kind)
        probs = heads.class_probs(training.predict_split(network, features), output)
        scores[name] = Scores(features.labels, probs)
    return scores


def _stage_figures(scores: dict[str, Scores], split: str) -> dict[str, Any]:
    """Return one stage's figures on the evaluated split and, under `val`, on the validation split."""
    return {**metrics.summary(*scores[split]), "val": metrics.summary(*scores["val"])}


def _check_end_to_end(cached: metrics.Probs, end_to_end: metrics.Probs) -> float:
    """Return the largest difference of a probability between the stored features and the saved classifier.

    Raises:
        PawlineError: If it is beyond the tolerance.
    """
    difference = float(np.abs(cached - end_to_end).max())
    if difference > END_TO_END_TOLERANCE:
        raise stage.PawlineError(
            f"the saved classifier and the stored features disagree by {difference:.3f} in a probability, more than "
            f"{END_TO_END_TOLERANCE}: it is not the network that was trained; run `dvc repro --force features`"
        )
    return difference


def _figures(predictions: Predictions) -> dict[str, Any]:
    labels, probs = predictions.labels, predictions.probs
    correct = int((probs.argmax(axis=1) == labels).sum())
    return {
        "images": len(labels),
        **metrics.summary(labels, probs),
        "accuracy_interval": metrics.wilson_interval(correct, len(labels)),
        "auc_interval": metrics.bootstrap_auc_interval(labels, probs),
        "confidence": 0.95,
    }


def _write_predictions(predictions: Predictions, split: str, labels: list[str], path: Path) -> None:
    """Write a row an image: id, path, split, label, predicted, its probability and that of all classes, brightness."""
    predicted = predictions.probs.argmax(axis=1)
    table = {
        "id": predictions.ids,
        "path": predictions.paths,
        "split": [split] * len(predicted),
        "label": [labels[index] for index in predictions.labels],
        "predicted": [labels[index] for index in predicted],
        "probability": predictions.probs.max(axis=1),
        "probabilities": list(predictions.probs),
        "brightness": predictions.brightness,
    }
    tables.write_table(pa.table(table), path)


def _log_outcome(evaluation: dict[str, Any], metrics_out: Path) -> None:
    low, high = evaluation["accuracy_interval"]
    note = "" if evaluation["split"] == "test" else " (there is no test split: this split also chose the epoch)"
    log.info(
        "evaluate: accuracy %.4f (95 %% interval %.4f to %.4f), AUC %s, loss %.4f on %d images of %s%s; %s; in %s",
        *(evaluation["accuracy"], low, high),
        "unknown" if evaluation["auc"] is None else f"{evaluation['auc']:.4f}",
        *(evaluation["loss"], evaluation["images"], evaluation["split"], note, evaluation["selected"], metrics_out),
    )


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--tfrecords-dir", "data/tfrecords", "reads: images")
    stage.add_path(parser, "--features-dir", "data/features", "reads: features")
    stage.add_path(parser, "--models-dir", "models", "reads: stage1/, stage2/ and classifier.keras")
    stage.add_path(parser, "--metrics-out", "reports/metrics/evaluation.json", "writes: figures")
    stage.add_path(parser, "--plots-dir", "reports/plots", "writes: data of plots")
    stage.add_path(parser, "--predictions-out", "data/predictions.parquet", "writes: a row an image")
    evaluate(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    stage.run(main)
