"""Folded networks compute and learn what the networks themselves do, in the very same variables."""

import numpy as np
import pytest

from tasks import model
from tasks.folded import FoldedConvolution, Precision, fold
from tasks.quiet_tf import Model, keras
from tests.tasks.conftest import IMAGE, Run

layers = keras.layers
INPUTS = np.random.default_rng(0).normal(size=(4, 8, 8, 6)).astype(np.float32)
TARGETS = np.random.default_rng(1).integers(0, 2, (4, 1))


def normalized(tensor: object, **options: bool) -> object:
    """A frozen BatchNormalization with statistics of its own."""
    positive, any_sign = keras.initializers.RandomUniform(0.5, 2.0), keras.initializers.RandomNormal()
    normalization = layers.BatchNormalization(
        trainable=False,
        moving_mean_initializer=any_sign,
        moving_variance_initializer=positive,
        gamma_initializer=positive,
        beta_initializer=any_sign,
        **options,
    )
    return normalization(tensor)


def build(*, folded_alike: bool) -> Model:
    """A network of every convolution that can be folded, or of those that cannot."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((8, 8, 6))
    if folded_alike:
        x = normalized(layers.Conv2D(8, 1)(x))  # a matrix product, with a bias
        x = layers.ReLU(6.0)(x)
        x = normalized(layers.DepthwiseConv2D(3, 2, "same", use_bias=False)(x), scale=False)
        x = normalized(layers.Conv2D(8, 3, padding="same")(x), center=False)
        x = normalized(layers.Conv2D(4, 1, 2, use_bias=False)(x))
    else:
        twice = layers.Conv2D(6, 1)(x)
        x = layers.Add()([normalized(twice), twice])
        x = normalized(layers.Conv2D(8, 1, activation="relu")(x))
        x = normalized(layers.Conv2D(8, 3, groups=2)(x))
        x = normalized(layers.Conv2D(8, 3, dilation_rate=2)(x))
        x = normalized(layers.DepthwiseConv2D(1, depth_multiplier=2)(x))
    x = layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def count_folded(network: Model) -> int:
    return sum(isinstance(layer, FoldedConvolution) for layer in network.layers)


def learn(network: Model) -> list[np.ndarray]:
    network.compile(keras.optimizers.SGD(0.01), "binary_crossentropy")
    for _ in range(3):
        network.train_on_batch(INPUTS, TARGETS)
    return [variable.numpy() for variable in network.trainable_variables]


@pytest.mark.parametrize(("folded_alike", "convolutions"), [(True, 4), (False, 0)])
def test_it_computes_and_learns_the_same(folded_alike: bool, convolutions: int) -> None:
    network, twin = build(folded_alike=folded_alike), build(folded_alike=folded_alike)
    folded = fold(twin, "float32")
    assert count_folded(folded) == convolutions
    np.testing.assert_allclose(folded(INPUTS), network(INPUTS), atol=1e-6)
    before = [variable.numpy() for variable in twin.trainable_variables]
    assert folded.trainable_variables == twin.trainable_variables
    for learnt, expected, untrained in zip(learn(folded), learn(network), before, strict=True):
        np.testing.assert_allclose(learnt, expected, rtol=1e-5, atol=1e-6)
        assert not np.array_equal(learnt, untrained)


def test_a_frozen_convolution_stays() -> None:
    network = build(folded_alike=True)
    network.layers[1].trainable = False
    kernel = network.layers[1].kernel.numpy()
    learn(fold(network, "float32"))
    assert np.array_equal(network.layers[1].kernel.numpy(), kernel)


@pytest.mark.parametrize(("precision", "least", "most"), [("float32", 0.0, 1e-4), ("bfloat16", 1e-4, 0.05)])
def test_the_tail_of_the_backbone(small_run: Run, precision: Precision, least: float, most: float) -> None:
    backbone = model.load_backbone(small_run.backbone_dir, IMAGE.size_px)
    boundary = model.freeze_boundary(backbone, 100)
    model.unfreeze(backbone, 100)
    head = keras.Sequential([keras.Input((1280,)), layers.Dense(1, activation="sigmoid")])
    tail = model.build_tail(backbone, boundary, head, pooling="average")
    folded = fold(tail, precision)
    assert count_folded(folded) == 34  # three in each of blocks 6 to 16, and Conv_1
    assert not [layer for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
    features = np.random.default_rng(0).normal(size=(4, *boundary.tensor.shape[1:])).astype(np.float32)
    difference = np.abs(folded(features) - tail(features)).max()
    assert least <= difference <= most
