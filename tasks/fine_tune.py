"""Stage `fine_tune` (stage 2): the backbone's last layers and the head, from the cached boundary tensor.

reads   data/features/, models/stage1/, models/backbone/, params.yaml: fine_tune
writes  models/stage2/ (tail.keras, curves, metrics.json of the selected classifier, summary.json with the freeze
        witness and which stage was selected, environment.json),
        models/classifier.keras (the whole network, its input scaling inside)

python -m tasks.fine_tune    (about 7 ms an image and epoch on two cores with bfloat16)
"""

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks import curves, stage
from tasks.environment import write_environment
from tasks.feature_store import read_manifest
from tasks.params import FineTuneParams, load_section

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.heads import Output
    from tasks.model import Pooling
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

    Raises:
        stage.PawlineError: If the features were cut for other layers.
    """
    manifest = read_manifest(features_dir)
    if manifest["unfrozen_layers"] != params.unfrozen_layers:
        raise stage.PawlineError(
            f"fine_tune.unfrozen_layers is {params.unfrozen_layers!r}, and {features_dir} was made for "
            f"{manifest['unfrozen_layers']!r}: run `dvc repro`"
        )
    stage1 = json.loads((stage1_dir / "summary.json").read_text(encoding="utf-8"))
    with stage.whole_dir(stage2_dir) as unfinished, stage.whole_file(classifier_out) as unfinished_classifier:
        if manifest["boundary"] is None:  # all is there, and TensorFlow's start is saved
            summary: dict[str, Any] = {"best": None, "unfrozen_layers": 0, "witness": None}
        else:
            network = _load_stage1(manifest, stage1_dir, backbone_dir, output=stage1["output"])
            key = stage.digest_inputs(params.model_dump(), features_dir, stage1_dir, backbone_dir)
            with stage.scratch_dir("fine_tune", key) as scratch:
                summary = _train_tail(network, features_dir, unfinished, scratch, params)
        selected, best = _select(stage1["best"], summary["best"])
        if selected == "stage1":
            shutil.copyfile(stage1_dir / "classifier.keras", unfinished_classifier)
        else:
            _save_classifier(network, unfinished_classifier)
        figures = {name: best[name] for name in ("val_accuracy", "val_loss")}
        curves.write_metrics(figures | {"selected": selected}, unfinished / "metrics.json")
        stage.write_json(summary | {"selected": selected, "labels": stage1["labels"]}, unfinished / "summary.json")
        write_environment(unfinished)
    _log_outcome(stage1["best"], summary, selected, classifier_out)


class Network(NamedTuple):
    """The classifier in its parts.

    Attributes:
        backbone: Images to a feature map.
        head: Pooled vectors to `output`.
        pooling: How a feature map becomes a vector.
        output: What the head answers with.
    """

    backbone: "Model"
    head: "Model"
    pooling: "Pooling"
    output: "Output"


def _load_stage1(manifest: dict[str, Any], stage1_dir: Path, backbone_dir: Path, *, output: "Output") -> Network:
    """Return the network that stage 1 ended with, its backbone frozen."""
    from tasks import folded, keras_files, model, training, witness  # noqa: F401 - the key covers what is imported

    backbone = model.load_backbone(backbone_dir, manifest["size_px"])
    backbone.trainable = False
    witness.check_same_weights(witness.frozen_digests(backbone), manifest)
    return Network(backbone, keras_files.load_model(stage1_dir / "head.keras"), manifest["pooling"], output)


def _save_classifier(network: Network, path: Path) -> None:
    from tasks import keras_files, model

    classifier = model.build_classifier(network.backbone, network.head, pooling=network.pooling, output=network.output)
    keras_files.save_model(classifier, path)


def _train_tail(
    network: Network, features_dir: Path, out_dir: Path, scratch: Path, params: FineTuneParams
) -> dict[str, Any]:
    """Train the tail in place, write it and its curves; return what a summary says of it."""
    from tasks import folded, keras_files, model, training, witness

    backbone, head, pooling, output = network
    boundary = model.freeze_boundary(backbone, params.unfrozen_layers)
    model.unfreeze(backbone, params.unfrozen_layers)
    head.trainable = True
    before = witness.frozen_digests(backbone)
    tail = model.build_tail(backbone, boundary, head, pooling=pooling)
    splits = training.open_splits(features_dir, "boundary")
    quick = folded.fold(tail, read_manifest(features_dir)["precision"])
    history = training.train(quick, splits, params, output=output, scratch=scratch, what="fine_tune", evaluated=tail)
    record = witness.check_frozen(before, witness.frozen_digests(backbone), what="fine_tune")
    keras_files.save_model(tail, out_dir / "tail.keras")
    curves.write_curves(history, out_dir)
    unfrozen = model.count_unfrozen(backbone, params.unfrozen_layers)
    return {
        "boundary": boundary.layer,
        "unfrozen_layers": unfrozen,
        "first_unfrozen": backbone.layers[-unfrozen].name,
        "witness": record,
        **curves.outcome(history, params),
    }


def _select(stage1: dict[str, float], stage2: dict[str, float] | None) -> tuple[str, dict[str, float]]:
    """Return the better stage and its best epoch."""
    if stage2 is not None and curves.rank(stage2) > curves.rank(stage1):
        return "stage2", stage2
    return "stage1", stage1


def _log_outcome(stage1: dict[str, float], summary: dict[str, Any], selected: str, classifier_out: Path) -> None:
    if summary["best"] is None:
        log.info("fine_tune: no layer to unfreeze (fine_tune.unfrozen_layers); stage 1 is %s", classifier_out)
        return
    figures = "validation accuracy %.4f, loss %.4f, against %.4f, %.4f of stage 1"
    stage2 = summary["best"]
    verdict = "selected" if selected == "stage2" else "discarded, stage 1 is kept"
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
