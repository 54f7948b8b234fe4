"""Models and weights that somebody could hand over: lambdas, pickles, bombs, files that point at others."""

import base64
import io
import json
import marshal
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Make = Callable[[Path], object]
CANARY = "it-ran"
HUGE = 1 << 42
BOMB_BYTES = 256 << 20
BOMB = [bytes(1 << 20)] * (BOMB_BYTES >> 20)


class Touch:
    """Pickles as a call that makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(CANARY),)


def made_of(layer: dict[str, Any], *, weights: Iterable[bytes] = (), more: dict[str, bytes] | None = None) -> Make:
    """A `.keras` file of an input and a layer, as its configuration describes it."""
    source: dict[str, Any] = {"class_name": "InputLayer", "module": "keras.layers", "name": "image"}
    source |= {"config": {"batch_shape": [None, 4], "dtype": "float32", "name": "image"}, "inbound_nodes": []}
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "dtype": "float32"}}
    tensor["config"] |= {"keras_history": ["image", 0, 0]}  # type: ignore[operator]
    node = {"name": "layer", "inbound_nodes": [{"args": [tensor], "kwargs": {}}]}
    config = {"name": "m", "layers": [source, layer | node], "input_layers": [["image", 0, 0]]}
    config |= {"output_layers": [["layer", 0, 0]]}
    model = {"class_name": "Functional", "module": "keras.src.models.functional", "config": config}

    def write(path: Path) -> None:
        if path.suffix == ".h5":
            with h5py.File(path, "w") as file:
                file.attrs["model_config"] = json.dumps(model)
                file.create_group("model_weights").attrs["layer_names"] = []
            return
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("config.json", json.dumps(model))
            archive.writestr("metadata.json", "{}")
            with archive.open("model.weights.h5", "w") as member:
                for piece in weights or [empty_h5()]:
                    member.write(piece)
            for name, content in (more or {}).items():
                archive.writestr(name, content)

    return write


def dense(units: int) -> dict[str, Any]:
    return DENSE | {"config": {"units": units, "name": "layer"}}


def empty_h5() -> bytes:
    made = io.BytesIO()
    h5py.File(made, "w").close()
    return made.getvalue()


def code_of_lambda() -> list[Any]:
    """Keras's own form of a lambda: marshalled bytecode, which makes the canary's file."""

    def touch(x: object) -> object:
        open("it-ran", "w").close()  # noqa: PTH123 - needs no import
        return x

    return [base64.b64encode(marshal.dumps(touch.__code__)).decode(), None, None]


LAMBDA = {
    "class_name": "__lambda__",
    "config": dict(zip(("code", "defaults", "closure"), code_of_lambda(), strict=True)),
}
DENSE = {"class_name": "Dense", "module": "keras.layers", "config": {"units": 1, "name": "layer"}}
MODELS: dict[str, tuple[str, Make]] = {
    "a lambda": (
        "m.keras",
        made_of({"class_name": "Lambda", "module": "keras.layers", "config": {"function": LAMBDA}}),
    ),
    "an old lambda": (
        "m.h5",
        made_of({"class_name": "Lambda", "config": {"function": code_of_lambda(), "function_type": "lambda"}}),
    ),
    "a function as a layer": (
        "m.keras",
        made_of({"class_name": "function", "module": "os", "config": "mkdir", "registered_name": "mkdir"}),
    ),
    "a custom class": (
        "m.keras",
        made_of({"class_name": "Popen", "module": "subprocess", "config": {"args": ["touch", CANARY]}}),
    ),
    "a custom object of an old file": (
        "m.h5",
        made_of({"class_name": "Popen", "module": "subprocess", "config": {"args": ["touch", CANARY]}}),
    ),
    "a function as an activation": (
        "m.keras",
        made_of(
            DENSE
            | {"config": {"units": 1, "activation": {"class_name": "function", "module": "os", "config": "system"}}}
        ),
    ),
    "a layer that loads another model": (
        "m.keras",
        made_of({"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "elsewhere"}}),
    ),
    "a layer that reads a file": (
        "m.keras",
        made_of({"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": "/etc/passwd"}}),
    ),
    "a class of Keras's own insides": (
        "m.keras",
        made_of({"class_name": "get_file", "module": "keras.utils", "config": {"origin": "file:///etc/passwd"}}),
    ),
    "members outside of the archive": ("m.keras", made_of(DENSE, more={f"../{CANARY}": b"x"})),
    "an archive of arrays beside": ("m.keras", made_of(DENSE, more={"model.weights.npz": pickle.dumps(Touch())})),
    "a zip bomb": ("m.keras", made_of(DENSE, weights=BOMB)),
    "a layer of 150 million units": ("m.keras", made_of(dense(150_000_000))),
    "an old layer of 150 million units": ("m.h5", made_of(dense(150_000_000))),
    "layers of more than the file has": ("m.keras", made_of(dense(1 << 16))),
    "old layers of more than the file has": ("m.h5", made_of(dense(1 << 16))),
    "a pickle called .keras": ("m.keras", lambda path: path.write_bytes(pickle.dumps(Touch()))),
    "a pickle called .h5": ("m.h5", lambda path: path.write_bytes(pickle.dumps(Touch()))),
    "a zip of a pickle": ("m.keras", made_of(DENSE, weights=[pickle.dumps(Touch())])),
}


def h5(fill: Callable[[h5py.File], object]) -> Make:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            fill(file)

    return write


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weights=np.array([Touch()], object))


def npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Touch()], object), allow_pickle=True)


def twice(file: h5py.File) -> None:
    file.create_group("a")["again"] = file["/"]


WEIGHTS: dict[str, tuple[str, Make]] = {
    "an external link": ("w.h5", h5(lambda file: file.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/")))),
    "a soft link": ("w.h5", h5(lambda file: file.__setitem__("a", h5py.SoftLink("/b")))),
    "a group within itself": ("w.h5", h5(twice)),
    "bytes of another file": (
        "w.h5",
        h5(lambda file: file.create_dataset("a", (64,), "u1", external=[("/etc/passwd", 0, 64)])),
    ),
    "a virtual dataset": ("w.h5", h5(lambda file: file.create_virtual_dataset("a", h5py.VirtualLayout((4,), "f4")))),
    "a huge empty tensor": ("w.h5", h5(lambda file: file.create_dataset("a", (HUGE,), "f4", chunks=(1 << 20,)))),
    "a tensor of zeros, compressed": (
        "w.h5",
        h5(lambda file: file.create_dataset("a", data=np.zeros(1 << 24, "f4"), compression="gzip")),
    ),
    "text for numbers": ("w.h5", h5(lambda file: file.create_dataset("a", data=["x"], dtype=h5py.string_dtype()))),
    "a pickle": ("w.h5", lambda path: path.write_bytes(pickle.dumps(Touch()))),
    "a pickle called .weights.h5": ("w.weights.h5", lambda path: path.write_bytes(pickle.dumps(Touch()))),
    "a layer of 150 million units": ("m.keras", made_of(dense(150_000_000))),
    "an old layer of 150 million units": ("m.h5", made_of(dense(150_000_000))),
    "layers of more than the file has": ("m.keras", made_of(dense(1 << 16))),
    "old layers of more than the file has": ("m.h5", made_of(dense(1 << 16))),
    "a pickle called .keras": ("w.keras", lambda path: path.write_bytes(pickle.dumps(Touch()))),
    "a pickle called .whl": ("w.whl", lambda path: path.write_bytes(pickle.dumps(Touch()))),
    "a pickle called .npy": ("w.npy", lambda path: path.write_bytes(pickle.dumps(Touch()))),
    "objects in .npz": ("w.npz", npz),
    "objects in .npy": ("w.npy", npy),
    "a zip bomb": ("w.keras", made_of(DENSE, weights=BOMB)),
    "a list of other files": (
        "w.weights.json",
        lambda path: path.write_text(json.dumps({"metadata": {}, "weight_map": {"a": ["../../../etc/passwd"]}})),
    ),
    "a checkpoint": ("w.ckpt", lambda path: path.write_bytes(bytes(100))),
}
