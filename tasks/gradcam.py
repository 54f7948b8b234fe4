"""Where a classifier looked: Grad-CAM (Selvaraju et al. 2017), and its heat laid over the image."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.quiet_tf import Model, Tensor, keras, tf

Images = npt.NDArray[np.uint8]  # [images, size, size, 3]
Activation = npt.NDArray[np.float32]  # [height, width] of the last feature map, 0..1

BATCH_SIZE = 32
COLOURS, BRIGHTEST = "inferno", 0.9  # perceptually uniform, dark where there is no heat; its end is too near white
COLD_SHARE, HOT_SHARE = 0.25, 0.5  # how much of a pixel is the colour of heat, where there is none and where most


def explain(classifier: Model, images: Images, classes: npt.NDArray[np.int64], *, quality: int) -> list[bytes]:
    """Return a JPEG an image, of a quality from 1 to 95: the image under the heat of a class, as below."""
    activations = class_activations(classifier, images, classes)
    return [_as_jpeg(overlay(*pair), quality) for pair in zip(images, activations, strict=True)]


def class_activations(classifier: Model, images: Images, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return how much each place of an image speaks for a class, as the last feature map before pooling has it.

    The gradient is that of the class's log-odds, not of its probability, which has none where it is close to 1.

    Args:
        classifier: As `model.build_classifier` makes it.
        images: As the classifier takes them, of any number.
        classes: The class asked about, for each image; of two classes with one output, 0 and 1.

    Returns:
        float32 [images, height, width] in 0..1, where 1 is the image's strongest place; all 0 where no place speaks
        for the class.
    """
    pool, head = _after_feature_map(classifier)
    to_feature_map, to_logits = keras.Model(classifier.input, pool.input), _without_activation(head)
    batches = [np.zeros((0, *pool.input.shape[1:3]), np.float32)]
    for start in range(0, len(images), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        feature_map = to_feature_map(images[part].astype(np.float32), training=False)
        with tf.GradientTape() as tape:
            tape.watch(feature_map)
            odds = _log_odds(to_logits(pool(feature_map), training=False), classes[part])
        weights = tf.reduce_mean(tape.gradient(odds, feature_map), axis=(1, 2), keepdims=True)
        batches.append(_normalise(tf.nn.relu(tf.reduce_sum(weights * feature_map, axis=-1)).numpy()))
    return np.concatenate(batches)


def overlay(image: Images, activation: Activation) -> Image.Image:
    """Lay the heat over an image, uint8 [size, size, 3]: bright where it speaks for the class, dark elsewhere."""
    from matplotlib import colormaps  # 0.3 s

    size = (image.shape[1], image.shape[0])
    smooth = Image.fromarray(activation.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(smooth), 0, 1)  # bicubic overshoots
    colours = 255 * colormaps[COLOURS](BRIGHTEST * heat)[..., :3]
    share = (COLD_SHARE + (HOT_SHARE - COLD_SHARE) * heat)[..., None]
    gray = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    photo = (image.astype(np.float64) + gray) / 2  # its own colours would pass for heat
    return Image.fromarray((share * colours + (1 - share) * photo).round().astype(np.uint8))


def _as_jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _after_feature_map(classifier: Model) -> tuple[Model, Model]:
    """Return the layer that pools the last feature map, which is the last to take one, and the head after it."""
    position = max(at for at, layer in enumerate(classifier.layers) if _takes_feature_map(layer))
    return classifier.layers[position], classifier.layers[position + 1]


def _takes_feature_map(layer: Any) -> bool:  # noqa: ANN401 - Keras ships no types
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return all(len(tensor.shape) == 4 for tensor in inputs)


def _without_activation(head: Model) -> Model:
    """Copy a head so that it gives logits: what its last layer computes before its activation."""

    def copy(layer: Any) -> Any:  # noqa: ANN401 - Keras ships no types
        config = layer.get_config()
        if layer is head.layers[-1]:
            config["activation"] = None
        return type(layer).from_config(config)

    logits = keras.models.clone_model(head, clone_function=copy)
    logits.set_weights(head.get_weights())
    return logits


def _log_odds(logits: Tensor, classes: npt.NDArray[np.int64]) -> Tensor:
    """Return log p/(1 - p) of a class each, [batch], from logits [batch, 1] (of class 1) or [batch, classes]."""
    if logits.shape[-1] == 1:
        return tf.where(classes == 1, logits[:, 0], -logits[:, 0])
    chosen = tf.one_hot(classes, logits.shape[-1])
    others = tf.where(chosen == 1, -np.inf, logits)
    return tf.reduce_sum(chosen * logits, axis=1) - tf.reduce_logsumexp(others, axis=1)


def _normalise(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    highest: npt.NDArray[np.float32] = maps.max(axis=(1, 2), keepdims=True)
    highest[highest == 0] = 1
    return maps / highest
