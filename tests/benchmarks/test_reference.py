import hashlib
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from benchmarks import reference
from benchmarks.reference import build_model, compile_model, fit
from tasks.backbone import backbone
from tasks.image_table import ImageRow, write_images
from tasks.images import judge
from tasks.quiet_tf import Model, keras, tf
from tasks.sources.synthetic import draw
from tests.conftest import ROOT
from tests.tasks.conftest import COMMITTED, working_in

UNFROZEN_LAYERS = 3  # the last convolution, with its normalization and activation: quick to compile
SPLITS = ("train", "train", "train", "val")  # in turn
yaml = YAML(typ="safe", pure=True)


def recipe(**changes: dict[str, Any]) -> reference.Params:
    """The committed parameters with sections changed."""
    params: reference.Params = yaml.load(ROOT / "params.yaml")
    for section, keys in changes.items():
        params[section] |= keys
    return params


def write_photos(root: Path) -> list[ImageRow]:
    """Write drawn pictures and a TIFF below `photos`, and the table of them, the unfit ones quarantined."""
    tiff = io.BytesIO()
    Image.effect_noise((96, 96), 60).save(tiff, "TIFF")
    files = [(record.path, record.label, record.content) for record in draw(44)]
    rows: list[ImageRow] = []
    for path, label, content in [*files, ("synthetic/dog/last.jpg", "dog", tiff.getvalue())]:
        (root / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "photos" / path).write_bytes(content)
        verdict = judge(content, min_side_px=32, max_pixels=10**6, blank_max_stddev=2.0)
        split = "" if verdict.reason else SPLITS[len(rows) % 4]
        photo_id = hashlib.sha256(content).hexdigest()
        reason, form = verdict.reason, verdict.format
        rows.append(ImageRow(id=photo_id, path=path, label=label, reason=reason, split=split, format=form))
    write_images(rows, root / "images.parquet")
    return rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ImageRow]]:
    """The folder in which the program ran, both stages for an epoch each, and the table it was given."""
    root = tmp_path_factory.mktemp("reference")
    rows = write_photos(root)
    (root / "weights.json").write_text("{}")
    backbone(params=COMMITTED.backbone, weights_json=root / "weights.json", out_dir=root / "backbone")
    params = recipe(
        image={"size_px": 96},
        train_head={"epochs": 1, "batch_size": 8, "hidden_units": [4]},
        fine_tune={"epochs": 1, "batch_size": 8, "unfrozen_layers": UNFROZEN_LAYERS, "learning_rate": 0.01},
    )
    yaml.dump(params, root / "params.yaml")
    paths = ["--params=params.yaml", "--photos=photos", "--images=images.parquet", "--backbone-dir=backbone"]
    options = ["--out=out.json", "--model-out=model.h5", "--seed=7"]
    with working_in(root), pytest.MonkeyPatch.context() as patch:  # here, where TensorFlow is at hand
        patch.setattr(sys, "argv", ["reference", *paths, *options])
        reference.main()
    return root, rows


def test_report_says_what_was_trained_on_and_how_well_it_went(finished: tuple[Path, list[ImageRow]]) -> None:
    root, rows = finished
    report = json.loads((root / "out.json").read_text())
    readable = [row.split for row in rows if row.split and row.format != "TIFF"]
    assert report["images"] == {"train": readable.count("train"), "val": readable.count("val"), "unreadable": 1}
    assert "WEBP" in {row.format for row in rows if row.split}
    assert report["seed"] == 7
    accuracies = report["val_accuracies"]
    assert {name: len(values) for name, values in accuracies.items()} == {"stage1": 1, "stage2": 1}
    correct = [accuracy * readable.count("val") for values in accuracies.values() for accuracy in values]
    assert correct == pytest.approx([round(count) for count in correct], abs=1e-3)


def test_last_layers_moved_with_their_statistics_and_the_others_did_not(finished: tuple[Path, list[ImageRow]]) -> None:
    root, _ = finished
    with h5py.File(root / "backbone" / "weights.h5") as before, h5py.File(root / "model.h5") as file:
        after = file["model_weights/mobilenetv2_1.00_96"]
        assert np.array_equal(after["Conv1/kernel"], before["Conv1/kernel"])
        assert np.array_equal(after["block_5_project_BN/moving_mean"], before["block_5_project_BN/moving_mean"])
        assert not np.array_equal(after["Conv_1/kernel"], before["Conv_1/kernel"])
        assert not np.array_equal(after["Conv_1_bn/moving_mean"], before["Conv_1_bn/moving_mean"])


def small_base() -> Model:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))


def answering(bias: float, **head: object) -> Model:
    """A compiled model whose last layer gives its bias, whatever it is shown."""
    params = recipe(train_head={"hidden_units": [], **head})
    model = build_model(small_base(), params, classes=2)
    kernel, biases = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 0, biases + bias])
    compile_model(model, params["train_head"])
    return model


def test_a_logit_above_zero_is_the_second_class() -> None:
    images = np.zeros((3, 8, 8, 3), np.float32)
    loss, accuracy = answering(0.3, output="logit").evaluate(images, np.ones(3), verbose=0)
    assert (accuracy, loss) == (1.0, pytest.approx(math.log1p(math.exp(-0.3)), rel=1e-5))
    loss, accuracy = answering(-0.3, output="sigmoid").evaluate(images, np.ones(3), verbose=0)
    assert (accuracy, loss) == (0.0, pytest.approx(math.log1p(math.exp(0.3)), rel=1e-5))


def test_softmax_has_an_output_a_class() -> None:
    model = answering(0.0, output="softmax")
    assert model.output_shape == (None, 2)
    assert model.predict(np.zeros((1, 8, 8, 3)), verbose=0) == pytest.approx(0.5)


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (None, 4)])
def test_patience_stops_early(patience: int | None, epochs: int) -> None:
    model = answering(5.0, output="sigmoid")
    training = recipe(train_head={"epochs": 4, "stop_patience": patience, "monitor": "val_accuracy"})["train_head"]
    ones = tf.data.Dataset.from_tensors((np.zeros((2, 8, 8, 3)), np.ones(2)))
    assert fit(model, ones, ones, training) == [1.0] * epochs  # as good as can be from the first epoch on


def test_augmentation_has_the_layers_that_are_asked_for() -> None:
    off = dict.fromkeys(("rotation_degrees", "zoom", "shift", "shear_degrees", "contrast"), 0.0)
    assert reference.build_augmentation({"flip": False, "fill": "nearest", **off}) == []
    flip, *others = reference.build_augmentation({"flip": True, "fill": "nearest", **dict.fromkeys(off, 0.1)})
    assert flip.mode == "horizontal"
    assert [type(layer).__name__ for layer in others] == [
        *("RandomRotation", "RandomTranslation", "RandomZoom", "RandomShear", "RandomContrast"),
    ]
    assert {layer.fill_mode for layer in others[:-1]} == {"nearest"}
    [rotation] = reference.build_augmentation({"flip": False, "fill": "reflect", **off, "rotation_degrees": 10.0})
    assert np.multiply(rotation.factor, 360) == pytest.approx([-10, 10])


def test_a_recipe_it_would_not_follow_is_refused(tmp_path: Path) -> None:
    yaml.dump(recipe(train_head={"schedule": "cosine"}), tmp_path / "params.yaml")
    with pytest.raises(SystemExit, match=r"train_head\.schedule is 'cosine'"):
        reference.read_params(tmp_path / "params.yaml")
