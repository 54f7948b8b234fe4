"""Frozen features from TFRecords: the `features` stage's way against Keras's `predict` of the same backbone.

    python -m benchmarks.features                    the TFRecords of the last `make repro`
    python -m benchmarks.features --images 1024 --rounds 5

Both sides read and decode the same shards of the training split and compute the pooled vectors and the boundary tensors
of each image as it is, without augmentation. Ours computes and stores them with the stage's own code, by OpenVINO in
float32 and, where the processor has it, in bfloat16 with the first layers in float32. The other side is a model with
both outputs and its `predict` on a `tf.data` pipeline, in a process of its own with TensorFlow's default settings.

A note says how well the pooled vectors agree: the smallest cosine of an image.
"""

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rounds import Result, add_options, compare, report
from tasks import stage
from tasks.feature_store import shard_files
from tasks.params import FeaturesParams, UnfreezeParams, load_part, load_section
from tasks.progress import Progress
from tasks.stage import PawlineError

if TYPE_CHECKING:  # TensorFlow takes seconds to import, and the plain side's process must import it by itself
    from tasks.features import FrozenPart

BARS = {"bfloat16": 3.5, "float32": 2.0}
BATCH_SIZE = 32  # of `predict`: Keras's own default
UNAUGMENTED = "val"  # the split as which the stage computes images as they are
KEPT = "pooled"


def plain_process() -> ProcessPoolExecutor:
    """Return a process for plain Keras: TensorFlow has its default settings there, not those of our stages."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _be_plain)


def _be_plain() -> None:
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):  # inherited from tasks.quiet_tf
        os.environ.pop(name, None)
    # TensorFlow's start-up messages; what goes wrong comes back as an exception.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def choose_shards(tfrecords_dir: Path, images: int) -> tuple[Path, ...]:
    """Return the first shards of the training split that hold at least so many images, or all there are."""
    from tasks import records

    chosen: list[Path] = []
    for shard in records.shard_paths(tfrecords_dir, "train"):
        if images > 0:
            chosen.append(shard)
            images -= sum(1 for _ in records.scan_shard(shard))
    if not chosen:
        raise PawlineError(f"{tfrecords_dir} holds no TFRecords: run `make repro` first")
    return tuple(chosen)


def image_size(shard: Path) -> int:
    """Return the side of a shard's images in pixels."""
    from tasks import records

    return int(next(records.read_shard(shard)).images.shape[1])


def prepare(
    backbone_dir: Path, params: FeaturesParams, unfrozen_layers: int | float | str, *, size_px: int, network_out: Path
) -> dict[str, "FrozenPart"]:
    """Prepare the stage's engine in each precision there is; save the same network for plain Keras."""
    from tasks import engines, model
    from tasks.features import FrozenPart
    from tasks.quiet_tf import keras

    backbone = model.load_backbone(backbone_dir, size_px)
    unfrozen = model.count_unfrozen(backbone, unfrozen_layers)
    boundary = model.freeze_boundary(backbone, unfrozen) if unfrozen else None
    wanted = {KEPT: model.pool(backbone.output, params.pooling)}
    if boundary is not None:
        wanted["boundary"] = boundary.tensor
    keras.Model(backbone.input, wanted).save(network_out)
    frozen = {}
    for precision in ("auto", "float32"):  # auto: bfloat16, where the processor has it
        options: dict[str, Any] = {"pooling": params.pooling, "engine": "openvino", "precision": precision}
        chosen = engines.choose_engines(backbone, boundary, **options).training
        frozen[chosen.precision] = FrozenPart(engines.Engines(chosen, chosen), boundary, params)
        if chosen.precision == "float32":  # no need to convert the network to it again
            break
    return frozen


def compute(shards: tuple[Path, ...], frozen: "FrozenPart") -> np.ndarray:
    """Compute and store the features of some shards as the stage does; return the pooled vectors."""
    from tasks.features import Shard, compute_shard
    from tasks.older_features import OlderFeatures
    from tasks.reuse import Finished

    with (
        tempfile.TemporaryDirectory(prefix="pawline-features-") as folder,
        Progress("features", total=None) as progress,
    ):
        for number, shard in enumerate(shards):
            numbered = Shard(UNAUGMENTED, number, shard, digest="")
            compute_shard(numbered, frozen, OlderFeatures(Finished({}, {})), Path(folder), progress.advance)
        pooled = [np.load(path)[:, 0] for path in shard_files(Path(folder), UNAUGMENTED, KEPT)]
    return np.concatenate(pooled)


def predict(network: Path, shards: tuple[Path, ...]) -> np.ndarray:
    """Have Keras predict the same from the same shards; return the pooled vectors."""
    model, dataset = _plain_side(network, shards)
    pooled: np.ndarray = model.predict(dataset, verbose=0)[KEPT]
    return pooled


@cache
def _plain_side(network: Path, shards: tuple[Path, ...]) -> tuple[Any, Any]:
    """Return the model and its images, the way a practitioner would write it by hand."""
    import keras
    import tensorflow as tf

    model = keras.models.load_model(network, compile=False)

    def parse(serialized: Any) -> Any:  # noqa: ANN401 - TensorFlow ships no types
        example = tf.io.parse_single_example(serialized, {"image": tf.io.FixedLenFeature((), tf.string)})
        return tf.ensure_shape(tf.io.decode_png(example["image"], channels=3), model.input_shape[1:])

    dataset = tf.data.TFRecordDataset([str(shard) for shard in shards]).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return model, dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


def compare_all(
    shards: tuple[Path, ...], frozen: dict[str, "FrozenPart"], network: Path, *, rounds: int
) -> dict[str, Result]:
    """Compare each precision with plain Keras, after a run of each side that warms it up."""
    results = {}
    with plain_process() as plain:

        def theirs() -> np.ndarray:
            return plain.submit(predict, network, shards).result()

        expected = theirs()
        for precision, part in frozen.items():
            found = compute(shards, part)
            result = compare(
                partial(compute, shards, part),
                theirs,
                what=f"frozen features of {len(expected):,} images from TFRecords, {precision}",
                against="Keras's predict",
                rounds=rounds,
                images=len(expected),
                bar=BARS[precision],
            )
            result["notes"].append(f"pooled vectors: the smallest cosine of an image is {cosines(found, expected):.6f}")
            results[f"features_{precision}"] = result
    return results


def cosines(a: np.ndarray, b: np.ndarray) -> float:
    """Return the smallest cosine between the rows of two arrays.

    Raises:
        ValueError: They have not the same shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"the sides computed different images: {a.shape} and {b.shape}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def main(argv: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--tfrecords-dir", "data/tfrecords", "reads: images")
    stage.add_path(parser, "--backbone-dir", "models/backbone", "reads: ImageNet weights")
    stage.add_path(parser, "--params", "params.yaml", "reads: pooling, and where the backbone is cut")
    parser.add_argument("--images", type=int, default=256, help="rounded up to whole shards (default: 256)")
    add_options(parser)
    args = parser.parse_args(argv)
    if args.images < 1:
        parser.error("--images must be at least 1")
    shards = choose_shards(args.tfrecords_dir, args.images)
    params = load_section(args.params, "features", FeaturesParams)
    unfrozen_layers = load_part(args.params, "fine_tune", UnfreezeParams).unfrozen_layers
    with tempfile.TemporaryDirectory(prefix="pawline-features-") as folder:
        network = Path(folder) / "network.keras"
        frozen = prepare(args.backbone_dir, params, unfrozen_layers, size_px=image_size(shards[0]), network_out=network)
        report(compare_all(shards, frozen, network, rounds=args.rounds), args.results)


if __name__ == "__main__":
    stage.run(main)
