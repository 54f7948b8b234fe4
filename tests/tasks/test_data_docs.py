"""The Data Docs: reproducible, readable without a network, safe."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tasks.data_docs import write_data_docs
from tasks.expectations import run_suites
from tasks.image_table import ImageRow
from tests.tasks.test_expectations import SPLITS, bad, kept, params

HOSTILE = "PetImages/Dog/a'b\"<b>&$x<script>alert(1)</script>.jpg"


class Page(HTMLParser):
    """Collects a page's tags, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}

    def handle_data(self, data: str) -> None:
        self.text += data


def rows() -> list[ImageRow]:
    odd_labels = [replace(row, label="<i>$bird") for row in kept("bird", 6)]
    odd_path = replace(bad("dog", 1)[0], path=HOSTILE)
    return [*kept("cat", 6), *kept("dog", 6), *odd_labels, odd_path]


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    write_data_docs(run_suites(rows(), params(), SPLITS), {"truncated": 1}, folder)
    return folder


def pages(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}


def test_two_runs_write_the_same_bytes(docs: Path, tmp_path: Path) -> None:
    write_data_docs(run_suites(rows(), params(), SPLITS), {"truncated": 1}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in docs.iterdir()
    }


def test_no_times_ids_paths_or_network(docs: Path) -> None:
    for name, text in pages(docs).items():
        page = Page(text)
        assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-|\d{8}T\d{6}|20\d\d-\d\d-\d\d", text), name
        assert str(Path.cwd()) not in text
        assert "://" not in text, name
        assert not page.tags & {"script", "img", "iframe", "style"}, name
        assert page.links <= {path.name for path in docs.iterdir()}, name


def test_the_index_leads_to_every_suite(docs: Path) -> None:
    index = Page(pages(docs)["index.html"])
    assert index.links == {path.name for path in docs.iterdir()} - {"index.html"}
    assert "truncated" in index.text


def test_hostile_names_are_text(docs: Path) -> None:
    files = pages(docs)["source-files.html"]
    assert html.escape(HOSTILE) in files
    assert "<b>" not in files
    classes = Page(pages(docs)["source-classes.html"])
    assert "<i>$bird" in classes.text
    photos = pages(docs)["kept-photos.html"]
    assert "<i>$bird" not in photos
    assert "&lt;i&gt;$bird" in photos


def test_a_person_reads_what_is_expected_and_why(docs: Path) -> None:
    text = Page(pages(docs)["source-files.html"]).text
    assert "at least 80.0% of the files must be fit to keep" in text
    assert "A few bad files are normal" in text
    assert "2 of 2 expectations met; 19 rows." in text


def test_a_failed_expectation_shows_its_rows(tmp_path: Path) -> None:
    write_data_docs(run_suites(rows(), params(max_reject_share=0.01), SPLITS), {"truncated": 1}, tmp_path)
    files = Page(pages(tmp_path)["source-files.html"])
    assert "not met" in files.text
    assert "≈5.2632% unexpected" in files.text
    assert HOSTILE in files.text
    assert "not met" in pages(tmp_path)["index.html"]
