"""What may be in a file that Keras or h5py is to read: tensors, and layers that Pawline builds. Nothing that is code.

Keras refuses much of this itself, each version a little more; what is said here holds whatever its version.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {CONFIG, "metadata.json", WEIGHTS}
# In a model's configuration: what the eight backbones and the head are made of.
ALLOWED = {
    *("Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Cropping2D", "Dense"),
    *("DepthwiseConv2D", "Dropout", "Functional", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer"),
    *("MaxPooling2D", "Multiply", "Normalization", "ReLU", "Rescaling", "Reshape", "ZeroPadding2D"),
    *("DTypePolicy", "GlorotUniform", "Ones", "VarianceScaling", "Zeros", "__keras_tensor__"),
}
MOST_TIMES = 100  # larger than its bytes in the file may nothing be
SMALL_BYTES = 1 << 20  # but for what is small anyway


class RefusedError(ValueError):
    """A file holds what has no business in it."""


def check_archive(path: Path) -> None:
    """Look into a `.keras` file: its members, what its layers are, and its weights.

    Raises:
        RefusedError: It holds anything else.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if sorted(names) != sorted(MEMBERS):
            strange = sorted(set(names) ^ MEMBERS) or sorted(names)
            raise RefusedError(f"not the members of a .keras file: {strange[0]!r}")
        for member in archive.infolist():
            _check_size(member.filename, member.file_size, member.compress_size)
        contents = {name: archive.read(name) for name in names}  # to their ends: the checksums, too
    check_config(json.loads(contents[CONFIG]))
    with h5py.File(io.BytesIO(contents[WEIGHTS]), "r") as file:
        check_tensors(file)


def check_hdf5(path: Path) -> None:
    """Look into a `.h5` file: its tensors and, if it holds a model, what its layers are.

    Raises:
        RefusedError: It holds anything else.
    """
    with h5py.File(path, "r") as file:
        check_tensors(file)
        if "model_config" in file.attrs:
            check_config(json.loads(file.attrs["model_config"]))


def check_config(config: Any) -> None:  # noqa: ANN401 - any JSON value
    """Allow layers that Pawline builds, and what they are made of; a custom object or a lambda is none of them.

    Raises:
        RefusedError: There is another.
    """
    for described in _objects(config):
        name, module = described["class_name"], described.get("module") or "keras"
        if name not in ALLOWED or str(module).split(".")[0] not in ("keras", "builtins"):
            raise RefusedError(f"a {name} is no layer that Pawline builds")


def _objects(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - as above
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "class_name" in one:
                yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def check_tensors(file: h5py.File) -> None:
    """Allow groups, and numbers that lie in this very file.

    Raises:
        RefusedError: There is a link, or a dataset that lies elsewhere, holds no numbers or is larger than its bytes.
    """
    waiting, seen = [file["/"]], set()
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise RefusedError(f"{name} is a link out of its place")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise RefusedError(f"{name} is there twice")
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append(item)
            else:
                _check_dataset(name, item)


def _check_dataset(name: str, item: Any) -> None:  # noqa: ANN401 - h5py ships no types
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biufV" or item.dtype.fields:
        raise RefusedError(f"{name} holds no numbers")
    if item.external or item.is_virtual:
        raise RefusedError(f"{name} lies in another file")
    _check_size(name, item.nbytes, item.id.get_storage_size())


def _check_size(name: str, claimed: int, stored: int) -> None:
    if claimed > SMALL_BYTES and claimed > MOST_TIMES * stored:
        raise RefusedError(f"{name} would be {claimed:,} bytes, of {stored:,} in the file")
