"""How near the network's two parts come to what the processor can do.

    python -m benchmarks.limits

Counts the multiplications of the default backbone below and above the freeze boundary, measures this processor's peak
on large matrix products in both precisions, and times the frozen part (OpenVINO, as the stage `features` runs it) and a
step of stage 2 (as `fine_tune` trains it). A multiplication and its addition are two operations; a training step has
three times those of the forward pass (outputs, gradients of inputs, gradients of kernels).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import numpy as np

from benchmarks.machine import describe_machine
from tasks import stage
from tasks.params_file import load_part

SIDE, REPEATS = 2048, 5
IMAGES, STEPS = 256, 10


class Part(TypedDict):
    """A part of the network at work.

    Attributes:
        what: In words.
        operations: Floating-point operations an image.
        limit_ms: Milliseconds an image at the processor's peak in the precision it runs in.
        measured_ms: Milliseconds an image as it is.
    """

    what: str
    operations: float
    limit_ms: float
    measured_ms: float


def main(argv: list[str] | None = None) -> None:
    """Measure and print; keep the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--backbone-dir", type=Path, default=Path("models/backbone"))
    parser.add_argument("--results", type=Path, metavar="FILE", help="adds the figures to this JSON file")
    args = parser.parse_args(argv)
    if not args.backbone_dir.is_dir():
        parser.exit(1, f"error: there is no {args.backbone_dir}: run `make repro` first\n")
    peaks = {precision: measure_peak(precision) for precision in ("float32", "bfloat16")}
    parts = measure_parts(args.params, args.backbone_dir, peaks)
    print(", ".join(f"{name} {peak / 1e9:,.0f} billion operations a second" for name, peak in peaks.items()))
    for part in parts:
        print(describe(part))
    if args.results is not None:
        known = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
        limits = {"peaks": peaks, "parts": parts, "machine": describe_machine()}
        stage.write_json(known | {"limits": limits}, args.results)


def describe(part: Part) -> str:
    """Say it in one line."""
    share = part["limit_ms"] / part["measured_ms"]
    return (
        f"{part['what']}: {part['operations'] / 1e6:,.0f} million operations, {part['measured_ms']:.2f} ms an image; "
        f"at peak {part['limit_ms']:.2f} ms, {share:.0%} of it"
    )


def measure_peak(precision: str) -> float:
    """Return operations a second of large matrix products, the best of some."""
    from tasks.quiet_tf import tf

    factor = tf.cast(tf.random.stateless_uniform((SIDE, SIDE), seed=(0, 0)), precision)
    product = tf.function(lambda: tf.reduce_sum(factor @ factor))
    return 2 * SIDE**3 / best_seconds(lambda: product().numpy(), REPEATS)


def measure_parts(params_path: Path, backbone_dir: Path, peaks: dict[str, float]) -> list[Part]:
    """Time the frozen part in both precisions and a training step."""
    from tasks import engines, folded, model
    from tasks.params import FineTuneParams, ImageParams
    from tasks.quiet_tf import keras

    size_px = load_part(params_path, "image", ImageParams).size_px
    unfrozen = load_part(params_path, "fine_tune", FineTuneParams).unfrozen_layers
    backbone = model.load_backbone(backbone_dir, size_px)
    boundary = model.freeze_boundary(backbone, unfrozen)
    below, whole = count_operations(backbone.layers[: boundary.position + 1]), count_operations(backbone.layers)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, size_px, size_px, 3), np.uint8)
    batches = [images[start : start + engines.BATCH_SIZE] for start in range(0, IMAGES, engines.BATCH_SIZE)]
    parts: list[Part] = []
    chosen = engines.choose_engines(backbone, boundary, pooling="average", engine="openvino", precision="auto")
    for engine in (chosen.evaluation, chosen.training):
        seconds = best_seconds(lambda run=engine.run: list(run(batches)), REPEATS) / IMAGES  # type: ignore[misc]
        # bfloat16 begins after the share that stays float32.
        exact = below_seam(backbone) if engine.precision == "bfloat16" else whole
        limit = exact / peaks["float32"] + (whole - exact) / peaks["bfloat16"]
        parts.append(_part(f"all of the network, {engine.precision}", whole, limit, seconds))
    model.unfreeze(backbone, unfrozen)
    head = keras.Sequential([keras.Input((backbone.output.shape[-1],)), keras.layers.Dense(1, activation="sigmoid")])
    tail = model.build_tail(backbone, boundary, head, pooling="average")
    above = 3 * (whole - below)
    for precision in ("float32", "bfloat16"):
        seconds = _step_seconds(folded.fold(tail, precision), boundary.tensor.shape[1:])
        parts.append(_part(f"a step above the cut, {precision} products", above, above / peaks[precision], seconds))
    return parts


def below_seam(backbone: object) -> float:
    """Return the operations of what stays float32 when the rest is bfloat16."""
    from tasks import engines, model

    layers = backbone.layers  # type: ignore[attr-defined]
    seam = model.freeze_boundary(backbone, len(layers) - round(engines.FLOAT32_SHARE * len(layers)))
    return count_operations(layers[: seam.position + 1])


def count_operations(layers: list) -> float:  # type: ignore[type-arg]  # Keras ships no types
    """Return the operations of the convolutions among these layers, an image."""
    operations = 0.0
    for layer in layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and len(kernel.shape) == 4:
            _, height, width, _ = layer.output.shape
            operations += 2 * height * width * np.prod(kernel.shape)
    return operations


def best_seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the least seconds of some calls, after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def _step_seconds(tail: object, shape: tuple[int, ...]) -> float:
    """Return seconds an image of a training step of 32."""
    from tasks.quiet_tf import keras

    batch = 32
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(batch, *shape)).astype(np.float16), rng.integers(0, 2, (batch, 1))
    tail.compile(keras.optimizers.Adam(1e-9), "binary_crossentropy")  # type: ignore[attr-defined]
    return best_seconds(lambda: tail.train_on_batch(features, labels), STEPS) / batch  # type: ignore[attr-defined]


def _part(what: str, operations: float, limit_seconds: float, seconds: float) -> Part:
    return {
        "what": what,
        "operations": operations,
        "limit_ms": round(1000 * limit_seconds, 3),
        "measured_ms": round(1000 * seconds, 3),
    }


if __name__ == "__main__":
    main()
