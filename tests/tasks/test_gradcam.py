"""Grad-CAM: the heat is what the paper gives, for every head and pooling; test_backbones.py has every backbone."""

import io
from typing import Literal

import numpy as np
import pytest

from tasks import gradcam, heads, model
from tasks.quiet_tf import Model, keras
from tests.tasks.conftest import COMMITTED, changed

SIZE_PX, CHANNELS = 8, 3
IMAGES = np.random.default_rng(0).integers(0, 256, (5, SIZE_PX, SIZE_PX, 3), np.uint8)
Output = Literal["sigmoid", "logit", "softmax"]


@pytest.fixture(scope="module")
def backbone() -> Model:
    """From images of 8 px to a feature map [batch, 4, 4, 3] without negative values."""
    image = keras.Input((SIZE_PX, SIZE_PX, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 255, name="scale")(image)
    convolution = keras.layers.Conv2D(CHANNELS, 3, strides=2, padding="same", activation="relu", name="convolution")
    network = keras.Model(image, convolution(scaled), name="backbone")
    rng = np.random.default_rng(1)
    network.set_weights([rng.normal(0, 0.5, weight.shape) for weight in network.weights])
    return network


def make_head(classes: int, output: Output, *, hidden_units: tuple[int, ...] = ()) -> Model:
    params = changed(COMMITTED.train_head, hidden_units=hidden_units, activation="gelu")
    head = heads.build_head(CHANNELS, classes, params, output=output)
    rng = np.random.default_rng(2)
    head.set_weights([rng.normal(0, 1, weight.shape) for weight in head.get_weights()])
    return head


def log_odds(head: Model, pooling: model.Pooling, output: Output, chosen: int, feature_maps: np.ndarray) -> np.ndarray:
    """Of one class on each feature map, from what the head says."""
    pooled = feature_maps.mean(axis=(1, 2)) if pooling == "average" else feature_maps.max(axis=(1, 2))
    answers = np.asarray(head(pooled.astype(np.float32)), np.float64)
    if output == "logit":
        return answers[:, 0] if chosen == 1 else -answers[:, 0]
    if output == "sigmoid":
        answers = np.concatenate([1 - answers, answers], axis=1)
    odds: np.ndarray = np.log(answers[:, chosen] / (1 - answers[:, chosen]))
    return odds


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize(("output", "classes"), [("sigmoid", 2), ("logit", 2), ("softmax", 2), ("softmax", 4)])
@pytest.mark.parametrize("hidden_units", [(), (4,)])
def test_the_heat_is_the_papers(
    backbone: Model, pooling: model.Pooling, output: Output, classes: int, hidden_units: tuple[int, ...]
) -> None:
    """Against differences: nudge each value of the feature map, and see what becomes of the log-odds."""
    head = make_head(classes, output, hidden_units=hidden_units)
    classifier = model.build_classifier(backbone, head, pooling=pooling, output=output)
    chosen = np.array([0, 1, 1, classes - 1, 0])
    heat = gradcam.class_activations(classifier, IMAGES, chosen)
    assert heat.dtype == np.float32
    feature_maps = np.asarray(backbone(IMAGES.astype(np.float32)), np.float64)
    nudges = 1e-3 * np.eye(feature_maps[0].size).reshape(-1, *feature_maps[0].shape)
    expected = []
    for feature_map, index in zip(feature_maps, chosen.tolist(), strict=True):
        more, less = (log_odds(head, pooling, output, index, feature_map + nudge) for nudge in (nudges, -nudges))
        gradient = ((more - less) / 2e-3).reshape(feature_map.shape)
        expected.append(np.maximum((gradient.mean(axis=(0, 1)) * feature_map).sum(axis=-1), 0))
    assert np.max(expected) > 0
    np.testing.assert_allclose(heat, [plain / (plain.max() or 1) for plain in expected], atol=0.02)


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_a_probability_of_one_has_its_heat(backbone: Model, output: Output) -> None:
    heat = []
    for bias in (0.0, 60.0):
        head = make_head(2, output)
        for_second, against_it = np.ones((CHANNELS, 1)), np.zeros((CHANNELS, 1 if output == "softmax" else 0))
        biases = [0.0, bias][-head.output_shape[-1] :]
        head.set_weights([np.concatenate([against_it, for_second], axis=1), np.array(biases)])
        classifier = model.build_classifier(backbone, head, pooling="average", output=output)
        heat.append(gradcam.class_activations(classifier, IMAGES, np.ones(5, np.int64)))
    assert np.asarray(classifier(IMAGES.astype(np.float32)))[:, -1].min() == 1
    assert heat[1].max() == 1
    np.testing.assert_allclose(heat[1], heat[0], atol=1e-5)


def test_no_heat_where_nothing_speaks_for_the_class(backbone: Model) -> None:
    head = make_head(2, "sigmoid")
    head.set_weights([np.ones((CHANNELS, 1)), np.zeros(1)])  # more of anything is class 1
    classifier = model.build_classifier(backbone, head, pooling="average", output="sigmoid")
    heat = gradcam.class_activations(classifier, np.stack([IMAGES[0], IMAGES[0]]), np.array([0, 1]))
    assert not heat[0].any()
    assert heat[1].max() == 1


def test_any_number_of_images(backbone: Model) -> None:
    classifier = model.build_classifier(backbone, make_head(2, "sigmoid"), pooling="average", output="sigmoid")
    many = np.concatenate([IMAGES] * 14)
    heat = gradcam.class_activations(classifier, many, np.ones(70, np.int64))
    assert np.array_equal(heat[65:], gradcam.class_activations(classifier, IMAGES, np.ones(5, np.int64)))
    assert gradcam.class_activations(classifier, IMAGES[:0], np.ones(0, np.int64)).shape == (0, 4, 4)


def test_an_explanation_is_the_overlay_as_a_jpeg(backbone: Model) -> None:
    classifier = model.build_classifier(backbone, make_head(2, "sigmoid"), pooling="average", output="sigmoid")
    classes = np.ones(5, np.int64)
    jpegs = gradcam.explain(classifier, IMAGES, classes, quality=95)
    activations = gradcam.class_activations(classifier, IMAGES, classes)
    for jpeg, image, activation in zip(jpegs, IMAGES, activations, strict=True):
        expected = io.BytesIO()
        gradcam.overlay(image, activation).save(expected, "JPEG", quality=95)
        assert jpeg == expected.getvalue()
    assert sum(map(len, gradcam.explain(classifier, IMAGES, classes, quality=10))) < sum(map(len, jpegs))


def test_the_overlay_shows_heat_and_photo() -> None:
    stripes = np.full((64, 64, 3), 64, np.uint8)
    stripes[::2] = 192
    activation = np.zeros((4, 4), np.float32)
    activation[:, 2:] = 1
    shown = gradcam.overlay(stripes, activation)
    assert (shown.mode, shown.size) == ("RGB", (64, 64))
    pixels = np.asarray(shown).astype(float)
    cold, hot = pixels[:, :16].mean(axis=(0, 1)), pixels[:, 48:].mean(axis=(0, 1))
    assert hot[0] > hot[2] + 50  # from red to yellow
    assert hot.mean() > cold.mean() + 20
    for part in (pixels[:, :16], pixels[:, 48:]):
        assert part[::2].mean() > part[1::2].mean() + 50  # the photo is still there
    middle = pixels[0, :, 0]
    assert np.abs(np.diff(middle)).max() < 40  # no steps where the places of the feature map meet
