"""The classifier written in the formats that others load, the same bytes for the same classifier.

All but Keras's own are made from one graph: the classifier with its weights as constants (`freeze`).
"""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tasks import keras_files
from tasks.export import image_graph
from tasks.export.onnx_names import rename_by_place
from tasks.export.replay import ANSWER, CONTENTS, FROM_BYTES, IMAGES, PATHS, SERVING
from tasks.params import ImageParams
from tasks.quiet_tf import Model, Tensor, tf
from tasks.runtimes import openvino
from tasks.silence import silence

if TYPE_CHECKING:
    from onnx import ModelProto

Precision: TypeAlias = Literal["float32", "float16", "int8"]
Squares: TypeAlias = npt.NDArray[np.uint8]  # [images, size, size, 3]


class Exporter:
    """Writes one classifier into one folder."""

    def __init__(self, classifier_path: Path, classifier: Model, image: ImageParams, folder: Path) -> None:
        self._classifier_path, self._classifier = classifier_path, classifier
        self._image, self._folder = image, folder

    def write_keras(self) -> None:
        """Copy the classifier's file."""
        shutil.copyfile(self._classifier_path, self._folder / PATHS["keras"])

    def write_h5(self) -> None:
        """Write Keras's older format."""
        with warnings.catch_warnings(action="ignore"), silence():  # that it is older
            keras_files.save_model(self._classifier, self._folder / PATHS["h5"])

    def write_saved_model(self, *, from_bytes: bool) -> None:
        """Write a SavedModel.

        Args:
            from_bytes: Whether it gets a second signature that takes encoded images.
        """
        signatures = {SERVING: self._from_squares} | ({FROM_BYTES: self._from_bytes} if from_bytes else {})
        _save(signatures, self._folder / PATHS["saved_model"])

    def write_litert(self, precision: Precision, calibration: Squares | None = None) -> None:
        """Write a LiteRT file that takes and gives float32, whatever it computes in.

        Args:
            precision: float16: of the weights; int8: of weights and arithmetic, weights with a scale a channel.
            calibration: int8: training photos that show the range of every tensor.
        """
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"), silence():
            _save({SERVING: self._from_squares}, Path(folder))
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SERVING])
            if precision != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if precision == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if calibration is not None:
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.representative_dataset = lambda: _one_by_one(calibration)
            content = converter.convert()
        (self._folder / PATHS[f"litert_{precision}"]).write_bytes(content)

    def write_openvino(self) -> None:
        """Write OpenVINO's intermediate representation, in float32."""
        path = self._folder / PATHS["openvino"]
        path.parent.mkdir()
        with silence():
            converted = openvino().convert_model(self._from_squares.get_concrete_function())
            openvino().save_model(converted, path, compress_to_fp16=False)

    def write_onnx(self) -> None:
        """Write ONNX."""
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"), silence():
            import onnx
            import tf2onnx

            model: ModelProto
            model, _ = tf2onnx.convert.from_graph_def(
                self._frozen.graph.as_graph_def(),
                input_names=[self._frozen.inputs[0].name],
                output_names=[self._frozen.outputs[0].name],
            )
        onnx.save(rename_by_place(model, IMAGES, ANSWER), self._folder / PATHS["onnx"])

    @cached_property
    def _frozen(self) -> Model:
        """The classifier as a function whose weights are constants."""
        spec = tf.TensorSpec((None, *self._classifier.input_shape[1:]), tf.float32, name=IMAGES)
        forward = tf.function(lambda images: self._classifier(images, training=False), autograph=False)
        return convert_variables_to_constants_v2(forward.get_concrete_function(spec))

    @cached_property
    def _from_squares(self) -> Model:
        spec = tf.TensorSpec(self._frozen.inputs[0].shape, tf.float32, name=IMAGES)
        return tf.function(self._answer, input_signature=[spec], autograph=False)

    @cached_property
    def _from_bytes(self) -> Model:
        def answer(contents: Tensor) -> dict[str, Tensor]:
            return self._answer(image_graph.squares(contents, self._image.size_px, self._image.resize))

        spec = tf.TensorSpec((None,), tf.string, name=CONTENTS)
        return tf.function(answer, input_signature=[spec], autograph=False)

    def _answer(self, images: Tensor) -> dict[str, Tensor]:
        # TensorFlow does not hold callers to a signature's height and width; LiteRT drops this.
        return {ANSWER: self._frozen(tf.ensure_shape(images, self._frozen.inputs[0].shape))[0]}


def _save(signatures: dict[str, Model], folder: Path) -> None:
    module = tf.Module()
    module.functions = signatures  # what is saved must hang on something
    # Gradients make no sense without weights to train, and those of EfficientNet's activation cannot be saved.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with silence():
        tf.saved_model.save(module, str(folder), signatures, options)
    (folder / "fingerprint.pb").unlink()  # has a random number in it, and loading does without
    graph = folder / "saved_model.pb"
    graph.write_bytes(SavedModel.FromString(graph.read_bytes()).SerializeToString(deterministic=True))


def _one_by_one(images: Squares) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    for image in images:
        yield {IMAGES: image[None].astype(np.float32)}
