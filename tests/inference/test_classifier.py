import hashlib
import io
import json
import os
import shutil
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference.classifier import load
from inference.engines import Engine, Precision
from tasks.images import UndecodableError
from tasks.parallel import available_processors
from tasks.stage import FACTS_DIGEST, PawlineError, facts_digest
from tests.inference.running import LABELS, picture


@pytest.fixture
def export_dir(colours: Path, tmp_path: Path) -> Path:
    """A copy of the colours' export that may be spoilt."""
    return Path(shutil.copytree(colours, tmp_path / "export"))


def change_facts(export_dir: Path, **changes: object) -> None:
    path = export_dir / "export.json"
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(facts | {FACTS_DIGEST: facts_digest(facts)}))


@pytest.mark.parametrize(
    ("engine", "precision", "tolerance"),
    [("openvino", "float32", 1e-4), ("openvino", "bfloat16", 0.1), ("litert", "auto", 1e-4), ("keras", "auto", 1e-6)],
)
def test_every_engine_says_what_the_evaluation_said(
    engine: Engine, precision: Precision, tolerance: float, exports: Path, predicted: list[tuple[bytes, list[float]]]
) -> None:
    classifier = load(exports, engine=engine, precision=precision)
    images = np.stack([classifier.prepare(content) for content, _ in predicted])
    probs = classifier.probabilities(images)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs, [probabilities for _, probabilities in predicted], atol=tolerance)
    assert (classifier.engine, classifier.precision) == (engine, precision.replace("auto", "float32"))


def test_bfloat16_really_rounds(exports: Path, predicted: list[tuple[bytes, list[float]]]) -> None:
    exact, rounded = (load(exports, precision=precision) for precision in ("auto", "bfloat16"))
    image = exact.prepare(predicted[0][0])[None]
    assert exact.precision == "float32"
    assert 0 < np.abs(exact.probabilities(image) - rounded.probabilities(image)).max() < 0.1


def test_an_answer_is_the_same_bytes_whatever_else_is_asked(
    exports: Path, predicted: list[tuple[bytes, list[float]]]
) -> None:
    classifier = load(exports, threads=1)
    images = np.stack([classifier.prepare(content) for content, _ in predicted])
    alone = np.concatenate([classifier.probabilities(image[None]) for image in images])
    np.testing.assert_array_equal(classifier.probabilities(images), alone)
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(classifier.probabilities, [images] * 8))
    for answers in at_once:
        np.testing.assert_array_equal(answers, alone)


def test_litert_computes_on_as_many_processors_as_asked_for(exports: Path) -> None:
    kept, added = [], []
    for threads in (1, None):
        before = len(os.listdir("/proc/self/task"))  # noqa: PTH208
        kept.append(load(exports, engine="litert", threads=threads))
        added.append(len(os.listdir("/proc/self/task")) - before)  # noqa: PTH208
    assert added == [0, available_processors() - 1]


def test_what_is_too_large_is_refused_from_its_header(colours: Path) -> None:
    png = bytearray(picture("red"))
    png[16:24] = struct.pack(">II", 20_000, 20_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(UndecodableError, match="20000 x 20000 pixels, 64000000 are allowed") as refused:
        load(colours).prepare(bytes(png))
    assert refused.value.reason == "too_large"


def test_as_many_pixels_are_allowed_as_validation_allowed(export_dir: Path) -> None:
    change_facts(export_dir, max_pixels=5000)
    classifier = load(export_dir)
    assert classifier.prepare(picture("red", size=(100, 50))).shape == (96, 96, 3)
    with pytest.raises(UndecodableError, match="100 x 51 pixels, 5000 are allowed"):
        classifier.prepare(picture("red", size=(100, 51)))


def test_of_an_animation_the_first_frame_counts(colours: Path) -> None:
    content = io.BytesIO()
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("blue", "red")]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    classifier = load(colours)
    assert LABELS[classifier.probabilities(classifier.prepare(content.getvalue())[None]).argmax()] == "blue"


@pytest.mark.parametrize("size", [(1, 1), (3000, 2)])
def test_small_and_blank_photos_are_answered(size: tuple[int, int], colours: Path) -> None:
    classifier = load(colours)
    probs = classifier.probabilities(classifier.prepare(picture("green", size=size))[None])
    assert LABELS[probs.argmax()] == "green"
    np.testing.assert_allclose(probs.sum(), 1, atol=1e-6)


def refusal(export_dir: Path, **options: Any) -> str:  # noqa: ANN401 - as `load` takes them
    with pytest.raises(PawlineError) as refused:
        load(export_dir, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_export_that_is_not_there_gets_one_line(export_dir: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").startswith(f"{tmp_path}/none has no export.json: `dvc repro` exports")
    (export_dir / "openvino/classifier.bin").unlink()
    assert "classifier.bin is missing: `dvc checkout --force models/export`" in refusal(export_dir)


@pytest.mark.parametrize("facts", ["", "{", "[]", '{"labels": ["cat"]}', '{"labels": 1, "image": {}, "formats": {}}'])
def test_an_export_of_other_software_gets_one_line(facts: str, export_dir: Path) -> None:
    (export_dir / "export.json").write_text(facts)
    assert "export.json is not what the stage export writes now: `dvc repro export`" in refusal(export_dir)


def test_a_truncated_or_changed_file_gets_one_line(export_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    xml = export_dir / "openvino/classifier.xml"
    whole = xml.read_bytes()
    xml.write_bytes(whole[:-1])
    assert "is not what was exported (" in refusal(export_dir)
    xml.write_bytes(bytes(len(whole)))
    assert "openvino cannot load it" in refusal(export_dir)
    assert capfd.readouterr().err == ""
    xml.write_bytes(whole)
    change_facts(export_dir, sha256={"openvino/classifier.xml": "0" * 64})
    assert "classifier.xml is not what was exported (its SHA-256 is another)" in refusal(export_dir)


def test_the_damaged_file_of_several_is_named(export_dir: Path) -> None:
    weights = export_dir / "openvino/classifier.bin"
    names = ["openvino/classifier.xml", "openvino/classifier.bin"]
    digests = {name: hashlib.sha256((export_dir / name).read_bytes()).hexdigest() for name in names}
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "classifier.xml is not what was exported (" in refusal(export_dir)
    assert " bytes with classifier.bin, " in refusal(export_dir), "an older export has no digests"
    change_facts(export_dir, sha256=digests)
    assert refusal(export_dir).startswith(f"{weights} is not what was exported (its SHA-256 is another): ")


def test_a_copy_of_a_versions_export_is_to_be_removed(export_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / ".pawline/models/0123"
    shutil.copytree(export_dir, copy)
    (copy / "openvino/classifier.bin").unlink()
    assert refusal(copy).endswith(f"is missing: remove {copy} and run this again")


def test_a_model_of_other_classes_is_refused(export_dir: Path) -> None:
    change_facts(export_dir, labels=["cat", "dog"])
    assert "answers for 3 classes, its labels are cat, dog" in refusal(export_dir)


def test_an_engine_that_was_not_exported_is_named(export_dir: Path) -> None:
    change_facts(export_dir, refused={"litert_float32": "a probability differs by 0.1"})
    said = refusal(export_dir, engine="litert")
    assert "has no export for litert (a probability differs by 0.1): it has openvino;" in said
    assert "litert computes in float32 only" not in said


def test_bfloat16_is_for_openvino(exports: Path) -> None:
    said = refusal(exports, engine="litert", precision="bfloat16")
    assert said == "--precision bfloat16: litert computes in float32 only; choose --engine openvino"


def test_auto_takes_what_was_exported(exports: Path, tmp_path: Path) -> None:
    export_dir = Path(shutil.copytree(exports, tmp_path / "export"))
    formats = json.loads((export_dir / "export.json").read_text())["formats"]
    change_facts(export_dir, formats={name: formats[name] for name in ("keras", "litert_float32")})
    assert load(export_dir).engine == "litert"


def test_auto_takes_what_is_there_and_says_so(exports: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    export_dir = Path(shutil.copytree(exports, tmp_path / "export"))
    weights = export_dir / "openvino/classifier.bin"
    weights.unlink()
    assert load(export_dir).engine == "litert"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{weights} is missing: litert answers instead of openvino")
    ]
    assert refusal(export_dir, engine="openvino").startswith(f"{weights} is missing: `dvc checkout")
    (export_dir / "classifier-float32.tflite").unlink()
    (export_dir / "classifier.keras").unlink()
    assert refusal(export_dir).startswith(f"{weights} is missing: `dvc checkout")
