"""Model files whose bytes depend on the model alone."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tasks import backbones, heads, keras_files, model, optimization
from tasks.quiet_tf import Model, keras
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.tasks.conftest import COMMITTED, changed


def save_a_network(folder: Path) -> None:
    """A backbone with layers that Keras names by number, and a head on it, in both kinds of file."""
    keras.utils.set_random_seed(0)
    backbone = backbones.build_backbone("MobileNetV3Small", 96)
    head = heads.build_head(576, 2, changed(COMMITTED.train_head, hidden_units=(8,)), output="logit")
    classifier = model.build_classifier(backbone, head, pooling="average", output="logit")
    for name in ("m.keras", "m.h5"):
        keras_files.save_model(classifier, folder / name)


def small_model() -> Model:
    image = keras.Input((4,), name="image")
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="dense")(image), name="small")
    model.compile("adam", "mse")
    return model


def test_two_processes_write_the_same_bytes_whatever_was_built_before(tmp_path: Path) -> None:
    """The second begins with it, and ends long after the first: zip files hold times in steps of two seconds."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    for layer in (keras.layers.ReLU(), keras.layers.Activation("relu")):  # Keras counts these two, as it does any other
        assert re.match("re_lu|activation", layer.name)
    save_a_network(tmp_path / "here")
    code = "import pathlib, sys; from tests.tasks.test_keras_files import *; save_a_network(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, tmp_path / "there"], cwd=ROOT, check=True, timeout=120)
    for file in ("m.keras", "m.h5"):
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes(), file


def test_a_trained_head_leaves_nothing_of_its_training_in_the_classifier(tmp_path: Path) -> None:
    """Whoever loads the file has Keras, and not the metric of `tasks.optimization`."""
    head = small_model()
    optimization.compile_model(head, COMMITTED.train_head, output="softmax", steps_per_epoch=1)
    image = keras.Input((4,))
    keras_files.save_model(keras.Model(image, head(image)), tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        config = archive.read("config.json").decode()
    assert "compile_config" not in config
    assert "tasks." not in config
    assert keras_files.load_model(tmp_path / "m.keras").output.shape == (None, 3)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_what_loads_predicts_equally(tmp_path: Path, suffix: str) -> None:
    model = small_model()
    keras_files.save_model(model, tmp_path / f"m{suffix}")
    loaded = keras_files.load_model(tmp_path / f"m{suffix}")
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert np.array_equal(loaded.predict_on_batch(values), model.predict_on_batch(values))
    assert not loaded.compiled
    assert loaded.output.shape == (None, 3)  # a tensor, not a list of one: layers that follow expect that
    assert [path.name for path in tmp_path.iterdir()] == [f"m{suffix}"]


def test_no_date_and_no_address(tmp_path: Path) -> None:
    keras_files.save_model(small_model(), tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert json.loads(archive.read("metadata.json"))["date_saved"] == "1980-01-01@00:00:00"
        assert archive.namelist() == sorted(archive.namelist())


def test_shared_objects_are_numbered_as_they_appear() -> None:
    config = {"a": {"shared_object_id": 139_999}, "b": [{"shared_object_id": 7}, {"shared_object_id": 139_999}, 1]}
    assert keras_files._normalize(config, {}) == {
        "a": {"shared_object_id": 0},
        "b": [{"shared_object_id": 1}, {"shared_object_id": 0}, 1],
    }


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "m.keras")
    with pytest.raises(PawlineError, match=r"m\.keras is refused: a Lambda is no layer that Pawline builds$"):
        keras_files.load_model(tmp_path / "m.keras")


def test_what_a_kill_left_while_saving_goes_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / "model.keras.unfinished"
    left.mkdir()
    (left / "model.keras").write_bytes(b"half")
    keras_files.save_model(small_model(), tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
