"""The network: where it is cut, what trains, what it answers."""

import numpy as np
import pytest

from tasks import backbones, heads, model
from tasks.backbone import read_weights
from tasks.quiet_tf import Model, keras
from tasks.stage import PawlineError
from tests.tasks.conftest import COMMITTED, IMAGE, Run

LAYERS = 154
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
HEAD = COMMITTED.train_head


@pytest.fixture(scope="module")
def network(small_run: Run) -> Model:
    """The backbone with its real weights. Tests do not change its weights."""
    return model.load_backbone(small_run.backbone_dir, IMAGE.size_px)


@pytest.fixture(scope="module")
def theirs(small_run: Run) -> Model:
    """Keras's own network, with the same weights."""
    theirs = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    model.assign_weights(theirs, read_weights(small_run.backbone_dir / "weights.h5"))
    return theirs


@pytest.fixture(scope="module")
def thawed() -> Model:
    """A backbone of which each test says anew what trains."""
    return backbones.build_backbone("MobileNetV2", 96)


def test_weights_and_layers_are_the_backbones_own(network: Model, theirs: Model, small_run: Run) -> None:
    weights = read_weights(small_run.backbone_dir / "weights.h5")
    assert len(weights) == len(network.weights) == 260
    assert all(np.array_equal(variable.numpy(), weights[variable.path]) for variable in network.weights)
    assert [layer.name for layer in network.layers][2:] == [layer.name for layer in theirs.layers][1:]


def test_input_is_scaled_like_kerass_preprocessing(network: Model, theirs: Model) -> None:
    scaled = keras.applications.mobilenet_v2.preprocess_input(IMAGES.astype(np.float32))
    np.testing.assert_allclose(network(IMAGES.astype(np.float32)), theirs(scaled), atol=1e-3)  # of values up to 6


def test_the_last_hundred_layers_are_cut_after_block_5() -> None:
    boundary = model.freeze_boundary(backbones.build_backbone("MobileNetV2", 224), 100)
    assert (boundary.layer, boundary.tensor.shape) == ("block_5_add", (None, 28, 28, 32))


@pytest.mark.parametrize(
    ("unfrozen_layers", "layer"),
    [
        (0, "Conv_1_bn"),  # nothing is unfrozen: any cut will do, and the last is the cheapest
        (1, "Conv_1_bn"),
        (3, "block_16_project_BN"),
        (4, "block_16_project"),
        (11, "block_15_add"),
        (12, "block_14_add"),  # block_15_add needs the shortcut too, which crosses every cut inside its block
        (19, "block_14_add"),
        (30, "block_13_project"),
        (152, "Conv1"),
        (153, "image"),  # the first unfrozen layer is Conv1; a scaled image is no better than the image
        (154, "image"),
        (0.65, "block_5_add"),  # the last 100
        (0.001, "Conv_1_bn"),  # none
        ("block_6_expand", "block_5_add"),
        ("Conv1", "image"),
        ("input_layer", "image"),
    ],
)
def test_boundaries(network: Model, unfrozen_layers: int | float | str, layer: str) -> None:
    assert model.freeze_boundary(network, unfrozen_layers).layer == layer


def test_every_boundary_is_before_the_first_unfrozen_layer_and_all_that_crosses(network: Model) -> None:
    first_after: dict[int, str] = {}
    for unfrozen_layers in range(1, LAYERS + 1):
        boundary = model.freeze_boundary(network, unfrozen_layers)
        first_unfrozen = len(network.layers) - unfrozen_layers
        assert boundary.position < max(first_unfrozen, 1)
        assert network.layers[boundary.position].name == boundary.layer
        tail = keras.Model(boundary.tensor, network.output)  # Keras refuses a tail that needs another tensor
        names = {layer.name for layer in tail.layers}
        assert {layer.name for layer in network.layers[max(first_unfrozen, 2) :]} <= names
        first_after[unfrozen_layers] = boundary.layer
    assert first_after[LAYERS - 1] == "image"
    positions = [network.layers.index(network.get_layer(first_after[n])) for n in range(1, LAYERS + 1)]
    assert positions == sorted(positions, reverse=True)


@pytest.mark.parametrize("unfrozen_layers", [1, 15, 60, 100, 152, 154])
def test_the_tail_from_the_boundary_is_the_classifier(network: Model, unfrozen_layers: int) -> None:
    head = heads.build_head(1280, 2, HEAD, output="sigmoid")
    boundary = model.freeze_boundary(network, unfrozen_layers)
    at_boundary = keras.Model(network.input, boundary.tensor)(IMAGES.astype(np.float32))
    probs = model.build_tail(network, boundary, head, pooling="average")(at_boundary)
    classifier = model.build_classifier(network, head, pooling="average", output="sigmoid")
    np.testing.assert_allclose(probs, classifier(IMAGES), atol=1e-5)


@pytest.mark.parametrize(
    ("unfrozen", "message"),
    [
        (155, "is 155: MobileNetV2 has 154 layers, so 0 to 154 are allowed"),
        ("scale", "is 'scale': MobileNetV2 has no such layer; did you mean .*"),  # ours, not the backbone's
    ],
)
def test_layers_that_are_not_there(network: Model, unfrozen: int | str, message: str) -> None:
    for find in (model.freeze_boundary, model.unfreeze, model.count_unfrozen):
        with pytest.raises(PawlineError, match=rf"^fine_tune\.unfrozen_layers {message}$"):
            find(network, unfrozen)


def test_unfreeze_takes_a_share_or_a_name_too(thawed: Model) -> None:
    trained = {}
    for unfrozen in (100, 0.65, "block_6_expand", 0.001):
        model.unfreeze(thawed, unfrozen)
        trained[unfrozen] = [variable.path for variable in thawed.trainable_weights]
    assert trained[100] == trained[0.65] == trained["block_6_expand"]
    assert trained[100][0] == "block_6_expand/kernel"
    assert trained[0.001] == []


@pytest.mark.parametrize("unfrozen_layers", [0, 1, 30, 100, 154])
def test_the_last_layers_train_but_for_batch_normalization(thawed: Model, theirs: Model, unfrozen_layers: int) -> None:
    model.unfreeze(thawed, unfrozen_layers)
    last = theirs.layers[len(theirs.layers) - unfrozen_layers :]
    expected = {
        f"{layer.name}/{weight.name}"
        for layer in last
        if not isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
    }
    assert {variable.path for variable in thawed.trainable_weights} == expected
    assert len(expected) == {0: 0, 1: 0, 30: 10, 100: 34, 154: 52}[unfrozen_layers]


def test_the_classifier_takes_uint8_and_float(network: Model) -> None:
    head = heads.build_head(1280, 5, HEAD, output="softmax")
    head.set_weights([np.random.default_rng(0).normal(size=weight.shape) for weight in head.weights])
    classifier = model.build_classifier(network, head, pooling="average", output="softmax")
    probs = classifier.predict_on_batch(IMAGES)
    assert probs.shape == (3, 5)
    assert np.array_equal(probs, classifier.predict_on_batch(IMAGES.astype(np.float32)))
    assert not np.allclose(probs, classifier.predict_on_batch(IMAGES / 255), atol=1e-3)


def test_a_logit_becomes_its_probability_in_the_classifier_alone(network: Model) -> None:
    pooled = keras.Input((1280,))
    head = keras.Model(pooled, keras.layers.Dense(1)(pooled))
    boundary = model.freeze_boundary(network, 30)
    at_boundary = keras.Model(network.input, boundary.tensor)(IMAGES.astype(np.float32))
    logits = np.asarray(model.build_tail(network, boundary, head, pooling="average")(at_boundary))
    classifier = model.build_classifier(network, head, pooling="average", output="logit")
    assert classifier.output_names == ["probabilities"]
    assert logits.std() > 0.01
    np.testing.assert_allclose(classifier(IMAGES), 1 / (1 + np.exp(-logits)), atol=1e-5)
    as_it_is = model.build_classifier(network, head, pooling="average", output="sigmoid")
    np.testing.assert_allclose(as_it_is(IMAGES), logits, atol=1e-4)


def test_pooling() -> None:
    feature_map = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(model.pool(feature_map, "average"), feature_map.mean(axis=(1, 2)), atol=1e-6)
    assert np.array_equal(model.pool(feature_map, "max"), feature_map.max(axis=(1, 2)))


@pytest.mark.parametrize("wrong", ["missing", "left over", "another shape"])
def test_weights_that_do_not_fit(network: Model, small_run: Run, wrong: str) -> None:
    weights = read_weights(small_run.backbone_dir / "weights.h5")
    kernel = weights.pop("Conv1/kernel")
    if wrong == "left over":
        weights |= {"Conv1/kernel": kernel, "Conv0/kernel": kernel}
    elif wrong == "another shape":
        weights["Conv1/kernel"] = kernel[..., :16]
    name = "Conv0/kernel" if wrong == "left over" else "Conv1/kernel"
    with pytest.raises(PawlineError, match=rf"^the weights do not fit MobileNetV2: 1 of 260 .* such as {name}; choose"):
        model.assign_weights(network, weights)
