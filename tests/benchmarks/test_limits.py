import pytest

from benchmarks import limits
from tasks import backbones, model
from tasks.quiet_tf import keras


def test_operations_of_each_convolution() -> None:
    image = keras.Input((8, 8, 3))
    layers = [keras.layers.Conv2D(4, 3, 2, "same"), keras.layers.DepthwiseConv2D(3, padding="same")]
    network = keras.Model(image, layers[1](layers[0](image)))
    assert limits.count_operations(layers[:1]) == 2 * 4 * 4 * 3 * 3 * 3 * 4
    assert limits.count_operations(layers[1:]) == 2 * 4 * 4 * 3 * 3 * 4
    assert limits.count_operations(network.layers) == limits.count_operations(layers)


def test_operations_of_the_default_backbone() -> None:
    """300 million multiplications at 224 pixels (Sandler et al., "MobileNetV2", 2018, table 4), classifier aside."""
    network = backbones.build_backbone("MobileNetV2", 224)
    whole = limits.count_operations(network.layers)
    assert whole == pytest.approx(2 * 300e6, rel=0.01)
    boundary = model.freeze_boundary(network, 100)
    assert 0.2 * whole < limits.count_operations(network.layers[: boundary.position + 1]) < limits.below_seam(network)
    assert limits.below_seam(network) < 0.6 * whole


def test_a_line_says_how_near_the_limit() -> None:
    part: limits.Part = {"what": "all", "operations": 6e8, "limit_ms": 1.0, "measured_ms": 4.0}
    assert limits.describe(part) == "all: 600 million operations, 4.00 ms an image; at peak 1.00 ms, 25% of it"
