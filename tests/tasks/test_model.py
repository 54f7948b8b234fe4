"""The network: where it is cut, what trains, what it answers."""

from typing import Any

import numpy as np
import pytest

from tasks import heads, model, optimization
from tasks.backbone import read_weights
from tasks.quiet_tf import Model, keras
from tasks.stage import PawlineError
from tests.tasks.conftest import IMAGE, Run

LAYERS = 154
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
HEAD: dict[str, Any] = {"output": "sigmoid", "dropout": 0.2, "seed": 0}


@pytest.fixture(scope="module")
def network(small_run: Run) -> Model:
    """The backbone with its real weights. Tests do not change its weights."""
    return model.load_backbone(small_run.backbone_dir, IMAGE.size_px)


def test_weights_and_layers_are_the_backbones_own(network: Model, small_run: Run) -> None:
    weights = read_weights(small_run.backbone_dir / "weights.h5")
    assert len(weights) == len(network.weights) == 260
    assert all(np.array_equal(variable.numpy(), weights[variable.path]) for variable in network.weights)
    theirs = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    assert [layer.name for layer in network.layers][2:] == [layer.name for layer in theirs.layers][1:]


def test_input_is_scaled_like_kerass_preprocessing(network: Model, small_run: Run) -> None:
    theirs = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    model.assign_weights(theirs, read_weights(small_run.backbone_dir / "weights.h5"))
    scaled = keras.applications.mobilenet_v2.preprocess_input(IMAGES.astype(np.float32))
    np.testing.assert_allclose(network(IMAGES.astype(np.float32)), theirs(scaled), atol=1e-3)  # of values up to 6


def test_the_last_hundred_layers_are_cut_after_block_5() -> None:
    boundary = model.freeze_boundary(model.build_backbone("MobileNetV2", 224), 100)
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
    ],
)
def test_boundaries(network: Model, unfrozen_layers: int, layer: str) -> None:
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
    head = heads.build_head(1280, 2, **HEAD)
    boundary = model.freeze_boundary(network, unfrozen_layers)
    at_boundary = keras.Model(network.input, boundary.tensor)(IMAGES.astype(np.float32))
    probs = model.build_tail(network, boundary, head)(at_boundary)
    np.testing.assert_allclose(probs, model.build_classifier(network, head)(IMAGES), atol=1e-5)


@pytest.mark.parametrize("unfrozen_layers", [0, 1, 30, 100, 154])
def test_the_last_layers_train_but_for_batch_normalization(unfrozen_layers: int) -> None:
    backbone = model.build_backbone("MobileNetV2", 96)
    model.unfreeze(backbone, unfrozen_layers)
    theirs = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3)).layers
    last = theirs[len(theirs) - unfrozen_layers :]
    expected = {
        f"{layer.name}/{weight.name}"
        for layer in last
        if not isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
    }
    assert {variable.path for variable in backbone.trainable_weights} == expected
    assert len(expected) == {0: 0, 1: 0, 30: 10, 100: 34, 154: 52}[unfrozen_layers]


@pytest.mark.parametrize(("output", "classes", "units"), [("sigmoid", 2, 1), ("softmax", 2, 2), ("softmax", 5, 5)])
def test_the_head_gives_probabilities(output: str, classes: int, units: int) -> None:
    head = heads.build_head(1280, classes, output=output, dropout=0.5, seed=3)
    assert (head.input_shape, head.output_shape) == ((None, 1280), (None, units))
    probs = heads.class_probs(np.asarray(head(np.random.default_rng(0).normal(size=(4, 1280)))))
    assert probs.shape == (4, classes)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    same = heads.build_head(1280, classes, output=output, dropout=0.5, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(head.get_weights(), same.get_weights(), strict=True))
    other = heads.build_head(1280, classes, output=output, dropout=0.5, seed=4)
    assert not np.array_equal(head.get_weights()[0], other.get_weights()[0])


def test_class_probs() -> None:
    one = np.array([[0.25], [1.0]], np.float32)
    assert heads.class_probs(one).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    two = np.array([[0.25, 0.75]], np.float32)
    assert heads.class_probs(two).tolist() == two.tolist()


def test_the_classifier_takes_uint8_and_float(network: Model) -> None:
    classifier = model.build_classifier(network, heads.build_head(1280, 5, output="softmax", dropout=0.0, seed=0))
    probs = classifier.predict_on_batch(IMAGES)
    assert probs.shape == (3, 5)
    assert np.array_equal(probs, classifier.predict_on_batch(IMAGES.astype(np.float32)))
    assert not np.allclose(probs, classifier.predict_on_batch(IMAGES / 255), atol=1e-3)


@pytest.mark.parametrize(("output", "classes", "loss"), [("sigmoid", 2, 0.25), ("softmax", 3, 0.25)])
def test_the_loss_fits_the_output(output: str, classes: int, loss: float) -> None:
    """A model whose probability of the label is exp(-1/4) has a loss of 1/4."""
    head = heads.build_head(4, classes, output=output, dropout=0.0, seed=0)
    right = np.exp(-loss)
    kernel, bias = head.get_weights()
    bias[:] = np.log(right / (1 - right)) if output == "sigmoid" else np.log([(1 - right) / 2, right, (1 - right) / 2])
    head.set_weights([kernel * 0, bias])
    optimization.compile_model(head, learning_rate=0.5)
    assert float(head.optimizer.learning_rate) == 0.5
    logs = head.test_on_batch(np.ones((3, 4), np.float32), np.array([1, 1, 1]), return_dict=True)
    assert logs["loss"] == pytest.approx(loss, abs=1e-6)
    assert logs["accuracy"] == 1.0


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
