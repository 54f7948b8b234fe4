"""Stage `train_head` (stage 1): the new head, on pooled vectors of the frozen backbone.

reads   data/features/, models/backbone/, params.yaml: train_head
writes  models/stage1/ (head.keras, curves epochs.csv and batches.csv, summary.json with the freeze witness)

python -m tasks.train_head    (about a second an epoch for 1,000 images, beside TensorFlow's start)
"""

import logging
from pathlib import Path

from tasks import stage
from tasks.feature_store import FeatureSplit, read_manifest
from tasks.params import TrainHeadParams, load_section

log = logging.getLogger(__name__)


def train_head(*, features_dir: Path, backbone_dir: Path, stage1_dir: Path, params: TrainHeadParams) -> None:
    """Train the head, keep its best epoch, and prove that the backbone it stands on did not move."""
    from tasks import heads, keras_files, model, optimization, training, witness

    manifest = read_manifest(features_dir)
    labels = manifest["labels"]
    output = output_for(params.output, len(labels))
    backbone = model.load_backbone(backbone_dir, manifest["size_px"])
    backbone.trainable = False
    before = witness.frozen_digests(backbone)
    witness.check_same_weights(before, manifest)
    channels = backbone.output_shape[-1]
    head = heads.build_head(channels, len(labels), output=output, dropout=params.dropout, seed=params.seed)
    model.build_classifier(backbone, head)  # stage 1 trains this network's head; the witness looks at the rest
    optimization.compile_model(head, learning_rate=params.learning_rate)
    train_split, val_split = (FeatureSplit(features_dir, split, "pooled") for split in ("train", "val"))
    schedule = training.Schedule(params.epochs, params.batch_size, params.seed)
    with stage.scratch_dir(
        "train_head", stage.digest_inputs(params.model_dump(), features_dir, backbone_dir)
    ) as scratch:
        history = training.train(head, train_split, val_split, schedule, scratch=scratch, what="train_head")
        record = witness.check_frozen(before, witness.frozen_digests(backbone), what="train_head")
        with stage.whole_dir(stage1_dir) as unfinished:
            keras_files.save_model(head, unfinished / "head.keras")
            training.write_curves(history, unfinished)
            summary = {"best": history.best, "labels": labels, "output": output, "witness": record}
            stage.write_json(summary, unfinished / "summary.json")
    best = history.best
    log.info(
        "train_head: best epoch %d, validation accuracy %.4f, loss %.4f; %d frozen tensors unmoved; in %s",
        *(best["epoch"], best["val_accuracy"], best["val_loss"], record["frozen_tensors"], stage1_dir),
    )


def output_for(output: str, classes: int) -> str:
    """Return the head's activation: `auto` is sigmoid for two classes and softmax for more.

    Raises:
        stage.PawlineError: For a sigmoid and more than two classes.
    """
    if output == "sigmoid" and classes > 2:
        raise stage.PawlineError(f"train_head.output is 'sigmoid': there are {classes} classes; choose auto or softmax")
    if output == "auto":
        return "sigmoid" if classes == 2 else "softmax"
    return output


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--features-dir", "data/features", "reads: pooled vectors")
    stage.add_path(parser, "--backbone-dir", "models/backbone", "reads: the frozen backbone, for the freeze witness")
    stage.add_path(parser, "--stage1-dir", "models/stage1", "writes: the head and its curves")
    args = parser.parse_args(argv)
    train_head(
        features_dir=args.features_dir,
        backbone_dir=args.backbone_dir,
        stage1_dir=args.stage1_dir,
        params=load_section(args.params, "train_head", TrainHeadParams),
    )


if __name__ == "__main__":
    stage.run(main)
