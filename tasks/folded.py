"""A network as it is trained: each frozen BatchNormalization folded into the convolution before it.

A frozen BatchNormalization layer multiplies each channel by a constant and adds another. In the convolution's kernel
and a bias they cost nothing, and two passes over the feature map are saved, forward and backward. The kernels stay the
layers' own variables: training the folded network trains the network itself. 1x1 convolutions become matrix products,
which a processor with bfloat16 multiplies several times faster; everything else stays in float32.
"""

from collections import Counter
from typing import Literal

from tasks.quiet_tf import Model, Tensor, keras, tf

Precision = Literal["bfloat16", "float32"]
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def fold(network: Model, precision: Precision) -> Model:
    """Build a network that computes the same and shares every trainable variable.

    Args:
        network: Its BatchNormalization layers are frozen; those that follow nothing but a plain convolution are folded.
        precision: Of the matrix products' factors; sums and results are float32.
    """
    folded = {id(convolution): normalization for normalization, convolution in _pairs(network)}
    gone = {id(normalization) for normalization in folded.values()}

    def clone(layer: Model) -> Model:
        if id(layer) in folded:
            return FoldedConvolution(layer, folded[id(layer)], precision)
        return _Unchanged(name=f"{layer.name}_folded") if id(layer) in gone else layer

    return keras.models.clone_model(network, clone_function=clone)


class FoldedConvolution(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A convolution, depthwise or not, and the frozen BatchNormalization after it.

    Scale and shift are those of Ioffe and Szegedy, "Batch Normalization" (2015), Algorithm 2, with fixed statistics.
    """

    def __init__(self, convolution: Model, normalization: Model, precision: Precision) -> None:
        """Take both layers' variables as they are; the convolution's kernel goes on being trained."""
        super().__init__(name=f"{convolution.name}_folded", trainable=convolution.trainable)
        self._strides, self._padding = list(convolution.strides), convolution.padding.upper()
        self._depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
        self._product = not self._depthwise and tuple(convolution.kernel_size) == (1, 1) and self._strides == [1, 1]
        self._factors = tf.dtypes.as_dtype(precision)
        self.kernel = convolution.kernel
        self.bias = convolution.bias if convolution.use_bias else None
        scale, shift = _scale_and_shift(normalization)
        self._scale, self._shift = tf.constant(scale), tf.constant(shift)
        self.built = True

    def call(self, feature_map: Tensor) -> Tensor:
        """Convolve float32 [batch, height, width, channels]."""
        # A kernel ends in [in, out], a depthwise one in [in, 1].
        kernel = self.kernel * (self._scale[:, None] if self._depthwise else self._scale)
        shift = self._shift if self.bias is None else self._shift + self._scale * self.bias
        if self._depthwise:
            result = tf.nn.depthwise_conv2d(feature_map, kernel, [1, *self._strides, 1], self._padding)
        elif self._product:
            result = self._multiply(feature_map, kernel)
        else:
            result = tf.nn.conv2d(feature_map, kernel, self._strides, self._padding)
        return tf.nn.bias_add(result, shift)

    def _multiply(self, feature_map: Tensor, kernel: Tensor) -> Tensor:
        rows = tf.cast(tf.reshape(feature_map, [-1, kernel.shape[2]]), self._factors)
        product = tf.cast(rows @ tf.cast(kernel[0, 0], self._factors), tf.float32)
        return tf.reshape(product, [-1, *feature_map.shape[1:3], kernel.shape[3]])


class _Unchanged(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """What is left of a folded BatchNormalization; it takes the arguments that one is called with."""

    def call(self, feature_map: Tensor, mask: Tensor | None = None) -> Tensor:
        return feature_map


def _pairs(network: Model) -> list[tuple[Model, Model]]:
    """Return each BatchNormalization that can be folded, and its convolution."""
    made_by = {id(layer.output): layer for layer in network.layers}
    read = Counter(id(tensor) for layer in network.layers for tensor in keras.tree.flatten(layer.input))
    read.update(id(tensor) for tensor in network.outputs)
    return [
        (layer, made_by[id(layer.input)])
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        and _is_plain(made_by.get(id(layer.input)))
        and read[id(layer.input)] == 1
    ]


def _is_plain(layer: Model | None) -> bool:
    """Say whether a layer is a convolution that `FoldedConvolution` computes."""
    return (
        layer is not None
        and type(layer) in CONVOLUTIONS
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and tuple(layer.dilation_rate) == (1, 1)
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "depth_multiplier", 1) == 1
    )


def _scale_and_shift(normalization: Model) -> tuple[Tensor, Tensor]:
    """Return what a frozen BatchNormalization multiplies by and adds, float32 [channels]."""
    scale = 1 / (normalization.moving_variance.numpy() + normalization.epsilon) ** 0.5
    if normalization.scale:
        scale *= normalization.gamma.numpy()
    shift = -normalization.moving_mean.numpy() * scale
    if normalization.center:
        shift += normalization.beta.numpy()
    return scale, shift
