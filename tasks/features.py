"""Stage `features`: what is frozen is computed once, for every evaluation image and N views of every training image.

reads   data/tfrecords/, models/backbone/, params.yaml: features, image, fine_tune.unfrozen_layers
writes  data/features/ (pooled vectors for stage 1, boundary tensors for stage 2, labels, ids, digests of the images,
        manifest.json, environment.json),
        data/features.json (what each shard was made from: the next run takes over what would be the same)

python -m tasks.features    (about 300 views a second on two cores; an interrupted run carries on at its last shard)
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasks import reuse, seals, stage
from tasks.cluster import map_cluster, scheduler_address
from tasks.environment import describe_environment, write_environment
from tasks.feature_store import kind_of, quantize, range_of, shard_name
from tasks.image_table import SPLITS
from tasks.older_features import OlderFeatures
from tasks.params import FeaturesParams, ImageParams, UnfreezeParams, load_part, load_section
from tasks.progress import Progress
from tasks.reuse import Finished, Made, Output
from tasks.seals import Digests
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
    """A shard of TFRecords, its number in its split, and the BLAKE3 of its bytes."""

    split: str
    number: int
    path: Path
    digest: str

    def __str__(self) -> str:
        return str(self.path)

    @property
    def made_from(self) -> str:
        """What its features are made from; training and evaluation images are treated differently."""
        return f"{self.split} {self.digest}"

    def mark(self, folder: Path) -> Path:
        """Return the path of what says that it is finished: the digests of its arrays."""
        return folder / f"{self.split}-{self.number:05d}.json"

    def array(self, folder: Path, kind: str) -> Path:
        """Return the path of one of its arrays."""
        return folder / shard_name(self.split, self.number, kind)


class Setting(NamedTuple):
    """What a worker of a cluster prepares its frozen part from: the same that `features` has prepared here."""

    backbone_dir: Path
    backbone_digest: str  # the folder's content: a worker outlives it
    params: FeaturesParams
    image: ImageParams
    unfrozen_layers: int | float | str


class Before(NamedTuple):
    """What a worker of a cluster takes over from: the output of the run before."""

    output: Output
    key: str
    root: Path
    record_digest: str  # a worker outlives it


def features(
    *,
    tfrecords_dir: Path,
    backbone_dir: Path,
    features_dir: Path,
    record_out: Path,
    params: FeaturesParams,
    image: ImageParams,
    unfrozen_layers: int | float | str,
) -> None:
    """Compute the pooled vectors and boundary tensors shard by shard and describe them in `manifest.json`.

    What the run before has computed of the same images is taken over from it (tasks/reuse.py).
    """
    from tasks import augment, records  # noqa: F401 - the key of unfinished work covers what is imported by then

    output = Output(features_dir.absolute(), record_out.absolute())
    seals.check(backbone_dir)
    with ThreadPoolExecutor() as reader:  # while TensorFlow starts
        reading, checking = (
            reader.submit(list_shards, tfrecords_dir),
            reader.submit(reuse.check_output, output, Path.cwd()),
        )
        frozen, manifest = prepare(backbone_dir, params, image, unfrozen_layers)
        shards, checked = reading.result(), checking.result()
    key = reuse.make_key("features", [params.model_dump(), manifest, describe_environment()])
    finished = checked.under(key)
    sizes = records.split_sizes(tfrecords_dir)
    manifest |= {"labels": records.read_labels(tfrecords_dir), "images": sizes}
    views = sum(count * _views_of(split, params) for split, count in sizes.items())
    work = stage.digest_inputs([key, manifest, [shard.made_from for shard in shards]], backbone_dir)
    with stage.scratch_dir("features", work) as scratch, Progress("features", total=views, unit="views") as progress:
        made = {shard.made_from: _take_over(shard, finished, scratch) for shard in shards}
        new = [shard for shard in shards if not made[shard.made_from]]
        for shard in shards:
            if made[shard.made_from]:
                progress.advance(len(np.load(shard.array(scratch, "labels"))) * _views_of(shard.split, params))
        address = scheduler_address()
        if address is None:
            older = OlderFeatures(finished)
            for shard in new:
                compute_shard(shard, frozen, older, scratch, progress.advance)
        else:
            chosen = params.model_copy(update={"engine": manifest["engine"], "precision": manifest["precision"]})
            setting = Setting(backbone_dir.absolute(), manifest["backbone_digest"], chosen, image, unfrozen_layers)
            before = Before(output, key, Path.cwd(), reuse.record_digest(output, Path.cwd()))
            compute = partial(compute_on_worker, setting=setting, before=before, scratch=scratch.absolute())
            for computed in map_cluster(compute, new, address):
                progress.advance(computed)
        made |= {shard.made_from: stage.read_json(shard.mark(scratch)) for shard in new}
        _hand_over(scratch, manifest, features_dir, made)
    reuse.write_record(output, key, made)
    log.info(
        "features: %s views by %s %s, cut at %s, in %s",
        f"{views:,}",
        manifest["engine"],
        manifest["precision"],
        manifest["boundary"] or "the end (nothing to fine-tune)",
        features_dir,
    )


def list_shards(tfrecords_dir: Path) -> list[Shard]:
    """Return the TFRecords of all splits, which are what was written."""
    from tasks import records

    paths = {split: records.shard_paths(tfrecords_dir.absolute(), split) for split in SPLITS}
    digests = seals.check(tfrecords_dir)
    return [
        Shard(split, number, path, digests[path.name])
        for split, some in paths.items()
        for number, path in enumerate(some)
    ]


def _take_over(shard: Shard, finished: Finished, scratch: Path) -> Digests:
    """Link a shard's arrays from the run before; return their digests, or nothing."""
    files = finished.files(shard.made_from)
    return finished.link(files, lambda name: shard.array(scratch, kind_of(name)))


def _hand_over(scratch: Path, manifest: dict[str, Any], features_dir: Path, made: Made) -> None:
    """Make the finished work the stage's output."""
    digests = {name: digest for files in made.values() for name, digest in files.items()}
    with stage.whole_dir(features_dir) as unfinished:
        for name in digests:
            shutil.move(scratch / name, unfinished / name)
        stage.write_json(manifest, unfinished / "manifest.json")
        write_environment(unfinished)
        seals.seal(unfinished, digests)


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


def compute_on_worker(shard: Shard, *, setting: Setting, before: Before, scratch: Path) -> int:
    """Compute a shard on a worker of a cluster; return its number of views."""
    views = [0]
    compute_shard(shard, _frozen_on_worker(setting), _older_on_worker(before), scratch, views.append)
    return sum(views)


@lru_cache(maxsize=1)
def _frozen_on_worker(setting: Setting) -> FrozenPart:
    frozen, manifest = prepare(setting.backbone_dir, setting.params, setting.image, setting.unfrozen_layers)
    if manifest["backbone_digest"] != setting.backbone_digest:
        raise PawlineError(f"{setting.backbone_dir} holds another backbone on a worker than here: share the folder")
    return frozen


@lru_cache(maxsize=1)
def _older_on_worker(before: Before) -> OlderFeatures:
    return OlderFeatures(reuse.finished_shards(before.output, before.key, before.root))


def compute_shard(
    shard: Shard, frozen: FrozenPart, older: OlderFeatures, scratch: Path, advance: Callable[[int], None]
) -> None:
    """Write one shard's arrays, and their digests, which mark it finished. `advance` is told of views done."""
    from tasks import records

    views, labels = _views_of(shard.split, frozen.params), shard.array(scratch, "labels")
    if _is_finished(shard, scratch):
        advance(len(np.load(labels)) * views)
        return
    for left in scratch.glob(shard_name(shard.split, shard.number, "*")):
        left.unlink()  # it may be a link to what another run has written
    examples = list(records.scan_shard(shard.path))
    ids = [example.id for example in examples]
    arrays = _Arrays(shard, scratch, (len(ids), views))
    new = set(range(len(ids)))
    digests = [example.digest_image() for example in examples]
    if frozen.engines.training.name == "openvino":  # whose answer to an image does not depend on its neighbours
        for positions, computed in older.find(shard.split, list(zip(ids, digests, strict=True))):
            arrays.write(computed, positions, slice(None))
            new -= set(positions.tolist())
    advance((len(ids) - len(new)) * views)
    wanted = np.array(sorted(new), np.int64)
    images = records.read_all(shard.path) if len(wanted) == len(ids) else records.read_examples(examples, wanted)
    for view, positions, outputs in _compute(shard.split, images, frozen):
        arrays.write(outputs, wanted[positions], view)
        advance(len(positions))
    np.save(shard.array(scratch, "ids"), np.array(ids, "S64"))
    np.save(shard.array(scratch, "images"), np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1))
    np.save(labels, np.array([example.label for example in examples], np.int64))
    written = sorted(scratch.glob(shard_name(shard.split, shard.number, "*")))
    with stage.whole_file(shard.mark(scratch)) as unfinished:
        stage.write_json(seals.digests_of(written), unfinished)


def _is_finished(shard: Shard, scratch: Path) -> bool:
    """Say whether an interrupted run has finished a shard, and its arrays are still what they were."""
    mark = shard.mark(scratch)
    if not mark.exists():
        return False
    paths = scratch.glob(shard_name(shard.split, shard.number, "*"))
    if mark.read_text(encoding="utf-8", errors="replace") == stage.as_json(seals.digests_of(paths)):
        return True
    log.warning("features: what an interrupted run has left of %s is damaged: computed anew", shard)
    mark.unlink()
    return False


class _Arrays:
    """The arrays of a shard, each made on disk when its first values are there."""

    def __init__(self, shard: Shard, folder: Path, images_and_views: tuple[int, int]) -> None:
        self._shard, self._folder, self._images_and_views = shard, folder, images_and_views
        self._made: dict[str, np.ndarray] = {}

    def write(self, computed: Mapping[str, np.ndarray], positions: np.ndarray, view: int | slice) -> None:
        """Write what was computed of the images at some positions: of one view, or of all ([images, views, ...])."""
        for kind, values in computed.items():
            if kind not in self._made:
                path = self._shard.array(self._folder, kind)
                shape = (*self._images_and_views, *values.shape[1 if isinstance(view, int) else 2 :])
                self._made[kind] = np.lib.format.open_memmap(path, mode="w+", dtype=values.dtype, shape=shape)
            self._made[kind][positions, view] = values


def _compute(
    split: str, images: "Batch", frozen: FrozenPart
) -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
    """Yield the view, the positions of some images and what is stored of them, until all views of all are there."""
    from tasks.engines import BATCH_SIZE

    count = len(images.labels)
    portions = [np.arange(start, min(start + BATCH_SIZE, count)) for start in range(0, count, BATCH_SIZE)]
    pieces = [(view, portion) for view in range(_views_of(split, frozen.params)) for portion in portions]
    batches = (_view_of(images, portion, split, view, frozen.params) for view, portion in pieces)
    engine = frozen.engines.training if split == "train" else frozen.engines.evaluation
    for (view, portion), outputs in zip(pieces, _run(engine, frozen, batches, rounded=split == "train"), strict=True):
        yield view, portion, outputs


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


def _view_of(images: "Batch", positions: np.ndarray, split: str, view: int, params: FeaturesParams) -> np.ndarray:
    """Augment training images; evaluation images are taken as they are."""
    from tasks.augment import augment

    chosen: np.ndarray = images.images[positions]
    if split != "train":
        return chosen
    ids = [images.ids[position] for position in positions]
    return augment(chosen, ids, view, params=params.augment, seed=params.seed)


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--tfrecords-dir", "data/tfrecords", "reads: images")
    stage.add_path(parser, "--backbone-dir", "models/backbone", "reads: ImageNet weights")
    stage.add_path(parser, "--features-dir", "data/features", "writes: features")
    stage.add_path(parser, "--record-out", "data/features.json", "writes: what the shards were made from")
    args = parser.parse_args(argv)
    features(
        tfrecords_dir=args.tfrecords_dir,
        backbone_dir=args.backbone_dir,
        features_dir=args.features_dir,
        record_out=args.record_out,
        params=load_section(args.params, "features", FeaturesParams),
        image=load_section(args.params, "image", ImageParams),
        unfrozen_layers=load_part(args.params, "fine_tune", UnfreezeParams).unfrozen_layers,
    )


if __name__ == "__main__":
    stage.run(main)
