"""The engines give the same numbers, on real photos."""

import csv
import threading
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tasks import backbones, model
from tasks.engines import BATCH_SIZE, Engine, Engines, Outputs, choose_engines
from tasks.images import decode_upright, resize_square
from tasks.quiet_tf import Model
from tasks.runtimes import openvino_core
from tests.tasks.conftest import Run

PHOTOS, SIZE_PX = 48, 224


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> np.ndarray:
    """The first good photos of each class, as the pipeline resizes them, uint8 [64, 224, 224, 3]."""
    with (shared_data / "petimages_truth.csv").open(encoding="utf-8", newline="") as file:
        plain = [row["path"] for row in csv.DictReader(file) if row["expected"] == "keep"]
    paths = [path for label in ("Cat", "Dog") for path in [p for p in plain if f"/{label}/" in p][: PHOTOS // 2]]
    with zipfile.ZipFile(shared_data / "petimages.zip") as archive:
        return np.stack([resize_square(decode_upright(archive.read(path)), SIZE_PX, "squash") for path in paths])


@pytest.fixture(scope="module")
def network(small_run: Run) -> Model:
    return model.load_backbone(small_run.backbone_dir, SIZE_PX)


@pytest.fixture(scope="module")
def automatic(network: Model) -> Engines:
    """OpenVINO in the precision that this processor has."""
    boundary = model.freeze_boundary(network, 100)
    return choose_engines(network, boundary, pooling="average", engine="openvino", precision="auto")


@pytest.fixture(scope="module")
def expected(network: Model, photos: np.ndarray) -> Outputs:
    return compute(network, photos, "tensorflow", "float32")


def compute(
    network: Model,
    photos: np.ndarray,
    engine: Literal["auto", "openvino", "tensorflow"],
    precision: Literal["auto", "bfloat16", "float32"],
    unfrozen_layers: int = 100,
) -> Outputs:
    boundary = model.freeze_boundary(network, unfrozen_layers)
    chosen = choose_engines(network, boundary, pooling="average", engine=engine, precision=precision).training
    assert engine in ("auto", chosen.name)
    assert precision in ("auto", chosen.precision)
    return run_all(chosen, photos)


def run_all(engine: Engine, photos: np.ndarray) -> Outputs:
    portions = list(engine.run(photos[start : start + BATCH_SIZE] for start in range(0, len(photos), BATCH_SIZE)))
    return {name: np.concatenate([portion[name] for portion in portions]) for name in portions[0]}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (a, b))
    similar: np.ndarray = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return similar


def has_bfloat16() -> bool:
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def skip_without_bfloat16() -> None:
    if not has_bfloat16():
        pytest.skip("this processor has no bfloat16: OpenVINO does not list BF16")


def test_float32(network: Model, photos: np.ndarray, expected: Outputs) -> None:
    outputs = compute(network, photos, "openvino", "float32")
    assert outputs.keys() == expected.keys() == {"pooled", "boundary"}
    assert {name: value.shape for name, value in outputs.items()} == {
        "pooled": (PHOTOS, 1280),
        "boundary": (PHOTOS, 28, 28, 32),
    }
    assert {value.dtype for value in outputs.values()} == {np.dtype(np.float32)}
    assert cosines(outputs["pooled"], expected["pooled"]).min() >= 0.99999
    np.testing.assert_allclose(outputs["boundary"], expected["boundary"], atol=1e-2)


def test_bfloat16(automatic: Engines, photos: np.ndarray, expected: Outputs) -> None:
    skip_without_bfloat16()
    outputs = run_all(automatic.training, photos)
    assert cosines(outputs["pooled"], expected["pooled"]).min() >= 0.999
    assert cosines(outputs["boundary"], expected["boundary"]).min() >= 0.999


def test_a_failure_comes_out(automatic: Engines) -> None:
    """Of more portions than there are processors; each of them fails, as its images have another size."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            list(automatic.training.run([np.zeros((BATCH_SIZE, 96, 96, 3), np.uint8)] * 4))
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(120)
    assert len(failures) == 1


def test_tensorflow_in_mixed_precision(network: Model, photos: np.ndarray, expected: Outputs) -> None:
    """What a GPU would run; a processor without bfloat16 computes it, too, only slowly."""
    boundary = model.freeze_boundary(network, 100)
    chosen = choose_engines(network, boundary, pooling="average", engine="tensorflow", precision="bfloat16")
    assert (chosen.training.precision, chosen.evaluation.precision) == ("bfloat16", "float32")
    few = 8
    rough = next(chosen.training.run([photos[:few]]))
    fine = next(chosen.evaluation.run([photos[:BATCH_SIZE]]))
    for name, values in fine.items():
        np.testing.assert_array_equal(values, expected[name][:BATCH_SIZE])
        assert rough[name].dtype == np.float32
        assert cosines(rough[name], values[:few]).min() >= 0.999
    assert not np.allclose(rough["pooled"], fine["pooled"][:few], rtol=1e-4, atol=1e-5)  # of another batch: not equal


def test_bfloat16_of_another_backbone_when_asked_for() -> None:
    skip_without_bfloat16()
    vgg16 = backbones.build_backbone("VGG16", 96)
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    expected = compute(vgg16, images, "tensorflow", "float32", unfrozen_layers=4)
    outputs = compute(vgg16, images, "openvino", "bfloat16", unfrozen_layers=4)
    for name, values in expected.items():
        assert cosines(outputs[name], values).min() >= 0.99
        assert not np.array_equal(outputs[name], values)


@pytest.mark.parametrize("cut", ["before the seam", "after the seam"])  # of the two precisions
def test_evaluation_is_in_float32_beside_bfloat16(
    network: Model, automatic: Engines, photos: np.ndarray, expected: Outputs, cut: str
) -> None:
    skip_without_bfloat16()
    chosen, boundary = automatic, model.freeze_boundary(network, 100)
    if cut == "after the seam":
        boundary = model.freeze_boundary(network, 20)
        chosen = choose_engines(network, boundary, pooling="average", engine="openvino", precision="bfloat16")
    assert (chosen.training.precision, chosen.evaluation.precision) == ("bfloat16", "float32")
    outputs, rough = (next(engine.run([photos[:BATCH_SIZE]])) for engine in (chosen.evaluation, chosen.training))
    assert outputs["boundary"].shape[1:] == boundary.tensor.shape[1:]
    assert cosines(outputs["pooled"], expected["pooled"][:BATCH_SIZE]).min() >= 0.99999
    assert not np.array_equal(outputs["pooled"], rough["pooled"])


def test_maximum_pooling(network: Model, photos: np.ndarray) -> None:
    chosen = choose_engines(network, None, pooling="max", engine="openvino", precision="float32").training
    pooled = next(chosen.run([photos[:2]]))["pooled"]
    expected = np.asarray(network(photos[:2].astype(np.float32))).max(axis=(1, 2))
    assert cosines(pooled, expected).min() >= 0.99999
    np.testing.assert_allclose(pooled, expected, atol=1e-2)  # of values up to 6


def test_an_image_does_not_depend_on_its_batch(automatic: Engines, photos: np.ndarray) -> None:
    chosen = automatic.training
    assert chosen.precision == ("bfloat16" if has_bfloat16() else "float32")  # other backbones: test_backbones.py
    whole, part = chosen.run([photos[:BATCH_SIZE], photos[5:8]])
    assert {len(value) for value in part.values()} == {3}
    assert all(np.array_equal(part[name], whole[name][5:8]) for name in whole)


def test_no_boundary_where_it_is_the_image(network: Model, photos: np.ndarray) -> None:
    assert compute(network, photos[:1], "tensorflow", "float32", unfrozen_layers=154).keys() == {"pooled"}
