"""Stage `fine_tune` (stage 2): the backbone's last layers and the head, from the cached boundary tensor.

reads   data/features/, models/stage1/, models/backbone/, params.yaml: fine_tune
writes  models/stage2/ (tail.keras, curves, summary.json with the freeze witness and which stage was selected),
        models/classifier.keras (the whole network, its input scaling inside)

python -m tasks.fine_tune    (about 13 ms an image and epoch on two cores)
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import stage
from tasks.feature_store import FeatureSplit, read_manifest
from tasks.params import FineTuneParams, load_section

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.quiet_tf import Model

log = logging.getLogger(__name__)


def fine_tune(
    *,
    features_dir: Path,
    stage1_dir: Path,
    backbone_dir: Path,
    stage2_dir: Path,
    classifier_out: Path,
    params: FineTuneParams,
) -> None:
    """Train the last layers with every BatchNormalization layer frozen; keep stage 1 if stage 2 is no better.

    Better is a higher validation accuracy or, of equal ones, a lower loss.
    """
    from tasks import keras_files, model, optimization, training, witness  # noqa: F401 - the key of unfinished work covers them

    manifest = read_manifest(features_dir)
    stage1 = json.loads((stage1_dir / "summary.json").read_text(encoding="utf-8"))
    backbone = model.load_backbone(backbone_dir, manifest["size_px"])
    backbone.trainable = False
    witness.check_same_weights(witness.frozen_digests(backbone), manifest)
    head = keras_files.load_model(stage1_dir / "head.keras")
    key = stage.digest_inputs(params.model_dump(), features_dir, stage1_dir, backbone_dir)
    with stage.scratch_dir("fine_tune", key) as scratch, stage.whole_dir(stage2_dir) as unfinished:
        if params.unfrozen_layers == 0:
            summary: dict[str, Any] = {"best": None, "selected": "stage1", "witness": None}
        else:
            summary = _train_tail(backbone, head, features_dir, unfinished, scratch, params)
            summary["selected"] = _select(stage1["best"], summary["best"])
        if summary["selected"] == "stage1":  # the layers were trained in place: begin again from what stage 1 had
            backbone = model.load_backbone(backbone_dir, manifest["size_px"])
            head = keras_files.load_model(stage1_dir / "head.keras")
        stage.write_json(summary | {"labels": stage1["labels"]}, unfinished / "summary.json")
        with stage.whole_file(classifier_out) as unfinished_classifier:
            keras_files.save_model(model.build_classifier(backbone, head), unfinished_classifier)
    _log_outcome(stage1["best"], summary, classifier_out)


def _train_tail(
    backbone: "Model", head: "Model", features_dir: Path, out_dir: Path, scratch: Path, params: FineTuneParams
) -> dict[str, Any]:
    """Train the tail, write it and its curves; return its best epoch and the witness's record."""
    from tasks import keras_files, model, optimization, training, witness

    boundary = model.freeze_boundary(backbone, params.unfrozen_layers)
    model.unfreeze(backbone, params.unfrozen_layers)
    head.trainable = True
    before = witness.frozen_digests(backbone)
    tail = model.build_tail(backbone, boundary, head)
    optimization.compile_model(tail, learning_rate=params.learning_rate)
    train_split, val_split = (FeatureSplit(features_dir, split, "boundary") for split in ("train", "val"))
    schedule = training.Schedule(params.epochs, params.batch_size, params.seed)
    history = training.train(tail, train_split, val_split, schedule, scratch=scratch, what="fine_tune")
    record = witness.check_frozen(before, witness.frozen_digests(backbone), what="fine_tune")
    keras_files.save_model(tail, out_dir / "tail.keras")
    training.write_curves(history, out_dir)
    return {"best": history.best, "boundary": boundary.layer, "witness": record}


def _select(stage1: dict[str, float], stage2: dict[str, float]) -> str:
    from tasks.training import rank

    return "stage2" if rank(stage2) > rank(stage1) else "stage1"


def _log_outcome(stage1: dict[str, float], summary: dict[str, Any], classifier_out: Path) -> None:
    if summary["best"] is None:
        log.info("fine_tune: nothing to unfreeze (fine_tune.unfrozen_layers is 0); stage 1 is %s", classifier_out)
        return
    figures = "validation accuracy %.4f, loss %.4f, against %.4f, %.4f of stage 1"
    stage2 = summary["best"]
    verdict = "selected" if summary["selected"] == "stage2" else "discarded, stage 1 is kept"
    log.info(
        f"fine_tune: {figures}: stage 2 is %s; %d frozen tensors unmoved; in %s",
        *(stage2["val_accuracy"], stage2["val_loss"], stage1["val_accuracy"], stage1["val_loss"]),
        *(verdict, summary["witness"]["frozen_tensors"], classifier_out),
    )


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--features-dir", "data/features", "reads: boundary tensors")
    stage.add_path(parser, "--stage1-dir", "models/stage1", "reads: the head of stage 1")
    stage.add_path(parser, "--backbone-dir", "models/backbone", "reads: ImageNet weights")
    stage.add_path(parser, "--stage2-dir", "models/stage2", "writes: the tail and its curves")
    stage.add_path(parser, "--classifier-out", "models/classifier.keras", "writes: the selected classifier")
    args = parser.parse_args(argv)
    fine_tune(
        features_dir=args.features_dir,
        stage1_dir=args.stage1_dir,
        backbone_dir=args.backbone_dir,
        stage2_dir=args.stage2_dir,
        classifier_out=args.classifier_out,
        params=load_section(args.params, "fine_tune", FineTuneParams),
    )


if __name__ == "__main__":
    stage.run(main)
