"""Engines that run an exported classifier: OpenVINO, LiteRT, Keras. Each is imported when it is asked for.

A runner may be called from several threads at a time. OpenVINO and LiteRT take the images of a call one by one, so that
an answer is the same bytes whatever came with it.
"""

import importlib
import os
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from inference.seam import split_at_share
from tasks.parallel import available_processors
from tasks.runtimes import openvino_core

if TYPE_CHECKING:
    from openvino import Model as Network

Engine = Literal["auto", "openvino", "litert", "keras"]
Precision = Literal["auto", "float32", "bfloat16"]
Images: TypeAlias = npt.NDArray[np.uint8]  # [images, size, size, 3]
Answers: TypeAlias = npt.NDArray[np.float32]  # [images, outputs of the network]
Runner = Callable[[Images], Answers]

# Share of the convolutions that run in float32 when bfloat16 is asked for, as the frozen part does it in training: the
# early depthwise filters cancel most of the signal, so that the rounding of 8 bits is amplified from block to block.
FLOAT32_SHARE = 0.42


def openvino_runner(path: Path, precision: Precision, threads: int | None) -> Runner:
    """Load an OpenVINO IR.

    Args:
        path: Its `.xml`; the `.bin` lies beside it.
        precision: bfloat16 computes the first `FLOAT32_SHARE` in float32 all the same.
        threads: Processors for one call; None is all that this process may use.
    """
    core = openvino_core()
    with _stderr_set_aside():
        network = core.read_model(path)
    size = list(network.input(0).get_partial_shape())[1:]
    network.reshape([1, *size])  # a fixed shape is a quarter faster than a free one, and no larger batch is faster
    parts = split_at_share(network, FLOAT32_SHARE) if precision == "bfloat16" else [network]
    hints = ["f32", "bf16"][: len(parts)]
    compiled = [_compile(core, part, hint, threads) for part, hint in zip(parts, hints, strict=True)]
    dtype = network.input(0).element_type.to_dtype()
    idle: queue.LifoQueue[list[Any]] = queue.LifoQueue()  # requests that no thread is using; one a part of the network

    def run(images: Images) -> Answers:
        try:
            requests = idle.get_nowait()
        except queue.Empty:
            requests = [part.create_infer_request() for part in compiled]
        answers = []
        for image in images.astype(dtype):
            carry = image[None]
            for request in requests:
                carry = next(iter(request.infer([carry], share_inputs=True, share_outputs=True).values()))
            answers.append(carry[0].copy())  # the request's memory is the next image's
        idle.put(requests)
        return np.array(answers, np.float32)

    return run


def litert_runner(path: Path, threads: int | None) -> Runner:
    """Load a LiteRT file.

    Args:
        path: The `.tflite`.
        threads: Processors for one call; None is all that this process may use.
    """
    interpreters = importlib.import_module("ai_edge_litert.interpreter")
    idle: queue.LifoQueue[Any] = queue.LifoQueue()

    def make() -> Any:  # noqa: ANN401 - LiteRT ships no types
        interpreter = interpreters.Interpreter(str(path), num_threads=threads or available_processors())
        interpreter.allocate_tensors()
        return interpreter

    def run(images: Images) -> Answers:
        try:
            interpreter = idle.get_nowait()
        except queue.Empty:
            interpreter = make()
        enter, leave = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
        answers = []
        for image in images.astype(enter["dtype"]):
            interpreter.set_tensor(enter["index"], image[None])
            interpreter.invoke()
            answers.append(interpreter.get_tensor(leave)[0])
        idle.put(interpreter)
        return np.array(answers, np.float32)

    with _stderr_set_aside():
        idle.put(make())  # a broken file shows now
    return run


def keras_runner(path: Path) -> Runner:
    """Load a `.keras` file; this takes the seconds of TensorFlow's import."""
    from tasks import keras_files

    network, turn = keras_files.load_model(path), Lock()

    def run(images: Images) -> Answers:
        with turn:
            return np.asarray(network.predict_on_batch(images), np.float32)

    return run


@contextmanager
def _stderr_set_aside() -> Iterator[None]:
    """Keep what a library's C++ side says of itself, once, off the terminal.

    And what it says of a broken file: unlike after `tasks.silence`, one line of ours says that.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _compile(core: Any, network: "Network", precision: str, threads: int | None) -> Any:  # noqa: ANN401 - as OpenVINO
    hints: dict[str, object] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        processors = available_processors()
        hints |= {"NUM_STREAMS": max(1, processors // threads), "INFERENCE_NUM_THREADS": processors}
    return core.compile_model(network, "CPU", hints)
