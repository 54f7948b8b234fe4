"""Stage `fine_tune` (stage 2): the backbone's last layers and the head, from the cached boundary tensor.

reads   data/features/, models/stage1/, models/backbone/, params.yaml: fine_tune, compute
writes  models/stage2/ (tail.keras, curves, metrics.json of the selected classifier, summary.json with the freeze
        witness and which stage was selected, environment.json),
        models/classifier.keras (the whole network, its input scaling inside)

python -m tasks.fine_tune    (about 7 ms an image and epoch on two cores with bfloat16)
"""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks import curves, seals, stage, workers
from tasks.environment import write_environment
from tasks.feature_store import read_manifest
from tasks.params import AUTO, ComputeParams, FineTuneParams, load_section

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.curves import History
    from tasks.heads import Output
    from tasks.model import Pooling
    from tasks.quiet_tf import Model

log = logging.getLogger(__name__)


class FineTuneInputs(NamedTuple):
    """What the stage reads: folders."""

    features_dir: Path
    stage1_dir: Path
    backbone_dir: Path


def fine_tune(
    *,
    inputs: FineTuneInputs,
    stage2_dir: Path,
    classifier_out: Path,
    params: FineTuneParams,
    compute: ComputeParams = AUTO,
) -> None:
    """Train the last layers with every BatchNormalization layer frozen; keep stage 1 if stage 2 is no better.

    Better is a higher validation accuracy or, of equal ones, a lower loss. Of several workers the chief alone writes
    what comes out.

    Raises:
        stage.PawlineError: If the features were cut for other layers.
    """
    seals.check(inputs.features_dir, lambda name: "-pooled" not in name)
    seals.check(inputs.stage1_dir)
    seals.check(inputs.backbone_dir)
    manifest = read_manifest(inputs.features_dir)
    if manifest["unfrozen_layers"] != params.unfrozen_layers:
        raise stage.PawlineError(
            f"fine_tune.unfrozen_layers is {params.unfrozen_layers!r}, and {inputs.features_dir} was made for "
            f"{manifest['unfrozen_layers']!r}: run `dvc repro`"
        )
    stage1 = stage.read_json(inputs.stage1_dir / "summary.json")
    if not workers.is_chief():
        if manifest["boundary"] is not None:
            _train(inputs, None, params, compute)
        return
    with stage.whole_dir(stage2_dir) as unfinished, stage.whole_file(classifier_out) as unfinished_classifier:
        if manifest["boundary"] is None:  # all is there, and TensorFlow's start is saved
            summary: dict[str, Any] = {"best": None, "unfrozen_layers": 0, "witness": None}
        else:
            network, summary = _train(inputs, unfinished, params, compute)
        selected, best = _select(stage1["best"], summary["best"])
        if selected == "stage1":
            shutil.copyfile(inputs.stage1_dir / "classifier.keras", unfinished_classifier)
        else:
            _save_classifier(network, unfinished_classifier)
        figures = {name: best[name] for name in ("val_accuracy", "val_loss")}
        curves.write_metrics(figures | {"selected": selected}, unfinished / "metrics.json")
        stage.write_json(summary | {"selected": selected, "labels": stage1["labels"]}, unfinished / "summary.json")
        write_environment(unfinished)
        seals.seal(unfinished)
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


def _load_stage1(inputs: FineTuneInputs) -> Network:
    """Return the network that stage 1 ended with, its backbone frozen."""
    from tasks import keras_files, model, witness

    manifest = read_manifest(inputs.features_dir)
    backbone = model.load_backbone(inputs.backbone_dir, manifest["size_px"])
    backbone.trainable = False
    witness.check_same_weights(witness.frozen_digests(backbone), manifest)
    head = keras_files.load_model(inputs.stage1_dir / "head.keras")
    output = stage.read_json(inputs.stage1_dir / "summary.json")["output"]
    return Network(backbone, head, manifest["pooling"], output)


def _save_classifier(network: Network, path: Path) -> None:
    from tasks import keras_files, model

    classifier = model.build_classifier(network.backbone, network.head, pooling=network.pooling, output=network.output)
    keras_files.save_model(classifier, path)


def _train(
    inputs: FineTuneInputs, out_dir: Path | None, params: FineTuneParams, compute: ComputeParams
) -> tuple[Network, dict[str, Any]]:
    """Train the last layers; return the network and what a summary says of it. With a folder, write tail and curves."""
    from tasks import folded, keras_files, model, strategy, training, witness  # noqa: F401 - the key covers all of them

    team = strategy.join(compute, "fine_tune", params, *inputs)
    with strategy.scope(team):
        network = _load_stage1(inputs)
    with workers.scratch_dir("fine_tune", params.model_dump(), *inputs) as scratch:
        with strategy.scope(team):  # and no longer: what Keras makes to save a model is not for all of them
            tail, history, summary = _train_tail(network, inputs.features_dir, scratch, params)
        if out_dir is not None:
            keras_files.save_model(tail, out_dir / "tail.keras")
            curves.write_curves(history, out_dir)
    return network, summary | strategy.trained_by(tail)


def _train_tail(
    network: Network, features_dir: Path, scratch: Path | None, params: FineTuneParams
) -> "tuple[Model, History, dict[str, Any]]":
    """Train the tail in place; return it, its history and what a summary says of it."""
    from tasks import folded, model, training, witness

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
    unfrozen = model.count_unfrozen(backbone, params.unfrozen_layers)
    summary = {
        "boundary": boundary.layer,
        "unfrozen_layers": unfrozen,
        "first_unfrozen": backbone.layers[-unfrozen].name,
        "witness": record,
        **curves.outcome(history, params),
    }
    return tail, history, summary


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
        inputs=FineTuneInputs(args.features_dir, args.stage1_dir, args.backbone_dir),
        stage2_dir=args.stage2_dir,
        classifier_out=args.classifier_out,
        params=load_section(args.params, "fine_tune", FineTuneParams),
        compute=load_section(args.params, "compute", ComputeParams),
    )


if __name__ == "__main__":
    stage.run(main)
