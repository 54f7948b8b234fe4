"""Every backbone: Keras's own layers and figures, cut, trained, saved and run by OpenVINO like any other."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tasks import backbones, engines, gradcam, keras_files, model, witness
from tasks.params import WIDTHS, layer_names
from tasks.quiet_tf import Model, Tensor, keras

SIZE_PX = 96
# Squares of random colours. They must differ by more than noise, and be many, or deep layers magnify rounding errors.
MANY_IMAGES = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 3), np.uint8).repeat(16, axis=1).repeat(16, axis=2)
IMAGES = MANY_IMAGES[:4]
FLOAT_IMAGES = IMAGES.astype(np.float32)
PREPROCESSING = {
    "MobileNetV2": keras.applications.mobilenet_v2,
    "MobileNetV3Small": keras.applications.mobilenet_v3,
    "MobileNetV3Large": keras.applications.mobilenet_v3,
    "EfficientNetV2B0": keras.applications.efficientnet_v2,
    "ResNet50": keras.applications.resnet50,
    "VGG16": keras.applications.vgg16,
    "VGG19": keras.applications.vgg19,
    "InceptionV3": keras.applications.inception_v3,
}
BOUNDARIES: dict[str, dict[int | float | str, str]] = {
    "MobileNetV2": {1: "Conv_1_bn", "block_6_expand": "block_5_add", 152: "Conv1", 153: "image", 154: "image"},
    "MobileNetV3Small": {
        1: "conv_1_bn",
        "expanded_conv_8_expand": "expanded_conv_7_add",
        "expanded_conv_8_squeeze_excite_conv": "activation_12",  # the branch around it crosses every later cut
        154: "conv",
        155: "image",
        156: "image",  # Keras's Rescaling is no better than the image
        157: "image",
    },
    "MobileNetV3Large": {1: "conv_1_bn", "expanded_conv_12_expand": "expanded_conv_11_add", 184: "conv", 187: "image"},
    "EfficientNetV2B0": {1: "top_bn", "block6a_expand_conv": "block5e_add", 266: "stem_conv", 267: "image"},
    "ResNet50": {1: "conv5_block3_add", "conv5_block1_1_conv": "conv4_block6_out", 172: "conv1_conv", 173: "image"},
    "VGG16": {1: "block5_conv3", "block5_conv1": "block4_pool", 0.5: "block3_conv2", 17: "block1_conv1", 18: "image"},
    "VGG19": {1: "block5_conv4", "block5_conv1": "block4_pool", 20: "block1_conv1", 21: "image", 22: "image"},
    "InceptionV3": {1: "mixed9", "mixed7": "mixed6", 309: "conv2d", 310: "image", 311: "image"},
}


@pytest.fixture(scope="module", params=backbones.BACKBONES)
def network(request: pytest.FixtureRequest) -> Model:
    """A backbone with random weights whose BatchNormalization layers hold the statistics of our images."""
    network = backbones.build_backbone(request.param, SIZE_PX)
    normalising = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    rng = np.random.default_rng(0)
    for layer in normalising:
        if layer.scale:
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
        layer.beta.assign(rng.normal(0, 0.2, layer.beta.shape))
        layer.momentum = 0.0
    network(MANY_IMAGES.astype(np.float32), training=True)
    for layer in normalising:
        layer.momentum = 0.99
    network.trainable = False
    return network


@pytest.fixture(scope="module")
def feature_map(network: Model) -> Tensor:
    """What the backbone makes of the images."""
    return network(FLOAT_IMAGES)


def assert_close(ours: Any, theirs: Any) -> None:  # noqa: ANN401 - arrays and tensors
    theirs = np.asarray(theirs)
    assert np.std(theirs) > 0
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=1e-3 * np.abs(theirs).max())


def small_head(network: Model) -> Model:
    pooled = keras.Input(network.output_shape[-1:], name="pooled")
    return keras.Model(pooled, keras.layers.Dense(3, activation="softmax", name="probabilities")(pooled), name="head")


def test_layers_weights_and_answers_are_kerass(network: Model, feature_map: Tensor) -> None:
    theirs = backbones.build_without_top(network.name, 1.0, input_shape=(SIZE_PX, SIZE_PX, 3))
    names = [layer.name for layer in theirs.layers]
    assert names == layer_names(network.name)  # as listed for people and for the check of the parameters
    ours = [layer.name for layer in network.layers]
    assert ours[0] == "image"
    assert set(ours[1 : 1 - len(names)]) <= set(backbones.SCALING_LAYERS)
    assert ours[1 - len(names) :] == names[1:]
    assert [variable.path for variable in network.weights] == [variable.path for variable in theirs.weights]
    theirs.set_weights(network.get_weights())
    assert_close(feature_map, theirs(PREPROCESSING[network.name].preprocess_input(FLOAT_IMAGES.copy())))


def test_boundaries(network: Model) -> None:
    names = layer_names(network.name)
    for unfrozen, layer in BOUNDARIES[network.name].items():
        assert model.freeze_boundary(network, unfrozen).layer == layer, unfrozen
    assert model.freeze_boundary(network, 0).layer == BOUNDARIES[network.name][1]
    assert model.count_unfrozen(network, "input_layer") == model.count_unfrozen(network, len(names)) == len(names)
    assert model.count_unfrozen(network, names[-7]) == 7
    assert model.count_unfrozen(network, 0.3) == round(0.3 * len(names))
    assert model.count_unfrozen(network, 0.001) == 0


def test_the_tail_from_the_boundary_is_the_classifier(network: Model, feature_map: Tensor) -> None:
    head = small_head(network)
    expected = head(model.pool(feature_map, "max"))
    for unfrozen in (1, 0.4, len(layer_names(network.name))):
        boundary = model.freeze_boundary(network, unfrozen)
        at_boundary = keras.Model(network.input, boundary.tensor)(FLOAT_IMAGES)
        assert_close(model.build_tail(network, boundary, head, pooling="max")(at_boundary), expected)


def test_grad_cam_finds_the_feature_map(network: Model, feature_map: Tensor) -> None:
    """With one dense layer on the average it is the class activation map of Zhou et al. 2016: no gradient is needed."""
    head = small_head(network)
    heat = gradcam.class_activations(
        model.build_classifier(network, head, pooling="average", output="softmax"), IMAGES, np.array([0, 1, 2, 1])
    )
    kernel, _ = head.get_weights()
    probs = np.asarray(head(model.pool(feature_map, "average")), np.float64)
    for index, chosen in enumerate([0, 1, 2, 1]):
        others = np.delete(np.arange(3), chosen)
        against = kernel[:, others] @ (probs[index, others] / probs[index, others].sum())
        expected = np.maximum(np.asarray(feature_map[index]) @ (kernel[:, chosen] - against), 0)
        np.testing.assert_allclose(heat[index], expected / (expected.max() or 1), atol=1e-3)
    assert heat.max() == 1


def test_training_computes_as_inference_does(network: Model, feature_map: Tensor) -> None:
    """Keras's `fit` says `training=True`: neither statistics of the batch nor dropped blocks may come of it."""
    assert np.array_equal(network(FLOAT_IMAGES, training=True), feature_map)


def test_what_loads_answers_the_same(network: Model, feature_map: Tensor, tmp_path: Path) -> None:
    head = small_head(network)
    classifier = model.build_classifier(network, head, pooling="average", output="softmax")
    with_layers_of_ours = network.name in ("MobileNetV3Small", "VGG16")
    for suffix in (".keras", ".h5") if with_layers_of_ours else (".keras",):
        keras_files.save_model(classifier, tmp_path / f"classifier{suffix}")
        loaded = keras_files.load_model(tmp_path / f"classifier{suffix}")
        assert [layer.name for layer in loaded.layers] == [layer.name for layer in classifier.layers]
        assert_close(loaded(FLOAT_IMAGES), head(model.pool(feature_map, "average")))


def test_openvino_agrees(network: Model, feature_map: Tensor) -> None:
    """In float32, which is what `auto` means for a backbone whose float32 share nobody measured."""
    boundary = model.freeze_boundary(network, 0.4)
    precision: Literal["auto", "float32"] = "float32" if network.name == "MobileNetV2" else "auto"
    chosen = engines.choose_engines(
        network, boundary, pooling="average", engine="openvino", precision=precision
    ).training
    assert chosen.precision == "float32"
    outputs = next(chosen.run([IMAGES]))
    expected = {
        "pooled": model.pool(feature_map, "average"),
        "boundary": keras.Model(network.input, boundary.tensor)(FLOAT_IMAGES),
    }
    assert outputs.keys() == expected.keys()
    for name in expected:
        a, b = (np.asarray(x[name], np.float64).reshape(len(IMAGES), -1) for x in (outputs, expected))
        cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosines.min() >= 0.99999
        assert_close(a, b)


def test_training_the_tail_moves_what_is_unfrozen_and_nothing_else(network: Model) -> None:
    """Comes last: the network is another one afterwards."""
    model.unfreeze(network, 0.4)
    boundary = model.freeze_boundary(network, 0.4)
    before = {variable.path: variable.numpy() for variable in network.weights}
    digests = witness.frozen_digests(network)
    tail = model.build_tail(network, boundary, small_head(network), pooling="average")
    tail.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=True)
    tail.train_on_batch(keras.Model(network.input, boundary.tensor)(FLOAT_IMAGES), np.array([0, 1, 2, 0]))
    moved = {variable.path for variable in network.weights if not np.array_equal(variable, before[variable.path])}
    names = layer_names(network.name)
    last = [network.get_layer(name) for name in names[len(names) - round(0.4 * len(names)) :]]
    normalising = keras.layers.BatchNormalization
    assert moved == {weight.path for layer in last if not isinstance(layer, normalising) for weight in layer.weights}
    assert len(moved) >= 5
    record = witness.check_frozen(digests, witness.frozen_digests(network), what="fine_tune")
    assert record["frozen_tensors"] + len(moved) == len(network.weights)


def test_every_width_of_mobilenetv2_has_the_same_layers() -> None:
    channels = {}
    for width in WIDTHS:
        network = backbones.build_backbone("MobileNetV2", SIZE_PX, width)
        assert [layer.name for layer in network.layers][2:] == layer_names("MobileNetV2")[1:]
        channels[width] = (network.get_layer("Conv1").filters, network.output_shape[-1])
    # Sandler et al. 2018: the last convolution is widened, never narrowed.
    assert channels == {
        0.35: (16, 1280),
        0.5: (16, 1280),
        0.75: (24, 1280),
        1.0: (32, 1280),
        1.3: (40, 1664),
        1.4: (48, 1792),
    }


def test_building_a_backbone_does_no_harm_to_an_earlier_model() -> None:
    image = keras.Input((4,))
    earlier = keras.Model(image, keras.layers.Dense(2, kernel_initializer="ones")(image))
    earlier.compile(keras.optimizers.SGD(0.1), "mse")
    values, labels = np.ones((3, 4), np.float32), np.zeros((3, 2), np.float32)
    answers = earlier.predict_on_batch(values)
    loss = earlier.train_on_batch(values, labels)
    backbones.build_backbone("VGG16", SIZE_PX)
    assert earlier.train_on_batch(values, labels) < loss
    earlier.set_weights([np.ones((4, 2)), np.zeros(2)])
    assert np.array_equal(earlier.predict_on_batch(values), answers)
