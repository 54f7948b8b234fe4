"""Every example of docs/exports.md is run on a real export, and its answer is the classifier's."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tasks import keras_files
from tasks.export import NAMES
from tasks.export.check import ACCURACY_TOLERANCES, TOLERANCES
from tasks.export.photos import prepare
from tasks.raw import list_chunks, read_chunk
from tests.conftest import ROOT
from tests.tasks.conftest import IMAGE, Run, changed
from tests.tasks.export.exports import finished_run, small_exports_made

TEXT = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## (.+?)$.*?```python\n(.*?)```", TEXT, flags=re.DOTALL | re.MULTILINE))
WITHOUT_TENSORFLOW = ("LiteRT", "OpenVINO", "ONNX")
AFTERWARDS = "\nimport sys\nprint(json.dumps([answer.tolist(), 'tensorflow' in sys.modules, facts['labels']]))"


@pytest.fixture(scope="module")
def place(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photo, and the exports of a small network where a project has them."""
    run = finished_run(shared_folder)
    folder = tmp_path_factory.mktemp("docs")
    (folder / "models").mkdir()
    (folder / "models" / "export").symlink_to(small_exports_made(shared_folder) / "first")
    (folder / "photo.jpg").write_bytes(_jpeg(run))
    return folder


def _jpeg(run: Run) -> bytes:
    """A photo whose sides differ."""
    records = (record for chunk in list_chunks(run.raw_dir) for record in read_chunk(chunk))
    return next(record.content for record in records if record.path.endswith(".jpg") and len(record.content) > 5000)


@pytest.fixture(scope="module")
def expected(place: Path, shared_folder: Path) -> np.ndarray:
    squares = prepare([(place / "photo.jpg").read_bytes()], IMAGE).squares
    classifier = keras_files.load_model(small_exports_made(shared_folder) / "classifier.keras")
    answers: list[np.ndarray] = classifier.predict_on_batch(squares)
    return answers[0]


def test_every_format_has_an_example_of_ten_lines() -> None:
    assert list(EXAMPLES) == ["Keras", "HDF5", "SavedModel", "SavedModel from bytes", "LiteRT", "OpenVINO", "ONNX"]
    assert all(len(code.replace("\n\n", "\n").splitlines()) <= 10 for code in EXAMPLES.values())


def test_the_table_has_every_export_and_its_tolerance() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", TEXT, flags=re.MULTILINE))
    assert list(rows) == [name for names in NAMES.values() for name in names]
    numbers = {name: float(words[0]) for name, text in rows.items() if (words := text.split())[0][0].isdigit()}
    assert numbers.pop("litert_int8") == 100 * ACCURACY_TOLERANCES["litert_int8"]
    assert numbers == {name: value for name, value in TOLERANCES.items() if name != "keras"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name: str, place: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    code = EXAMPLES[name]
    if name in WITHOUT_TENSORFLOW:
        home = place / name
        home.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code + AFTERWARDS],
            cwd=place,
            env=os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home)},
            capture_output=True,
            text=True,
            check=True,
        )
        answer, tensorflow, labels = json.loads(done.stdout.splitlines()[-1])
        assert not tensorflow
        assert name != "ONNX" or list(home.iterdir()) == [], "it leaves something in the user's folders"
    else:
        monkeypatch.chdir(place)
        results: dict[str, Any] = {}
        exec(code, results)  # noqa: S102 - our own documentation
        answer, labels = results["answer"], results["facts"]["labels"]
    assert list(labels) == ["cat", "dog"]
    np.testing.assert_allclose(answer, expected, atol=1e-4)


@pytest.mark.parametrize(("resize", "function"), [("crop", ImageOps.fit), ("pad", ImageOps.pad)])
def test_the_other_ways_to_resize(place: Path, resize: str, function: Callable[..., Image.Image]) -> None:
    content = (place / "photo.jpg").read_bytes()
    photo = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    square = function(photo, [IMAGE.size_px] * 2, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.asarray(square), prepare([content], changed(IMAGE, resize=resize)).squares[0])
