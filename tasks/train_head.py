"""Stage `train_head` (stage 1): the new head, on pooled vectors of the frozen backbone.

reads   data/features/, models/backbone/, params.yaml: train_head, compute
writes  models/stage1/ (head.keras, classifier.keras with the head on the backbone, curves epochs.csv and batches.csv,
        metrics.json of the best epoch, summary.json with the freeze witness, environment.json)

python -m tasks.train_head    (about a second an epoch for 1,000 images, beside TensorFlow's start)
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasks import seals, stage, workers
from tasks.environment import write_environment
from tasks.feature_store import read_manifest
from tasks.params import AUTO, ComputeParams, TrainHeadParams, load_section

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.heads import Output

log = logging.getLogger(__name__)


METRICS = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss")


def train_head(
    *, features_dir: Path, backbone_dir: Path, stage1_dir: Path, params: TrainHeadParams, compute: ComputeParams = AUTO
) -> None:
    """Train the head, keep its best epoch, and prove that the backbone it stands on did not move.

    Of several workers the chief alone writes what comes out.
    """
    from tasks import curves, heads, keras_files, model, strategy, training, witness

    seals.check(features_dir, lambda name: "-boundary" not in name)
    seals.check(backbone_dir)
    manifest = read_manifest(features_dir)
    labels = manifest["labels"]
    output = output_for(params.output, len(labels))
    team = strategy.join(compute, "train_head", params, features_dir, backbone_dir)
    backbone = model.load_backbone(backbone_dir, manifest["size_px"])
    backbone.trainable = False
    before = witness.frozen_digests(backbone)
    witness.check_same_weights(before, manifest)
    with strategy.scope(team):
        head = heads.build_head(backbone.output_shape[-1], len(labels), params, output=output)
    classifier = model.build_classifier(backbone, head, pooling=manifest["pooling"], output=output)
    splits = training.open_splits(features_dir, "pooled")
    with workers.scratch_dir("train_head", params.model_dump(), features_dir, backbone_dir) as scratch:
        with strategy.scope(team):
            history = training.train(head, splits, params, output=output, scratch=scratch, what="train_head")
        record = witness.check_frozen(before, witness.frozen_digests(backbone), what="train_head")
        best = history.best
        if not workers.is_chief():
            return
        with stage.whole_dir(stage1_dir) as unfinished:
            keras_files.save_model(head, unfinished / "head.keras")
            keras_files.save_model(classifier, unfinished / "classifier.keras")
            curves.write_curves(history, unfinished)
            curves.write_metrics({name: best[name] for name in METRICS}, unfinished / "metrics.json")
            summary = {"labels": labels, "output": output, "witness": record} | curves.outcome(history, params)
            stage.write_json(summary | strategy.trained_by(head), unfinished / "summary.json")
            write_environment(unfinished)
            seals.seal(unfinished)
    log.info(
        "train_head: best epoch %d, validation accuracy %.4f, loss %.4f; %d frozen tensors unmoved; in %s",
        *(best["epoch"], best["val_accuracy"], best["val_loss"], record["frozen_tensors"], stage1_dir),
    )


def output_for(output: "Literal['auto'] | Output", classes: int) -> "Output":
    """Return what the head answers with: `auto` is sigmoid for two classes and softmax for more.

    Raises:
        stage.PawlineError: For one unit and more than two classes.
    """
    if output == "auto":
        return "sigmoid" if classes == 2 else "softmax"
    if output != "softmax" and classes > 2:
        raise stage.PawlineError(
            f"train_head.output is {output!r}: there are {classes} classes; choose auto or softmax"
        )
    return output


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--features-dir", "data/features", "reads: pooled vectors")
    stage.add_path(parser, "--backbone-dir", "models/backbone", "reads: the frozen backbone")
    stage.add_path(parser, "--stage1-dir", "models/stage1", "writes: the head and its curves")
    args = parser.parse_args(argv)
    train_head(
        features_dir=args.features_dir,
        backbone_dir=args.backbone_dir,
        stage1_dir=args.stage1_dir,
        params=load_section(args.params, "train_head", TrainHeadParams),
        compute=load_section(args.params, "compute", ComputeParams),
    )


if __name__ == "__main__":
    stage.run(main)
