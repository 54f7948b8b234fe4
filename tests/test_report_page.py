"""The report in a real browser: at its worst, on a desk and on a phone, light, dark and on paper."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.image_table import ImageRow, write_images
from tasks.raw import RawRecord, write_shards
from tasks.report import report
from tests.browser import needs_chromium, open_chromium, serious_violations
from tests.tasks.report.inputs import (
    CHAMPION,
    HOSTILE_LABEL,
    HOSTILE_PATH,
    NO_CONTEXT,
    SHA256,
    change_json,
    inputs_in,
    write_evaluation,
    write_export,
    write_facts,
    write_json,
    write_run,
    write_training,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_chromium
MOST_BYTES = 5_000_000
LABELS = [HOSTILE_LABEL, "W" * 60, *(f"breed {n:02d}" for n in range(28))]
REASONS = [f"reason_{n:02d}" for n in range(12)]
SCREENS = {"desktop": (1280, 900), "phone": (360, 760)}
WIDER = """() => [...document.querySelectorAll('body *')].filter(one => {
    const box = one.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !one.closest('.scroll, svg');
}).map(one => one.outerHTML.slice(0, 80))"""
FOLDED_AWAY = """() => [...document.querySelectorAll('details > :not(summary)')].filter(
    one => !one.checkVisibility({contentVisibilityProperty: true})
).length"""


def noise(seed: int) -> bytes:
    """A picture that hardly compresses."""
    pixels = np.random.default_rng(seed).integers(0, 256, (170, 170, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "BMP")
    return encoded.getvalue()


def kept_and_quarantined() -> list[ImageRow]:
    """Every gallery full: twelve reasons, groups of near-duplicates, and photos enough to predict and suspect."""
    rows = []
    for number in range(480):
        reason = REASONS[number % 12] if number < 300 else ""
        path = HOSTILE_PATH if number == 300 else f"a folder/{'x' * 60 * (number % 2)}/{number}.bmp"
        facts = {
            "reason": reason,
            "group": "" if reason else f"group {number % 30}",
            "split": "" if reason else "train",
        }
        label, digest = LABELS[number % len(LABELS)], hashlib.sha256(str(number).encode()).hexdigest()
        seen = {"width": 170, "height": 170 + number, "format": "BMP", "mode": "RGB", "evidence": "gray " * 12}
        rows.append(ImageRow(id=digest, path=path, label=label, perceptual_hash="0" * 16, **facts, **seen))  # type: ignore[arg-type]
    return rows


@pytest.fixture(scope="module")
def worst_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("worst")
    inputs, rows = inputs_in(root), kept_and_quarantined()
    write_shards((RawRecord(row.path, row.label, "", noise(n)) for n, row in enumerate(rows)), inputs.raw_dir)
    write_images(rows, inputs.images_path)
    kept = [row for row in rows if not row.reason]
    write_facts(inputs, kept, LABELS, "directory")
    write_evaluation(inputs, kept[: len(LABELS)], LABELS, "test")
    write_training(inputs, LABELS)
    write_export(inputs)
    suspects = [{"id": row.id, "path": row.path, "split": "train", "label": row.label} for row in kept[:40]]
    guess = {"suggested": LABELS[1], "label_probability": 0.01, "suggested_probability": 0.9}
    pq.write_table(pa.Table.from_pylist([one | guess for one in suspects]), inputs.label_errors_path)
    explained = pq.read_table(inputs.explanations_path).to_pylist()[:1] * 12
    both = [one | {"kind": kind, "overlay": noise(7)} for kind in ("wrong", "unsure") for one in explained]
    pq.write_table(pa.Table.from_pylist(both), inputs.explanations_path)
    change_json(inputs.metrics_dir / "label_errors.json", suspects=40)
    verdict = {"promoted": False, "text": "the champion stays: " + "w" * 100}
    context = NO_CONTEXT | {"classifier_sha256": SHA256, "against": CHAMPION, "verdict": verdict, "machine": "2 x CPU"}
    write_json(context | {"latency_ms": {"keras": 40.0}, "stages": {"ingest": {"seconds": 700}}}, inputs.context_path)
    page = root / "index.html"
    report(inputs=inputs, report_out=page, summary_out=root / "summary.md")
    return page


@pytest.fixture(scope="module")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    inputs = write_run(root, labels=[HOSTILE_LABEL, "dog"], source="synthetic")
    report(inputs=inputs, report_out=root / "index.html", summary_out=root / "summary.md")
    return root / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with open_chromium() as started:
        yield started


@pytest.fixture(scope="module", params=[(screen, scheme) for screen in SCREENS for scheme in ("light", "dark")])
def tab(request: pytest.FixtureRequest, browser: "Browser") -> Iterator["Page"]:
    """A tab of a desktop's or phone's size, light or dark."""
    screen, scheme = request.param
    width, height = SCREENS[screen]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    yield context.new_page()
    context.close()


def unfold(tab: "Page", path: Path) -> None:
    tab.goto(path.as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")


def test_axe_finds_nothing_serious(tab: "Page", small_page: Path) -> None:
    unfold(tab, small_page)
    assert serious_violations(tab) == []


def test_nothing_sticks_out_runs_or_is_loaded(tab: "Page", worst_page: Path) -> None:
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    unfold(tab, worst_page)
    assert tab.evaluate(WIDER) == []
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [worst_page.as_uri()]
    assert tab.title() == "Pawline report: accuracy 98.4\N{NO-BREAK SPACE}%"


@pytest.mark.parametrize("width", [1200, 360])
def test_names_of_classes_can_be_read_in_the_matrix(
    width: int, browser: "Browser", tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("cats")
    inputs = write_run(root, labels=["abyssinian", "american_bobtail", "american_curl", "siamese", "sphynx"])
    report(inputs=inputs, report_out=root / "index.html", summary_out=root / "summary.md")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((root / "index.html").as_uri())
    heights = page.eval_on_selector_all("th bdi", "names => names.map(one => one.getBoundingClientRect().height)")
    assert len(heights) > 15
    assert max(heights) < 60, "two lines at most: only after the underscore"
    assert max(page.eval_on_selector_all(".confusion td", "cells => cells.map(one => one.offsetHeight)")) < 80
    off_centre = """heads => heads.slice(1).map((head, column) => {
        const [name, cell] = [head.firstElementChild, document.querySelector(`.confusion td:nth-child(${column + 2})`)]
            .map(one => one.getBoundingClientRect());
        return Math.abs(name.left + name.right - cell.left - cell.right) / 2;
    })"""
    assert max(page.eval_on_selector_all(".confusion thead th", off_centre)) < 2
    assert page.evaluate(WIDER) == []
    page.close()


def test_with_every_gallery_full_it_is_below_five_megabytes(worst_page: Path) -> None:
    text = worst_page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") > 230
    assert 2_000_000 < len(text.encode()) < MOST_BYTES


def test_it_is_used_by_keyboard_and_prints_what_is_folded(browser: "Browser", worst_page: Path) -> None:
    page = browser.new_page()
    page.goto(worst_page.as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#data")
    folded = "!document.querySelector('#reason-1').checkVisibility({contentVisibilityProperty: true})"
    assert page.evaluate(folded)
    page.click("a[href='#reason-1']")
    assert not page.evaluate(folded), "a link to a gallery unfolds it"
    assert page.evaluate(FOLDED_AWAY) > 0
    page.emulate_media(media="print")
    assert page.evaluate(FOLDED_AWAY) == 0
    page.close()
