"""Frozen features: OpenVINO against TensorFlow, on the same images in the same run.

    python -m benchmarks.features                    the TFRecords of the last `make repro`
    python -m benchmarks.features --images 512 --rounds 5

Prints the median milliseconds an image of each engine over the rounds, the median of the ratios round by round, and
how well the pooled vectors agree (the smallest cosine of an image). Decoding and augmentation are left out on both
sides.
"""

import argparse
import statistics
import time
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np

from tasks.stage import PawlineError

ENGINES: tuple[tuple[Literal["openvino", "tensorflow"], Literal["bfloat16", "float32"]], ...] = (
    ("tensorflow", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
)


def read_batches(tfrecords_dir: Path, images: int) -> list[np.ndarray]:
    """Return about this many images of the training split, uint8, in batches."""
    from tasks import records

    shards = records.shard_paths(tfrecords_dir, "train")
    if not shards:
        raise PawlineError(f"{tfrecords_dir} holds no TFRecords: run `make repro` first")
    batches = chain.from_iterable(records.read_shard(shard) for shard in shards)
    full = (batch.images for batch in batches if len(batch.images) == records.BATCH_SIZE)
    return list(islice(full, max(1, images // records.BATCH_SIZE)))


def compare(batches: list[np.ndarray], backbone_dir: Path, *, unfrozen_layers: int, rounds: int) -> None:
    """Time each engine in turn, round after round, and print the figures."""
    from tasks import engines, model

    backbone = model.load_backbone(backbone_dir, batches[0].shape[1])
    boundary = model.freeze_boundary(backbone, unfrozen_layers)
    prepared = [
        engines.choose_engines(backbone, boundary, pooling="average", engine=engine, precision=precision).training
        for engine, precision in ENGINES
    ]
    pooled = [np.concatenate([outputs["pooled"] for outputs in engine.run(batches)]) for engine in prepared]  # warms up
    seconds: list[list[float]] = [[] for _ in prepared]
    for _ in range(rounds):
        for engine, times in zip(prepared, seconds, strict=True):
            started = time.perf_counter()
            for _outputs in engine.run(batches):
                pass
            times.append(time.perf_counter() - started)
    images = sum(len(batch) for batch in batches)
    print(f"{images} images of {batches[0].shape[1]} px, {rounds} rounds, {backbone.name} cut at {boundary.layer}")
    print(f"{'engine':<22}{'ms an image':>12}{'times faster':>14}{'cosine, least':>15}")
    for engine, times, vectors in zip(prepared, seconds, pooled, strict=True):
        ratio = statistics.median(slow / fast for slow, fast in zip(seconds[0], times, strict=True))
        milliseconds = 1000 * statistics.median(times) / images
        least = cosines(vectors, pooled[0]).min()
        print(f"{engine.name + ' ' + engine.precision:<22}{milliseconds:>12.2f}{ratio:>14.2f}{least:>15.6f}")


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine between the rows of two arrays, float64 [rows]."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    result: np.ndarray = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return result


def main() -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tfrecords-dir", type=Path, default=Path("data/tfrecords"))
    parser.add_argument("--backbone-dir", type=Path, default=Path("models/backbone"))
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--unfrozen-layers", type=int, default=100)
    args = parser.parse_args()
    try:
        batches = read_batches(args.tfrecords_dir, args.images)
    except PawlineError as error:
        parser.error(str(error))
    compare(batches, args.backbone_dir, unfrozen_layers=args.unfrozen_layers, rounds=args.rounds)


if __name__ == "__main__":
    main()
