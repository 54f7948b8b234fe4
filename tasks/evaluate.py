"""Stage `evaluate`: the selected classifier on the test split, once, from the images to the figures.

reads   data/tfrecords/, data/features/, models/stage1/, models/stage2/, models/classifier.keras
writes  reports/metrics/evaluation.json, reports/plots/ (confusion.csv, roc.csv), data/predictions.parquet

python -m tasks.evaluate    (about 12 ms an image on two cores, beside TensorFlow's start)

The images go through the saved classifier end to end. The figures of each stage by itself come from the stored
features, so that the two paths check each other: `end_to_end_max_difference` is the largest difference of a probability
between them.
"""

import csv
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import metrics, stage
from tasks.feature_store import FeatureSplit
from tasks.progress import Progress

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.heads import Output
    from tasks.quiet_tf import Model

log = logging.getLogger(__name__)

# How far a probability may differ between the saved classifier and the stored features: both are float32, by two
# engines, and the boundary tensor is stored in float16.
END_TO_END_TOLERANCE = 0.01


class Predictions(NamedTuple):
    """The classifier's answers: ids and paths, labels [images], probabilities [images, classes]."""

    ids: list[str]
    paths: list[str]
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

    labels = records.read_labels(tfrecords_dir)
    split = "test" if "test" in records.split_sizes(tfrecords_dir) else "val"
    predictions = predict(models_dir / "classifier.keras", tfrecords_dir, split)
    stage1, stage2 = (_read_summary(models_dir / name) for name in ("stage1", "stage2"))
    output = stage1["output"]
    stages = {"stage1": _score_stage(models_dir / "stage1" / "head.keras", features_dir, "pooled", split, output)}
    if stage2["best"] is not None:
        stages["stage2"] = _score_stage(models_dir / "stage2" / "tail.keras", features_dir, "boundary", split, output)
    evaluation = {
        "split": split,
        "selected": stage2["selected"],
        "end_to_end_max_difference": _check_end_to_end(stages[stage2["selected"]]["probs"], predictions.probs),
        "end_to_end_tolerance": END_TO_END_TOLERANCE,
        **_figures(predictions),
        **{name: {key: value for key, value in figures.items() if key != "probs"} for name, figures in stages.items()},
    }
    with stage.whole_dir(plots_dir) as unfinished:
        _write_confusion(predictions, labels, unfinished / "confusion.csv")
        _write_roc(predictions, labels, unfinished / "roc.csv")
    with stage.whole_file(predictions_out) as unfinished:
        _write_predictions(predictions, split, labels, unfinished)
    with stage.whole_file(metrics_out) as unfinished:
        stage.write_json(evaluation, unfinished)
    _log_outcome(evaluation, metrics_out)


def predict(classifier_path: Path, tfrecords_dir: Path, split: str) -> Predictions:
    """Run the images of a split through the saved classifier."""
    from tasks import heads, keras_files, records

    classifier = keras_files.load_model(classifier_path)
    # A head's logit has become a probability in the classifier: one column or one a class is all that differs.
    output: Output = "sigmoid" if classifier.output_shape[-1] == 1 else "softmax"
    batches, probs = [], []
    with Progress("evaluate", total=records.split_sizes(tfrecords_dir)[split]) as progress:
        for shard in records.shard_paths(tfrecords_dir, split):
            for batch in records.read_shard(shard):
                probs.append(heads.class_probs(np.asarray(classifier.predict_on_batch(batch.images)), output))
                batches.append(batch._replace(images=np.empty(0)))
                progress.advance(len(batch.labels))
    return Predictions(
        [image_id for batch in batches for image_id in batch.ids],
        [path for batch in batches for path in batch.paths],
        np.concatenate([batch.labels for batch in batches]),
        np.concatenate(probs),
    )


def _read_summary(stage_dir: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((stage_dir / "summary.json").read_text(encoding="utf-8"))
    return summary


def _score_stage(model_path: Path, features_dir: Path, kind: str, split: str, output: "Output") -> dict[str, Any]:
    """Score one stage from the stored features: on the evaluated split and, under `val`, on the validation split."""
    from tasks import heads, keras_files, training

    network: Model = keras_files.load_model(model_path)
    scores: dict[str, Any] = {}
    for name in dict.fromkeys(("val", split)):
        features = FeatureSplit(features_dir, name, kind)
        scores["probs"] = heads.class_probs(training.predict_split(network, features), output)
        scores[name] = metrics.summary(features.labels, scores["probs"])
    return {**scores[split], "val": scores["val"], "probs": scores["probs"]}


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


def _write_confusion(predictions: Predictions, labels: list[str], path: Path) -> None:
    """Write a row an image, as DVC's confusion template wants it."""
    predicted = predictions.probs.argmax(axis=1)
    rows = [
        {"actual": labels[actual], "predicted": labels[guess]}
        for actual, guess in zip(predictions.labels, predicted, strict=True)
    ]
    _write_csv(rows, path)


def _write_roc(predictions: Predictions, labels: list[str], path: Path) -> None:
    """Write the ROC curve of each class against the rest; of two classes the second says it all."""
    shown = labels[1:] if len(labels) == 2 else labels
    rows = [
        {"class": label, "false_positive_rate": round(false, 6), "true_positive_rate": round(true, 6)}
        for label in shown
        for index in [labels.index(label)]
        for false, true in metrics.roc_points(predictions.labels == index, predictions.probs[:, index])
    ]
    _write_csv(rows, path)


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_predictions(predictions: Predictions, split: str, labels: list[str], path: Path) -> None:
    """Write a row an image: id, path, split, label, predicted, probability of the predicted class, all of them."""
    predicted = predictions.probs.argmax(axis=1)
    table = {
        "id": predictions.ids,
        "path": predictions.paths,
        "split": [split] * len(predicted),
        "label": [labels[index] for index in predictions.labels],
        "predicted": [labels[index] for index in predicted],
        "probability": predictions.probs.max(axis=1),
        "probabilities": list(predictions.probs),
    }
    pq.write_table(pa.table(table), path)


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
