"""The exports answer like the classifier, from the bytes of a photo on; what does not is not written."""

import hashlib
import io
import json
import logging
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference.classifier import load
from inference.engines import Engine
from tasks import keras_files, records
from tasks.export import ExportInputs, check, export
from tasks.export.formats import Exporter
from tasks.export.replay import PATHS, Photos, open_export
from tasks.params import ExportParams
from tasks.stage import PawlineError
from tests.tasks.conftest import IMAGE, Run, changed, make_exports
from tests.tasks.export.exports import exports_made, small_exports_made

CLASSIFIER = "classifier.keras"


@pytest.fixture(scope="module")
def made(shared_folder: Path) -> Path:
    return exports_made(shared_folder)


@pytest.fixture(scope="module")
def facts(made: Path) -> dict[str, Any]:
    return read_facts(made)


@pytest.fixture(scope="module")
def small(shared_folder: Path) -> Path:
    """A classifier that is quick to export, and its exports."""
    return small_exports_made(shared_folder)


@pytest.fixture(scope="module")
def squares(small_run: Run) -> np.ndarray:
    return next(records.read_shard(records.shard_paths(small_run.tfrecords_dir, "test")[0])).images


@pytest.fixture(scope="module")
def expected(small: Path, squares: np.ndarray) -> np.ndarray:
    answers: np.ndarray = keras_files.load_model(small / CLASSIFIER).predict_on_batch(squares)
    assert np.ptp(answers) > 0.01  # the pictures are told apart: equality would not be by chance
    return answers


def read_facts(export_dir: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((export_dir / "export.json").read_text())
    return loaded


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_write_the_same_bytes_and_one_line(small: Path) -> None:
    assert re.fullmatch("export: keras .* in .*first\n", (small / "first.out").read_text())
    said = (small / "first.err").read_text().splitlines()
    assert [line for line in said if not line.startswith(("export: ", "replay: "))] == []  # but progress
    first, second = (files_of(small / name) for name in ("first", "second"))
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []
    assert read_facts(small / "first")["refused"] == {}


def test_every_file_has_its_digest(small: Path) -> None:
    files = files_of(small / "first")
    del files["export.json"]
    assert read_facts(small / "first")["sha256"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }


@pytest.mark.parametrize(
    ("engine", "name"), [("openvino", "openvino/classifier.bin"), ("litert", "classifier-float32.tflite")]
)
def test_who_loads_an_export_notices_a_changed_byte(small: Path, tmp_path: Path, engine: Engine, name: str) -> None:
    made = shutil.copytree(small / "first", tmp_path / "export")
    assert load(made, engine=engine).max_pixels == 12_345
    content = bytearray((made / name).read_bytes())
    content[len(content) // 2] ^= 1
    (made / name).write_bytes(content)
    with pytest.raises(PawlineError, match=rf"^.*{name} is not what was exported \(its SHA-256 is another\): .*$"):
        load(made, engine=engine)


def test_outputs_and_what_is_said_of_them(made: Path, small_run: Run, facts: dict[str, Any]) -> None:
    assert sorted(facts["formats"]) == sorted(PATHS)
    assert facts["refused"] == {}
    assert (facts["labels"], facts["image"]) == (["cat", "dog"], IMAGE.model_dump())
    assert (made / "labels.txt").read_bytes() == b"cat\ndog\n"
    classifier = small_run.classifier_path.read_bytes()
    assert facts["classifier_sha256"] == hashlib.sha256(classifier).hexdigest()
    assert (made / "classifier.keras").read_bytes() == classifier
    assert facts["images"] == records.split_sizes(small_run.tfrecords_dir)["val"]
    assert facts["nasty_images"] > 20
    sizes = {name: len(content) for name, content in files_of(made).items()}
    for name, fact in facts["formats"].items():
        where = "openvino" if name == "openvino" else PATHS[name]
        assert fact["path"] == PATHS[name]
        assert fact["bytes"] == sum(size for file, size in sizes.items() if file == where or where in file.split("/"))
        assert fact["unread_images"] == 0
        assert (fact["nasty_unread_images"] > 0) == (name == "saved_model_bytes")  # it reads no TIFF
        low, high = fact["accuracy_difference_interval"]
        assert low <= fact["accuracy_difference"] <= high
    assert facts["formats"]["litert_int8"]["bytes"] < 3e6
    assert facts["formats"]["litert_float16"]["bytes"] < 0.55 * facts["formats"]["litert_float32"]["bytes"]


def test_differences_are_within_the_tolerances(facts: dict[str, Any]) -> None:
    for name, fact in facts["formats"].items():
        differences = (fact["max_difference"], fact["nasty_max_difference"])
        if fact["tolerance_of"] == "probability":
            assert max(differences) <= fact["tolerance"], name
        assert fact["mean_difference"] <= fact["max_difference"]
    assert facts["formats"]["litert_int8"]["tolerance_of"] == "accuracy"
    assert facts["formats"]["litert_float16"]["max_difference"] > facts["formats"]["litert_float32"]["max_difference"]


@pytest.mark.parametrize("name", sorted(PATHS.keys() - {"saved_model_bytes"}))
def test_each_format_answers_for_any_number_of_photos(
    small: Path, squares: np.ndarray, expected: np.ndarray, name: str
) -> None:
    replay = open_export(name, small / "first" / PATHS[name])
    for images in (squares[:1], squares, squares[:3]):
        tolerance = check.TOLERANCES.get(name, 0.3)
        np.testing.assert_allclose(replay(Photos([], images)), expected[: len(images)], atol=tolerance)


@pytest.mark.parametrize("name", ["keras", "h5", "saved_model", "openvino", "onnx"])
def test_squares_of_another_size_are_refused(small: Path, name: str) -> None:
    replay = open_export(name, small / "first" / PATHS[name])
    with pytest.raises(Exception, match=r"(?i)shape|dimension"):
        replay(Photos([], np.zeros((1, 2 * IMAGE.size_px, 2 * IMAGE.size_px, 3), np.uint8)))


def test_an_answer_that_is_no_number_is_not_taken_for_a_file_that_cannot_be_read(small: Path, tmp_path: Path) -> None:
    classifier = keras_files.load_model(small / CLASSIFIER)
    kernel, bias = classifier.get_layer("probabilities").get_weights()
    classifier.get_layer("probabilities").set_weights([kernel, bias * np.nan])
    Exporter(small / CLASSIFIER, classifier, IMAGE, tmp_path).write_saved_model(from_bytes=True)
    png = io.BytesIO()
    Image.new("RGB", (100, 100)).save(png, "PNG")
    answers = open_export("saved_model_bytes", tmp_path / "saved_model")(
        Photos([png.getvalue(), b"junk"], np.empty(0, np.uint8))
    )
    np.testing.assert_array_equal(answers, [[np.inf] * 2, [np.nan] * 2])


def test_an_export_that_differs_is_not_written(
    small_run: Run, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("h5", "saved_model_bytes"):
        monkeypatch.setitem(check.TOLERANCES, name, -1.0)  # nothing is that equal
    with caplog.at_level(logging.INFO):
        make_exports(
            small_run, small / CLASSIFIER, tmp_path / "export", ExportParams(formats=("keras", "h5", "saved_model"))
        )
    facts = read_facts(tmp_path / "export")
    assert sorted(facts["formats"]) == ["keras", "saved_model"]
    assert facts["refused"]["h5"] == "the probability of a validation photo differs by 0, -1 is allowed"
    assert f"export: h5 is not written: {facts['refused']['h5']}" in caplog.messages
    assert not (tmp_path / "export" / "classifier.h5").exists()
    from tasks.quiet_tf import tf

    assert list(tf.saved_model.load(str(tmp_path / "export" / "saved_model")).signatures) == ["serving_default"]
    assert facts["formats"]["saved_model"]["max_difference"] < 1e-6


def test_without_the_saved_model_there_is_none_from_bytes(
    small_run: Run, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(check.TOLERANCES, "saved_model", -1.0)
    make_exports(small_run, small / CLASSIFIER, tmp_path / "export", ExportParams(formats=("saved_model",)))
    facts = read_facts(tmp_path / "export")
    assert (facts["formats"], sorted(facts["refused"])) == ({}, ["saved_model", "saved_model_bytes"])
    assert not (tmp_path / "export" / "saved_model").exists()


def test_photos_that_are_not_those_of_the_tfrecords(small_run: Run, small: Path, tmp_path: Path) -> None:
    inputs = ExportInputs(small / CLASSIFIER, small_run.raw_dir, small_run.images_path, small_run.tfrecords_dir)
    params = ExportParams(formats=("keras",))
    write = partial(export, inputs=inputs, export_dir=tmp_path / "export", params=params, max_pixels=10_000)
    with pytest.raises(
        PawlineError, match=r"do not become the pixels in .*tfrecords .*: `dvc repro --force preprocess`$"
    ):
        write(image=changed(IMAGE, resize="crop"))
    with pytest.raises(PawlineError, match=r"classifier\.keras takes 96 px and image\.size_px is 128: `dvc repro`$"):
        write(image=changed(IMAGE, size_px=128))
    assert list(tmp_path.iterdir()) == []
