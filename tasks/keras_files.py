"""Saving and loading Keras models as files whose bytes depend on the model alone.

Keras writes the time of saving, zip member times, and memory addresses as `shared_object_id`. All three are fixed
here; what loads is the same. Compile state is left out, that of models within too: these are models to use, not to
resume, and they must load without the classes that they were trained with.
"""

import errno
import json
import math
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from tasks import untrusted
from tasks.quiet_tf import Model, keras

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip member can have
FLOAT32_BYTES = 4


def save_model(model: Model, path: Path) -> None:
    """Save as `.keras` (or `.h5`, by suffix), the same bytes for the same model."""
    bare = keras.Model(model.input, model.output, name=model.name)
    if path.suffix == ".h5":
        bare.save(path)
        return
    folder = path.with_name(f"{path.name}.unfinished")  # always of that name: what a kill leaves, the next run removes
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        bare.save(folder / "model.keras")
        _rewrite(folder / "model.keras", path)
    finally:
        shutil.rmtree(folder)


def load_model(path: Path) -> Model:
    """Load a model for use.

    Raises:
        FileNotFoundError: It is not there.
        PawlineError: It is damaged, or holds anything but layers that Pawline builds: code above all.
    """
    if not path.exists():  # Keras would say so as a ValueError
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    with untrusted.looking_into(path):
        checked = untrusted.check_hdf5(path) if path.suffix == ".h5" else untrusted.check_archive(path)
        if checked.config is not None:  # Keras says it of weights alone
            untrusted.check_weights(_needed_bytes(checked.config), checked)
        return keras.models.load_model(path, compile=False, safe_mode=True)


def _needed_bytes(config: str) -> int:
    """Return what the weights of a model take, of which none is made: within the scope Keras only notes them."""
    from keras.src.backend.common import global_state

    try:
        with keras.StatelessScope(initialize_variables=False):
            model = keras.Model.from_config(json.loads(config)["config"])
            return sum(FLOAT32_BYTES * math.prod(variable.shape) for variable in model.variables)
    finally:
        global_state.set_global_attribute("uninitialized_variables", [])  # or they would be made later


def _rewrite(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as stable:
        for name in sorted(archive.namelist()):
            content = archive.read(name)
            if name == "metadata.json":
                content = _dumps(json.loads(content) | {"date_saved": "1980-01-01@00:00:00"})
            elif name == "config.json":
                content = _dumps(_normalize(json.loads(content), {}))
            stable.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), content)


def _normalize(value: Any, seen: dict[int, int]) -> Any:  # noqa: ANN401 - any JSON value
    """Replace each `shared_object_id`, a memory address, by its order of appearance, and leave out compile state."""
    if isinstance(value, dict):
        return {
            key: seen.setdefault(item, len(seen)) if key == "shared_object_id" else _normalize(item, seen)
            for key, item in value.items()
            if key != "compile_config"
        }
    if isinstance(value, list):
        return [_normalize(item, seen) for item in value]
    return value


def _dumps(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    return json.dumps(value, indent=1).encode()
