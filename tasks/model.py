"""The network: backbone, freeze boundary, head, classifier."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.backbone import read_origin, read_weights
from tasks.quiet_tf import Model, Tensor, keras
from tasks.stage import PawlineError

BACKBONES: dict[str, Callable[..., Any]] = {"MobileNetV2": keras.applications.MobileNetV2}
IMAGE, SCALE = "image", "scale"


class Boundary(NamedTuple):
    """Where the backbone is cut into the part that stays frozen and the tail that stage 2 trains.

    Attributes:
        layer: Name of the layer whose output is the boundary tensor; the input layer when nothing stays frozen.
        tensor: The symbolic boundary tensor, shape [batch, ...].
        position: The layer's place in the backbone.
    """

    layer: str
    tensor: Tensor
    position: int


def build_backbone(name: str, size_px: int) -> Model:
    """Build a backbone with random weights and its input scaling inside.

    Returns:
        A Keras model from images, float32 [batch, size_px, size_px, 3] in 0..255, to its last feature map. Its
        layers are the backbone's own, after the input and the scaling to [-1, 1] that MobileNetV2 was trained with
        (Sandler et al. 2018; keras.applications.mobilenet_v2.preprocess_input).
    """
    image = keras.Input((size_px, size_px, 3), name=IMAGE)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name=SCALE)(image)
    backbone = BACKBONES[name](include_top=False, weights=None, input_tensor=scaled)
    return keras.Model(image, backbone.output, name=name)


def load_backbone(backbone_dir: Path, size_px: int) -> Model:
    """Build the backbone of models/backbone/ with its weights."""
    backbone = build_backbone(read_origin(backbone_dir)["name"], size_px)
    assign_weights(backbone, read_weights(backbone_dir / "weights.h5"))
    return backbone


def assign_weights(backbone: Model, weights: Mapping[str, np.ndarray]) -> None:
    """Set every weight of the backbone by its path, such as `Conv1/kernel`.

    Raises:
        PawlineError: If a tensor is missing, left over or of another shape.
    """
    variables = {variable.path: variable for variable in backbone.weights}
    wrong = sorted(variables.keys() ^ weights.keys())
    wrong += sorted(path for path in variables.keys() & weights.keys() if variables[path].shape != weights[path].shape)
    if wrong:
        raise PawlineError(
            f"the weights do not fit {backbone.name}: {len(wrong)} of {len(variables)} tensors are missing, left over "
            f"or of another shape, such as {wrong[0]}; choose other weights with backbone.source"
        )
    for path, variable in variables.items():
        variable.assign(weights[path])


def freeze_boundary(backbone: Model, unfrozen_layers: int) -> Boundary:
    """Find the last single tensor of the graph at or before the first of the last `unfrozen_layers` layers.

    Layers between the boundary and the first unfrozen one (in a block with a shortcut, say) belong to the tail but
    stay frozen. With all layers unfrozen, or all but the input, the boundary is the image itself.
    """
    layers = backbone.layers
    first_unfrozen = len(layers) - unfrozen_layers
    for position in range(first_unfrozen, 1, -1):
        made_before = {id(layer.output): index for index, layer in enumerate(layers[:position])}
        crossing = {id(tensor) for layer in layers[position:] for tensor in _as_list(layer.input)} & made_before.keys()
        if len(crossing) == 1:
            index = made_before[crossing.pop()]
            if layers[index].name != SCALE:  # a scaled image says no more than the image, in four times the bytes
                return Boundary(layers[index].name, layers[index].output, index)
    return Boundary(IMAGE, backbone.input, 0)


def unfreeze(backbone: Model, unfrozen_layers: int) -> None:
    """Make the last layers trainable and freeze the rest and every BatchNormalization layer.

    BatchNormalization stays frozen because Keras 3's `fit` passes `training=True` down whatever the backbone was
    called with (keras-team/keras issue 20285), and an unfrozen layer then runs on the statistics of a batch.
    """
    layers = backbone.layers
    for position, layer in enumerate(layers):
        is_last = position >= len(layers) - unfrozen_layers
        layer.trainable = is_last and not isinstance(layer, keras.layers.BatchNormalization)


def build_tail(backbone: Model, boundary: Boundary, head: Model) -> Model:
    """Build what stage 2 trains: the boundary tensor to probabilities, sharing its layers with the classifier."""
    return keras.Model(boundary.tensor, head(pool(backbone.output)), name="tail")


def build_classifier(backbone: Model, head: Model) -> Model:
    """Build the whole network: images, uint8 or float of 0..255 [batch, size, size, 3], to probabilities."""
    return keras.Model(backbone.input, head(pool(backbone.output)), name="classifier")


def pool(feature_map: Tensor) -> Tensor:
    """Average a feature map over its height and width."""
    return keras.layers.GlobalAveragePooling2D(name="pool")(feature_map)


def _as_list(tensors: Tensor | list[Tensor]) -> list[Tensor]:
    return tensors if isinstance(tensors, list) else [tensors]
