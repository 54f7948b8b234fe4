"""The network: backbone, freeze boundary, tail, classifier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tasks import params
from tasks.backbone import read_origin, read_weights
from tasks.backbones import IMAGE, SCALING_LAYERS, build_backbone
from tasks.quiet_tf import Model, Tensor, keras
from tasks.stage import PawlineError

Pooling = Literal["average", "max"]
POOLING_LAYERS = {"average": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}


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


def load_backbone(backbone_dir: Path, size_px: int) -> Model:
    """Build the backbone of models/backbone/ with its weights."""
    origin = read_origin(backbone_dir)
    backbone = build_backbone(origin["name"], size_px, origin["width"])
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


def count_unfrozen(backbone: Model, unfrozen: int | float | str) -> int:
    """Return how many of the last layers are meant by a count, a share (rounded) or the first one's name.

    Raises:
        PawlineError: There are not as many layers, or none of that name.
    """
    own = [layer.name for layer in backbone.layers[1:] if layer.name not in SCALING_LAYERS]
    return params.count_unfrozen(["input_layer", *own], unfrozen, backbone.name)  # Keras's name of our `image`


def freeze_boundary(backbone: Model, unfrozen: int | float | str) -> Boundary:
    """Find the last single tensor of the graph at or before the first unfrozen layer.

    Layers between the boundary and the first unfrozen one (in a block with a shortcut, say) belong to the tail but
    stay frozen. Where no layer before the cut has weights, the boundary is the image itself: a scaled or padded image
    says no more than the image, in four times the bytes.
    """
    layers = backbone.layers
    first_unfrozen = len(layers) - count_unfrozen(backbone, unfrozen)
    first_with_weights = next(position for position, layer in enumerate(layers) if layer.weights)
    for position in range(first_unfrozen, first_with_weights, -1):
        made_before = {id(layer.output): index for index, layer in enumerate(layers[:position])}
        crossing = {id(tensor) for layer in layers[position:] for tensor in _as_list(layer.input)} & made_before.keys()
        if len(crossing) == 1:
            index = made_before[crossing.pop()]
            return Boundary(layers[index].name, layers[index].output, index)
    return Boundary(IMAGE, backbone.input, 0)


def unfreeze(backbone: Model, unfrozen: int | float | str) -> None:
    """Make the last layers trainable and freeze the rest and every BatchNormalization layer.

    BatchNormalization stays frozen because Keras 3's `fit` passes `training=True` down whatever the backbone was
    called with (keras-team/keras issue 20285), and an unfrozen layer then runs on the statistics of a batch.
    """
    layers = backbone.layers
    first_unfrozen = len(layers) - count_unfrozen(backbone, unfrozen)
    for position, layer in enumerate(layers):
        layer.trainable = position >= first_unfrozen and not isinstance(layer, keras.layers.BatchNormalization)


def build_tail(backbone: Model, boundary: Boundary, head: Model, *, pooling: Pooling) -> Model:
    """Build what stage 2 trains: the boundary tensor to what the head gives, sharing its layers with the classifier."""
    return keras.Model(boundary.tensor, head(pool(backbone.output, pooling)), name="tail")


def build_classifier(
    backbone: Model, head: Model, *, pooling: Pooling, output: Literal["sigmoid", "logit", "softmax"]
) -> Model:
    """Build the whole network: images, uint8 or float of 0..255 [batch, size, size, 3], to probabilities.

    Args:
        backbone: Images to a feature map.
        head: Pooled vectors to `output`.
        pooling: How a feature map becomes a vector.
        output: What the head gives; a logit becomes the probability that it stands for.
    """
    answer = head(pool(backbone.output, pooling))
    if output == "logit":
        answer = keras.layers.Activation("sigmoid", name="probabilities")(answer)
    return keras.Model(backbone.input, answer, name="classifier")


def pool(feature_map: Tensor, pooling: Pooling) -> Tensor:
    """Reduce a feature map [batch, height, width, channels] to its average or maximum, [batch, channels]."""
    return POOLING_LAYERS[pooling](name="pool")(feature_map)


def _as_list(tensors: Tensor | list[Tensor]) -> list[Tensor]:
    return tensors if isinstance(tensors, list) else [tensors]
