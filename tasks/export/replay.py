"""Exports, loaded as those who get them would load them, and run."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks import untrusted
from tasks.parallel import available_processors
from tasks.runtimes import onnxruntime, openvino_core
from tasks.silence import silence

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.quiet_tf import Model

ANSWER = "probabilities"
IMAGES, CONTENTS = "images", "contents"  # what the signatures of the SavedModel take
SERVING, FROM_BYTES = "serving_default", "from_bytes"

PATHS = {  # of every export, below models/export
    "keras": "classifier.keras",
    "h5": "classifier.h5",
    "saved_model": "saved_model",
    "saved_model_bytes": "saved_model",
    "litert_float32": "classifier-float32.tflite",
    "litert_float16": "classifier-float16.tflite",
    "litert_int8": "classifier-int8.tflite",
    "openvino": "openvino/classifier.xml",
    "onnx": "classifier.onnx",
}


class Photos(NamedTuple):
    """Some photos, as the files they are and as the squares that the classifier takes.

    Attributes:
        contents: The bytes of each file.
        squares: uint8 [photos, size, size, 3].
    """

    contents: Sequence[bytes]
    squares: npt.NDArray[np.uint8]


Answers = npt.NDArray[np.float32]  # [photos, classes] or [photos, 1], as the classifier gives them
Replay = Callable[[Photos], Answers]


def open_export(name: str, path: Path) -> Replay:
    """Load an export by its name in `PATHS`.

    Returns:
        What answers for photos, any number of them. `saved_model_bytes` is given the files, all others the squares;
        the answer for a file that it cannot read is NaN.
    """
    openers: dict[str, Callable[[Path], Replay]] = {
        "keras": _open_keras,
        "h5": _open_keras,
        "saved_model": _open_saved_model,
        "saved_model_bytes": _open_from_bytes,
        "openvino": _open_openvino,
        "onnx": _open_onnx,
    }
    with silence():
        return openers.get(name, _open_litert)(path)


def replay_keras(network: "Model") -> Replay:
    """Return what answers by a Keras model in memory; traced once for all batch sizes, as `predict` is not."""
    from tasks.quiet_tf import tf

    spec = tf.TensorSpec((None, *network.input_shape[1:]), tf.float32)
    forward = tf.function(lambda images: network(images, training=False), input_signature=[spec], autograph=False)
    return lambda photos: forward(photos.squares.astype(np.float32)).numpy()


def _open_keras(path: Path) -> Replay:
    from tasks import keras_files

    return replay_keras(keras_files.load_model(path))


def _load_saved_model(path: Path) -> "Model":
    from tasks.quiet_tf import tf

    with untrusted.looking_into(path):
        graph = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
        graph.ParseFromString((path / "saved_model.pb").read_bytes())
        untrusted.check_graph(graph)
        return tf.saved_model.load(str(path))


def _open_saved_model(path: Path) -> Replay:
    from tasks.quiet_tf import tf

    loaded = _load_saved_model(path)
    signature = loaded.signatures[SERVING]

    def replay(photos: Photos) -> Answers:
        answers: Answers = signature(tf.constant(photos.squares.astype(np.float32)))[ANSWER].numpy()
        return answers

    replay.loaded = loaded  # type: ignore[attr-defined]  # a signature alone does not keep what it runs on
    return replay


def _open_from_bytes(path: Path) -> Replay:
    from tasks.quiet_tf import tf

    loaded = _load_saved_model(path)
    signature = loaded.signatures[FROM_BYTES]
    columns = signature.structured_outputs[ANSWER].shape[1]

    def answer(content: bytes) -> Answers:
        try:
            # NaN is for what it cannot read: what it reads and has no answer for is wrong.
            answers: Answers = np.nan_to_num(signature(tf.constant([content]))[ANSWER].numpy(), nan=np.inf)
        except tf.errors.InvalidArgumentError:
            return np.full((1, columns), np.nan, np.float32)
        return answers

    # One by one: a file that cannot be read would take the others of its batch with it.
    def replay(photos: Photos) -> Answers:
        return np.concatenate([answer(content) for content in photos.contents])

    replay.loaded = loaded  # type: ignore[attr-defined]
    return replay


def _open_litert(path: Path) -> Replay:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=available_processors())
    interpreter.allocate_tensors()  # here, where it may say that it computes with XNNPACK
    answer = interpreter.get_signature_runner()
    return lambda photos: answer(**{IMAGES: photos.squares.astype(np.float32)})[ANSWER]


def _open_openvino(path: Path) -> Replay:
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",  # left to itself it takes bfloat16 where the processor has it
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": available_processors(),
    }
    compiled = openvino_core().compile_model(path, "CPU", hints)
    return lambda photos: np.array(compiled(photos.squares.astype(np.float32))[ANSWER])


def _open_onnx(path: Path) -> Replay:
    with untrusted.looking_into(path):
        model = importlib.import_module("onnx").load(path, load_external_data=False)
        untrusted.check_onnx(model)
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = available_processors()
    options.log_severity_level = 3  # errors
    # Its threads would wait for the next call busily, and slow whatever else runs meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime().InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda photos: np.asarray(session.run([ANSWER], {IMAGES: photos.squares.astype(np.float32)})[0])
