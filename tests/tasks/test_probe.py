"""The probe: which answers are explained, and what accuracy is left of spoilt images."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks import corruptions, engines, keras_files, metrics, probe, records
from tasks.quiet_tf import Model
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.tasks.conftest import IMAGE, Run

LABELS = ["cat", "dog"]


class Probed(NamedTuple):
    """What a probe wrote."""

    explanations_path: Path
    robustness_path: Path

    @property
    def explanations(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.explanations_path).to_pylist()
        return rows

    @property
    def robustness(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(self.robustness_path.read_text())
        return figures


def in_folder(folder: Path) -> Probed:
    return Probed(folder / "data" / "explanations.parquet", folder / "reports" / "robustness.json")


@pytest.fixture(scope="module")
def probed(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Probed:
    written = in_folder(tmp_path_factory.mktemp("probed"))
    probe.probe(
        tfrecords_dir=small_run.tfrecords_dir,
        classifier_path=small_run.classifier_path,
        predictions_path=small_run.predictions_path,
        explanations_out=written.explanations_path,
        robustness_out=written.robustness_path,
    )
    return written


@pytest.fixture(scope="module")
def predictions(small_run: Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(small_run.predictions_path).to_pylist()
    return rows


@pytest.fixture(scope="module")
def classifier(small_run: Run) -> Model:
    return keras_files.load_model(small_run.classifier_path)


@pytest.fixture(scope="module")
def runner(classifier: Model) -> engines.Runner:
    return engines.classifier_runner(classifier)


def row(path: str, label: str, predicted: str, probability: float) -> dict[str, Any]:
    return {"id": path, "path": path, "label": label, "predicted": predicted, "probability": probability}


def test_the_surest_wrong_and_the_least_sure_right_answers_are_explained() -> None:
    rows = [row(f"right-{n:02d}", "cat", "cat", 0.5 + n / 100) for n in reversed(range(20))]
    rows += [row(f"wrong-{n:02d}", "cat", "dog", 0.5 + n / 100) for n in range(20)]
    rows += [row("wrong-20", "dog", "cat", 0.69)]  # as sure as the last before it
    chosen = [(item["kind"], item["path"]) for item in probe.choose_explained(rows)]
    surest = ["wrong-19", "wrong-20", *(f"wrong-{n:02d}" for n in range(18, 8, -1))]
    assert chosen == [("wrong", path) for path in surest] + [("unsure", f"right-{n:02d}") for n in range(12)]


def test_explanations(probed: Probed, predictions: list[dict[str, Any]]) -> None:
    explained = probed.explanations
    expected = probe.choose_explained(predictions)
    names = ("id", "path", "label", "predicted", "probability", "kind")
    assert [[item[name] for name in names] for item in explained] == [
        [item[name] for name in names] for item in expected
    ]
    assert {"unsure"} <= {item["kind"] for item in explained} <= {"wrong", "unsure"}
    for item in explained:
        overlay = Image.open(io.BytesIO(item["overlay"]))
        assert (overlay.format, overlay.mode, overlay.size) == ("JPEG", "RGB", (IMAGE.size_px, IMAGE.size_px))


def test_an_overlay_is_of_its_own_image(probed: Probed, small_run: Run) -> None:
    images = {
        image_id: image
        for shard in records.shard_paths(small_run.tfrecords_dir, "test")
        for batch in records.read_shard(shard)
        for image_id, image in zip(batch.ids, batch.images, strict=True)
    }

    def likeness(overlay: bytes, image_id: str) -> float:
        grays = (Image.open(io.BytesIO(overlay)).convert("L"), Image.fromarray(images[image_id]).convert("L"))
        a, b = (np.asarray(gray, np.float64).ravel() for gray in grays)
        return float(np.corrcoef(a, b)[0, 1])

    for item in probed.explanations:
        assert max(images, key=lambda image_id: likeness(item["overlay"], image_id)) == item["id"]


def test_figures(probed: Probed, small_run: Run) -> None:
    figures = probed.robustness
    evaluation = json.loads(small_run.evaluation_path.read_text())
    assert (figures["split"], figures["images"], figures["split_images"]) == ("test", *[evaluation["images"]] * 2)
    assert figures["clean"] == {name: evaluation[name] for name in ("accuracy", "accuracy_interval")}
    amounts = [(kind, list(of_kind)) for kind, of_kind in figures["corruptions"].items()]
    assert amounts == [(kind, list(of_kind)) for kind, of_kind in corruptions.AMOUNTS.items()]  # in order
    for of_kind in figures["corruptions"].values():
        for found in of_kind.values():
            correct = round(found["accuracy"] * figures["images"])
            assert found["accuracy"] == correct / figures["images"]
            assert found["accuracy_interval"] == list(metrics.wilson_interval(correct, figures["images"]))


def test_the_accuracy_is_that_of_what_the_classifier_sees(
    classifier: Model,
    runner: engines.Runner,
    predictions: list[dict[str, Any]],
    small_run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(corruptions, "AMOUNTS", {"brightness": {"as it is": 1.0, "black": 0.0}})
    figures = probe.measure(runner, LABELS, predictions, small_run.tfrecords_dir)
    as_it_is = figures["corruptions"]["brightness"]["as it is"]
    assert figures["clean"].items() <= as_it_is.items()
    assert as_it_is["accuracy_difference"] == 0
    black = np.zeros((1, IMAGE.size_px, IMAGE.size_px, 3), np.uint8)
    answer = LABELS[int(classifier.predict_on_batch(black)[0, 0] > 0.5)]
    share = np.mean([item["label"] == answer for item in predictions])
    spoilt = figures["corruptions"]["brightness"]["black"]
    assert spoilt["accuracy"] == share
    before = [item["label"] == item["predicted"] for item in predictions]
    after = [item["label"] == answer for item in predictions]
    both, gained, lost = (list(zip(after, before, strict=True)).count(pair) for pair in ((1, 1), (1, 0), (0, 1)))
    assert spoilt["accuracy_difference"] == (gained - lost) / len(predictions)
    interval = metrics.paired_difference_interval(both, gained, lost, len(predictions))
    assert tuple(spoilt["accuracy_difference_interval"]) == interval


def test_a_few_images_of_the_validation_split(
    classifier: Model, runner: engines.Runner, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruptions, "AMOUNTS", {"brightness": {"as it is": 1.0}})
    monkeypatch.setattr(probe, "MOST_PROBED", 5)
    rows = [
        row(image_id, LABELS[label], LABELS[label], 0.9) | {"split": "val"}
        for shard in records.shard_paths(small_run.tfrecords_dir, "val")
        for batch in records.read_shard(shard)
        for image_id, label in zip(batch.ids, batch.labels, strict=True)
    ]
    chosen = probe.choose_probed(rows)
    assert [item["id"] for item in chosen] == sorted(item["id"] for item in rows)[:5]
    assert chosen == probe.choose_probed(rows[::-1])
    figures = probe.measure(runner, LABELS, chosen, small_run.tfrecords_dir)
    assert (figures["split"], figures["images"]) == ("val", 5)
    assert set(probe.explain(classifier, LABELS, chosen, small_run.tfrecords_dir)) == {item["id"] for item in chosen}


def test_openvino_answers_as_keras_does(classifier: Model, runner: engines.Runner) -> None:
    shape = (engines.BATCH_SIZE + 3, IMAGE.size_px, IMAGE.size_px, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batches = [images[: engines.BATCH_SIZE], images[engines.BATCH_SIZE :]]
    answers = np.concatenate([outputs["answers"] for outputs in runner(batches)])
    np.testing.assert_allclose(answers, classifier.predict_on_batch(images), atol=1e-4)


def test_predictions_of_other_images_are_refused(
    runner: engines.Runner, predictions: list[dict[str, Any]], small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruptions, "AMOUNTS", {})
    other = [*predictions, predictions[0] | {"id": "ab" * 32}]
    with pytest.raises(PawlineError, match=r"^1 predicted images are not in .*tfrecords: run `dvc repro`$"):
        probe.measure(runner, LABELS, other, small_run.tfrecords_dir)


def test_another_process_writes_the_same_bytes(probed: Probed, small_run: Run, tmp_path: Path) -> None:
    again = in_folder(tmp_path)
    command = [sys.executable, "-m", "tasks.probe", "--tfrecords-dir", str(small_run.tfrecords_dir)]
    command += ["--classifier-path", str(small_run.classifier_path)]
    command += ["--predictions-path", str(small_run.predictions_path)]
    command += ["--explanations-out", str(again.explanations_path), "--robustness-out", str(again.robustness_path)]
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert "as they are" in done.stdout
    for path, same in zip(probed, again, strict=True):
        assert path.read_bytes() == same.read_bytes(), path.name
