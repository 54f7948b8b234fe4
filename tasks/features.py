"""Stage `features`: what is frozen is computed once, for every evaluation image and N views of every training image.

reads   data/tfrecords/, models/backbone/, params.yaml: features, image, fine_tune.unfrozen_layers
writes  data/features/ (pooled vectors for stage 1, boundary tensors for stage 2, labels, ids, manifest.json,
        environment.json)

python -m tasks.features    (about 300 views a second on two cores; an interrupted run carries on at its last shard)
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasks import stage
from tasks.cluster import map_cluster, scheduler_address
from tasks.environment import write_environment
from tasks.feature_store import quantize, range_of, shard_name
from tasks.image_table import SPLITS
from tasks.params import FeaturesParams, ImageParams, UnfreezeParams, load_part, load_section
from tasks.progress import Progress
from tasks.stage import PawlineError

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.engines import Engine, Engines
    from tasks.model import Boundary
    from tasks.records import Batch

log = logging.getLogger(__name__)


class FrozenPart(NamedTuple):
    """What every shard is computed with.

    Evaluation images go through the network in float32 whatever the training views are computed in: the figures that
    choose an epoch and a stage are then the saved classifier's own.
    """

    engines: "Engines"
    boundary: "Boundary | None"
    params: FeaturesParams


class Shard(NamedTuple):
    """A shard of TFRecords, and its number in its split."""

    split: str
    number: int
    path: Path

    def __str__(self) -> str:
        return str(self.path)


class Setting(NamedTuple):
    """What a worker of a cluster prepares its frozen part from: the same that `features` has prepared here."""

    backbone_dir: Path
    backbone_digest: str  # the folder's content: a worker outlives it
    params: FeaturesParams
    image: ImageParams
    unfrozen_layers: int | float | str


def features(
    *,
    tfrecords_dir: Path,
    backbone_dir: Path,
    features_dir: Path,
    params: FeaturesParams,
    image: ImageParams,
    unfrozen_layers: int | float | str,
) -> None:
    """Compute the pooled vectors and boundary tensors shard by shard and describe them in `manifest.json`."""
    from tasks import augment, records  # noqa: F401 - the key of unfinished work covers what is imported by then

    frozen, manifest = prepare(backbone_dir, params, image, unfrozen_layers)
    sizes = records.split_sizes(tfrecords_dir)
    manifest |= {"labels": records.read_labels(tfrecords_dir), "images": sizes}
    views = sum(count * _views_of(split, params) for split, count in sizes.items())
    key = stage.digest_inputs([params.model_dump(), manifest], tfrecords_dir, backbone_dir)
    with stage.scratch_dir("features", key) as scratch, Progress("features", total=views, unit="views") as progress:
        shards = [
            Shard(split, number, path.absolute())
            for split in SPLITS
            for number, path in enumerate(records.shard_paths(tfrecords_dir, split))
        ]
        address = scheduler_address()
        if address is None:
            for shard in shards:
                compute_shard(shard, frozen, scratch, progress.advance)
        else:
            chosen = params.model_copy(update={"engine": manifest["engine"], "precision": manifest["precision"]})
            setting = Setting(backbone_dir.absolute(), manifest["backbone_digest"], chosen, image, unfrozen_layers)
            compute = partial(compute_on_worker, setting=setting, scratch=scratch.absolute())
            for computed in map_cluster(compute, shards, address):
                progress.advance(computed)
        stage.write_json(manifest, scratch / "manifest.json")
        write_environment(scratch)
        with stage.whole_dir(features_dir) as unfinished:
            # The labels mark a finished shard: they leave first, so that a kill amid the moves loses no array unseen.
            for path in sorted(scratch.glob("*.*"), key=lambda path: not path.name.endswith("-labels.npy")):
                shutil.move(path, unfinished / path.name)
    log.info(
        "features: %s views by %s %s, cut at %s, in %s",
        f"{views:,}",
        manifest["engine"],
        manifest["precision"],
        manifest["boundary"] or "the end (nothing to fine-tune)",
        features_dir,
    )


def prepare(
    backbone_dir: Path, params: FeaturesParams, image: ImageParams, unfrozen_layers: int | float | str
) -> tuple[FrozenPart, dict[str, Any]]:
    """Load the backbone, find the freeze boundary and choose the engine; return them and the manifest about them."""
    from tasks import engines, model, witness

    network = model.load_backbone(backbone_dir, image.size_px)
    unfrozen = model.count_unfrozen(network, unfrozen_layers)
    boundary = model.freeze_boundary(network, unfrozen) if unfrozen else None
    chosen = engines.choose_engines(
        network, boundary, pooling=params.pooling, engine=params.engine, precision=params.precision
    )
    network.trainable = False
    manifest = {
        "backbone": network.name,
        "backbone_digest": witness.digest_of(witness.frozen_digests(network)),
        "size_px": image.size_px,
        "unfrozen_layers": unfrozen_layers,
        "boundary": boundary.layer if boundary else None,
        "pooling": params.pooling,
        "engine": chosen.training.name,
        "precision": chosen.training.precision,
        "views": params.views,
    }
    return FrozenPart(chosen, boundary, params), manifest


def _views_of(split: str, params: FeaturesParams) -> int:
    return params.views if split == "train" else 1


def compute_on_worker(shard: Shard, *, setting: Setting, scratch: Path) -> int:
    """Compute a shard on a worker of a cluster; return its number of views."""
    views = [0]
    compute_shard(shard, _frozen_on_worker(setting), scratch, views.append)
    return sum(views)


@lru_cache(maxsize=1)
def _frozen_on_worker(setting: Setting) -> FrozenPart:
    frozen, manifest = prepare(setting.backbone_dir, setting.params, setting.image, setting.unfrozen_layers)
    if manifest["backbone_digest"] != setting.backbone_digest:
        raise PawlineError(f"{setting.backbone_dir} holds another backbone on a worker than here: share the folder")
    return frozen


def compute_shard(shard: Shard, frozen: FrozenPart, scratch: Path, advance: Callable[[int], None]) -> None:
    """Write one shard's arrays; the labels come last and mark it finished. `advance` is told of views done."""
    from tasks import records

    split, number, path = shard
    views = _views_of(split, frozen.params)
    finished = scratch / shard_name(split, number, "labels")
    if finished.exists():
        advance(len(np.load(finished)) * views)
        return
    batches = list(records.read_shard(path))
    labels = np.concatenate([batch.labels for batch in batches])
    pieces = [(view, batch) for view in range(views) for batch in batches]
    engine = frozen.engines.training if split == "train" else frozen.engines.evaluation
    arrays: dict[str, np.ndarray] = {}
    row = 0
    images_in_order = (_view_of(batch, split, view, frozen.params) for view, batch in pieces)
    for outputs in _run(engine, frozen, images_in_order, rounded=split == "train"):
        view, first = divmod(row, len(labels))
        images = len(outputs["pooled"])
        for kind, values in outputs.items():
            if kind not in arrays:
                out, shape = scratch / shard_name(split, number, kind), (len(labels), views, *values.shape[1:])
                arrays[kind] = np.lib.format.open_memmap(out, mode="w+", dtype=values.dtype, shape=shape)
            arrays[kind][first : first + images, view] = values
        row += images
        advance(images)
    image_ids = [image_id for batch in batches for image_id in batch.ids]
    np.save(scratch / shard_name(split, number, "ids"), np.array(image_ids, "S64"))
    with stage.whole_file(finished) as unfinished:
        np.save(unfinished, labels)


def _run(
    engine: "Engine", frozen: FrozenPart, batches: Iterable[np.ndarray], *, rounded: bool
) -> Iterator[dict[str, np.ndarray]]:
    """Yield what is stored of each batch: the pooled vectors and, where stage 2 needs one, the boundary tensor."""
    batches, images = tee(batches)
    for outputs, images_of_batch in zip(engine.run(batches), images, strict=True):
        if "boundary" in outputs and rounded:
            outputs["boundary"], outputs[range_of("boundary")] = quantize(outputs["boundary"])
        elif "boundary" in outputs:
            outputs["boundary"] = _to_float16(outputs["boundary"])
        elif frozen.boundary is not None:  # the image itself
            outputs["boundary"] = images_of_batch
        yield outputs


def _to_float16(tensor: np.ndarray) -> np.ndarray:
    try:
        with np.errstate(over="raise"):
            return tensor.astype(np.float16)
    except FloatingPointError:  # a backbone without BatchNormalization may give any values
        raise PawlineError(
            f"features are stored as float16, and a value of {np.abs(tensor).max():.0f} is too large for that: choose "
            "another fine_tune.unfrozen_layers (0, or all layers, stores no such tensor) or other weights"
        ) from None


def _view_of(batch: "Batch", split: str, view: int, params: FeaturesParams) -> np.ndarray:
    """Augment training images; evaluation images are taken as they are."""
    from tasks.augment import augment

    if split != "train":
        return batch.images
    return augment(batch.images, batch.ids, view, params=params.augment, seed=params.seed)


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--tfrecords-dir", "data/tfrecords", "reads: images")
    stage.add_path(parser, "--backbone-dir", "models/backbone", "reads: ImageNet weights")
    stage.add_path(parser, "--features-dir", "data/features", "writes: features")
    args = parser.parse_args(argv)
    features(
        tfrecords_dir=args.tfrecords_dir,
        backbone_dir=args.backbone_dir,
        features_dir=args.features_dir,
        params=load_section(args.params, "features", FeaturesParams),
        image=load_section(args.params, "image", ImageParams),
        unfrozen_layers=load_part(args.params, "fine_tune", UnfreezeParams).unfrozen_layers,
    )


if __name__ == "__main__":
    stage.run(main)
