"""The backbones: networks of keras.applications without their top, that take images of 0..255 as they are."""

from collections.abc import Callable
from typing import Any

from tasks.quiet_tf import Model, Tensor, keras, tf

BACKBONES: dict[str, Callable[..., Any]] = {
    "MobileNetV2": keras.applications.MobileNetV2,
    "MobileNetV3Small": keras.applications.MobileNetV3Small,
    "MobileNetV3Large": keras.applications.MobileNetV3Large,
    "EfficientNetV2B0": keras.applications.EfficientNetV2B0,
    "ResNet50": keras.applications.ResNet50,
    "VGG16": keras.applications.VGG16,
    "VGG19": keras.applications.VGG19,
    "InceptionV3": keras.applications.InceptionV3,
}
IMAGE = "image"
SCALING_LAYERS = ("blue", "green", "red", "bgr", "scale")  # ours, between the image and the backbone's own layers
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


def build_backbone(name: str, size_px: int, width: float = 1.0) -> Model:
    """Build a backbone with random weights and its input scaling inside.

    Args:
        name: One of `BACKBONES`.
        size_px: Side of its images.
        width: As in `build_without_top`.

    Returns:
        A Keras model from images, float32 [batch, size_px, size_px, 3] in 0..255, to its last feature map. Its layers
        are the image, those of `SCALING_LAYERS` that the backbone needs, and the backbone's own from its second on.
    """
    image = keras.Input((size_px, size_px, 3), name=IMAGE)
    if name in ("MobileNetV2", "InceptionV3"):
        feature_map = build_without_top(name, width, input_tensor=_scale_to_one(image)).output
    elif name in ("ResNet50", "VGG16", "VGG19"):
        feature_map = build_without_top(name, width, input_tensor=_centre_bgr(image)).output
    else:  # these scale their input themselves
        theirs = build_without_top(name, width, input_shape=(size_px, size_px, 3))
        feature_map = _rebuild(theirs, image).output
    return keras.Model(image, feature_map, name=name)


def build_without_top(name: str, width: float, **options: object) -> Model:
    """Build the network as keras.applications does.

    Args:
        name: One of `BACKBONES`.
        width: What the number of filters is multiplied by; 1.0 for all but MobileNetV2.
        options: More of what keras.applications takes; the weights are random unless they say otherwise.
    """
    # Keras numbers the layers that nobody named, such as `conv2d_5`, through all models of a process: without this,
    # what a layer is called would depend on what was built before. Models that exist are not affected. TensorFlow's
    # strategy would be forgotten with it: a process that trains with others builds one network and no more.
    if not tf.distribute.has_strategy():
        keras.backend.clear_session(free_memory=False)
    widened = {"alpha": width} if name == "MobileNetV2" else {}
    return BACKBONES[name](**{"include_top": False, "weights": None} | widened | options)


def _scale_to_one(image: Tensor) -> Tensor:
    """Scale to [-1, 1] as `preprocess_input` of keras.applications.mobilenet_v2 and .inception_v3 does."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)


def _centre_bgr(image: Tensor) -> Tensor:
    """Turn RGB to BGR and subtract ImageNet's mean, as `preprocess_input` of keras.applications.resnet50 and .vgg16.

    A channel is cut out by declaring the last axis to be the width: `image[..., ::-1]` is not a layer, and a `.h5`
    file with anything else in it does not load.
    """
    channels = [
        keras.layers.Cropping2D(((0, 0), (first, 2 - first)), data_format="channels_first", name=name)(image)
        for name, first in (("blue", 2), ("green", 1), ("red", 0))
    ]
    bgr = keras.layers.Concatenate(name="bgr")(channels)
    return keras.layers.Rescaling(1.0, offset=[-mean for mean in IMAGENET_MEAN_BGR], name="scale")(bgr)


def _rebuild(network: Model, image: Tensor) -> Model:
    """Build the network again on our image, of layers alone and without dropout.

    EfficientNetV2 drops whole blocks at random in training: the frozen part is computed once, without, and so the
    tail must be too; the state of the random numbers would also end up in the saved files. In MobileNetV3 the hard
    sigmoid is a ReLU between an addition and a multiplication that are no layers: a `.h5` file with them does not load.
    """

    def rebuild_layer(operation: Any) -> Any:  # noqa: ANN401 - Keras ships no types
        config = operation.get_config()
        if isinstance(operation, keras.layers.Dropout):
            config["rate"] = 0.0
        elif isinstance(operation, keras.layers.ReLU) and operation.max_value == 6:
            return keras.layers.Activation("hard_sigmoid", name=operation.name)  # relu6(x + 3) / 6
        return type(operation).from_config(config)

    def call(operation: Any, x: Tensor, *others: object, **options: object) -> Tensor:  # noqa: ANN401
        return operation(x, *others, **options) if isinstance(operation, keras.layers.Layer) else x

    return keras.models.clone_model(network, input_tensors=image, clone_function=rebuild_layer, call_function=call)
