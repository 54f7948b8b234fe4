"""Every export of a small run, made once a test session, and a network that is quicker to export."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import get_args

from tasks.params import ExportFormat, ExportParams
from tests.conftest import ROOT
from tests.once import made_once
from tests.tasks.conftest import IMAGE, Run, make_exports, make_run

ALL = ExportParams(formats=get_args(ExportFormat))


def finished_run(shared_folder: Path) -> Run:
    """The run of the fixture `small_run`, for tests outside its folder, too."""
    return Run(made_once(shared_folder / "small_run", make_run))


def exports_made(shared_folder: Path) -> Path:
    """Its classifier, MobileNetV2, in every format."""
    return made_once(shared_folder / "exports", partial(_make_exports, finished_run(shared_folder))) / "export"


def _make_exports(run: Run, folder: Path) -> None:
    make_exports(run, run.classifier_path, folder / "export", ALL)


def small_exports_made(shared_folder: Path) -> Path:
    """A quicker network, `classifier.keras`, in every format, by two processes: `first` and `second`.

    What they said is beside them in `.out` and `.err`.
    """
    return made_once(shared_folder / "small_exports", partial(_make_small_exports, finished_run(shared_folder)))


def _make_small_exports(run: Run, folder: Path) -> None:
    save_small_classifier(folder / "classifier.keras")
    params = {"image": IMAGE.model_dump(), "export": {"formats": list(ALL.formats)}, "validate": {"max_pixels": 12_345}}
    (folder / "params.yaml").write_text(json.dumps(params))  # JSON is YAML
    processes = [_start_export(run, folder, name) for name in ("first", "second")]
    assert [process.wait() for process in processes] == [0, 0], (folder / "first.err").read_text()


def _start_export(run: Run, folder: Path, name: str) -> subprocess.Popen[bytes]:
    """The stage as a process of its own."""
    options = ["--params", str(folder / "params.yaml"), "--export-dir", str(folder / name)]
    options += ["--classifier-path", str(folder / "classifier.keras"), "--raw-dir", str(run.raw_dir)]
    options += ["--images-path", str(run.images_path), "--tfrecords-dir", str(run.tfrecords_dir)]
    command = [sys.executable, "-m", "tasks.export", *options]
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)


def save_small_classifier(path: Path) -> None:
    """A network of the layers that MobileNetV2 is made of, but few: two classes, softmax."""
    from tasks import keras_files
    from tasks.quiet_tf import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((IMAGE.size_px, IMAGE.size_px, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="scale")(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="first")(x)
    x = layers.ReLU(6.0, name="first_relu")(layers.BatchNormalization(name="first_bn")(x))
    for block in ("a", "b"):
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{block}_depthwise")(x)
        y = layers.ReLU(6.0, name=f"{block}_relu")(layers.BatchNormalization(name=f"{block}_bn")(y))
        y = layers.Conv2D(8, 1, use_bias=False, name=f"{block}_project")(y)
        x = layers.Add(name=f"{block}_add")([x, y])
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    answer = layers.Dense(2, "softmax", name="probabilities")(pooled)
    keras_files.save_model(keras.Model(image, answer, name="classifier"), path)
