"""Engines for the frozen forward pass, which is inference only: OpenVINO on a CPU, TensorFlow elsewhere."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from tasks import model
from tasks.backbones import IMAGE
from tasks.parallel import available_processors
from tasks.quiet_tf import Model, Tensor, keras, tf
from tasks.runtimes import openvino, openvino_core

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest
    from openvino import Model as Converted

BATCH_SIZE = 32
# What OpenVINO has in hand at a time, on each processor: what lies between two layers then stays in its cache. On two
# cores of 2 MB, MobileNetV2 takes 2.0 ms an image in fours, 2.1 one by one, 2.8 in batches of 32.
PORTION = 4
BATCHES_AHEAD = 2  # are computed while the caller prepares the next
# In bfloat16 the first layers run in float32 all the same: their depthwise filters cancel most of the signal, so that
# the rounding of 8 bits is amplified from block to block (pooled vectors on real photos: cosine 0.90 at worst with all
# of MobileNetV2 in bfloat16, 0.9992 with the first 42 %).
# The share was measured for MobileNetV2 (of width 1.0) alone, and so `precision: auto` is float32 for other backbones.
FLOAT32_SHARE = 0.42
MEASURED = ("MobileNetV2",)
Outputs = dict[str, np.ndarray]  # "pooled" [batch, channels] and "boundary" [batch, ...], float32
Runner = Callable[[Iterable[np.ndarray]], Iterator[Outputs]]


class Engine(NamedTuple):
    """An engine that was chosen for this machine.

    Attributes:
        name: openvino or tensorflow.
        precision: bfloat16 or float32, of the arithmetic; outputs are float32 either way.
        run: Maps batches of at most `BATCH_SIZE` images, uint8 [batch, size, size, 3], to outputs in their order.
    """

    name: str
    precision: str
    run: Runner


class Engines(NamedTuple):
    """The engine for training views, and the one for evaluation images, which is always in float32."""

    training: Engine
    evaluation: Engine


def choose_engines(
    backbone: Model,
    boundary: model.Boundary | None,
    *,
    pooling: model.Pooling,
    engine: Literal["auto", "openvino", "tensorflow"],
    precision: Literal["auto", "bfloat16", "float32"],
) -> Engines:
    """Prepare what gives the pooled vector and, unless it is None or the image itself, the boundary tensor.

    `engine: auto` is TensorFlow where it has a GPU and OpenVINO otherwise; `precision: auto` is bfloat16 where OpenVINO
    runs MobileNetV2 on a processor that has it, float32 otherwise. bfloat16 in TensorFlow is for GPUs that have it.
    """
    if engine == "auto":
        engine = "tensorflow" if tf.config.list_physical_devices("GPU") else "openvino"
    wanted = {"pooled": model.pool(backbone.output, pooling)}
    if boundary is not None and boundary.layer != IMAGE:
        wanted["boundary"] = boundary.tensor
    if engine == "tensorflow":
        network = keras.Model(backbone.input, wanted)
        exact = Engine("tensorflow", "float32", _tensorflow_runner(network))
        if precision != "bfloat16":
            return Engines(exact, exact)
        return Engines(Engine("tensorflow", "bfloat16", _tensorflow_runner(_in_mixed_precision(network))), exact)
    if precision == "auto":
        precision = "bfloat16" if backbone.name in MEASURED and _has_bfloat16() else "float32"
    if precision == "float32":
        only = Engine("openvino", "float32", _openvino_runner([_compile(_convert(backbone.input, wanted), "f32")]))
        return Engines(only, only)
    first, rest = _convert_parts(backbone, boundary, wanted)
    start = _compile(first, "f32")
    rough, fine = (_openvino_runner([start, _compile(rest, rest_precision)]) for rest_precision in ("bf16", "f32"))
    return Engines(Engine("openvino", "bfloat16", rough), Engine("openvino", "float32", fine))


def classifier_runner(classifier: Model) -> Runner:
    """Prepare a whole classifier for OpenVINO in float32: batches as an `Engine` takes them, to its "answers"."""
    return _openvino_runner([_compile(_convert(classifier.input, {"answers": classifier.output}), "f32")])


def _has_bfloat16() -> bool:
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _convert_parts(
    backbone: Model, boundary: model.Boundary | None, wanted: dict[str, Tensor]
) -> tuple["Converted", "Converted"]:
    """Split the network into a first part for float32 and the rest for bfloat16; `carry` runs between them."""
    layers = len(backbone.layers)
    seam = model.freeze_boundary(backbone, layers - round(FLOAT32_SHARE * layers))
    first, rest = {"carry": seam.tensor}, dict(wanted)
    if boundary is not None and "boundary" in rest and boundary.position <= seam.position:
        first["boundary"] = rest.pop("boundary")
    return _convert(backbone.input, first), _convert(seam.tensor, rest)


def _in_mixed_precision(network: Model) -> Model:
    """Copy a network with all layers after the first `FLOAT32_SHARE` in `mixed_bfloat16`, pooling aside."""
    seam = round(FLOAT32_SHARE * len(network.layers))
    mixed = {
        layer.name for layer in network.layers[seam:] if not isinstance(layer, tuple(model.POOLING_LAYERS.values()))
    }

    def copy(layer: Model) -> Model:
        config = layer.get_config()
        return type(layer).from_config(config | {"dtype": "mixed_bfloat16"} if layer.name in mixed else config)

    copied = keras.models.clone_model(network, clone_function=copy)
    copied.set_weights(network.get_weights())
    return copied


def _tensorflow_runner(network: Model) -> Runner:
    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def forward(images: Tensor) -> dict[str, Tensor]:
        outputs = network(tf.cast(images, tf.float32), training=False)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

    def run(batches: Iterable[np.ndarray]) -> Iterator[Outputs]:
        for images in batches:
            yield {name: value.numpy() for name, value in forward(images).items()}

    return run


def _openvino_runner(parts: list["CompiledModel"]) -> Runner:
    """Run a network's parts one after the other, each processor on a portion of its own."""
    portions = available_processors()
    idle: SimpleQueue[list[InferRequest]] = SimpleQueue()
    for _ in range(portions):
        idle.put([part.create_infer_request() for part in parts])

    def infer(images: np.ndarray) -> Outputs:
        requests = idle.get()
        try:
            carry = np.zeros((PORTION, *images.shape[1:]), np.float32)
            carry[: len(images)] = images
            outputs: Outputs = {}
            for request in requests:
                outputs |= {port.get_any_name(): value for port, value in request.infer([carry]).items()}
                carry = outputs.pop("carry", carry)
            return {name: value[: len(images)].copy() for name, value in outputs.items()}
        finally:  # or portions that wait would wait for ever, and nobody would hear of the error
            idle.put(requests)

    def run(batches: Iterable[np.ndarray]) -> Iterator[Outputs]:
        waiting: deque[list[Future[Outputs]]] = deque()
        with ThreadPoolExecutor(portions) as pool:
            for images in batches:
                starts = range(0, len(images), PORTION)
                waiting.append([pool.submit(infer, images[start : start + PORTION]) for start in starts])
                if len(waiting) > BATCHES_AHEAD:
                    yield _join(waiting.popleft())
            while waiting:
                yield _join(waiting.popleft())

    return run


def _join(portions: list["Future[Outputs]"]) -> Outputs:
    outputs = [portion.result() for portion in portions]
    return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}


def _convert(start: Tensor, wanted: dict[str, Tensor]) -> "Converted":
    """Convert what lies between a tensor of the network and others, for portions."""
    network = keras.Model(start, wanted)
    signature = tf.TensorSpec((None, *start.shape[1:]), tf.float32, name="carry_in")
    forward = tf.function(lambda carry_in: network(carry_in, training=False)).get_concrete_function(signature)
    converted = openvino().convert_model(forward)
    converted.reshape([PORTION, *signature.shape[1:]])  # a fixed shape is faster than a free one
    return converted


def _compile(converted: "Converted", precision: str) -> "CompiledModel":
    processors = str(available_processors())
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": processors,
        "INFERENCE_NUM_THREADS": processors,
    }
    return openvino_core().compile_model(converted, "CPU", hints)
