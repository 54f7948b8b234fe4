"""summary.md: the same facts, aligned, and every name as text."""

import re
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tasks.markdown import code, escape
from tasks.report import report
from tasks.words import visible
from tests.tasks.report.inputs import HOSTILE_LABEL, HOSTILE_PATH, SHA256, write_json, write_run

PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("summary")
    inputs = write_run(root, labels=[HOSTILE_LABEL, "dog_|_[x](javascript:1)"])
    known: dict[str, Any] = {"classifier_sha256": SHA256, "against": None, "verdict": None, "machine": "Xeon"}
    known |= {"latency_ms": {"keras": 40.0}, "stages": {"fine_tune": {"seconds": 90.0}}}
    write_json(known, inputs.context_path)
    report(inputs=inputs, report_out=root / "index.html", summary_out=root / "summary.md")
    return (root / "summary.md").read_text(encoding="utf-8")


def test_the_facts_of_the_page_are_there(summary: str) -> None:
    facts = [
        "# Pawline report: right on 98.4 % of test images",
        "**2 of 123 wrong**; 95 % interval 94.3 % to 99.6 %.",
        "| ECE after temperature scaling |   0.012 |",
        "1 of 5 labels looks wrong",
        "| blur             | 4 px       |   81.3 % | 73.5 % to 87.2 % |",
        "**Not decided yet:** `pawline retrain`",
        f"fine_tune    | SHA-256 `{SHA256}`",
        "- Photos: an archive, 1,317 files, their fingerprint `d9d4`.",
        "- Refused: ONNX: a probability differs by 0.12, 0.0001 is tolerated",
        f"the classifier's SHA-256 is `{SHA256}`",
        "40.0 ms",
        "90 s",
    ]
    for fact in facts:
        assert fact in summary, fact


def test_headings_are_in_order_and_tables_are_whole(summary: str) -> None:
    html = PARSER.render(summary)
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        *("Data", "Likely label errors", "Training", "Evaluation", "Robustness", "Exports", "Lineage"),
    ]
    assert html.count("<table>") == len(re.findall(r"^\| -", summary, re.MULTILINE)) == 15
    assert "\n\n\n" not in summary
    assert not re.search(r"^[^|\n].*\n\|", summary, re.MULTILINE), "a table begins after an empty line"
    for block in re.findall(r"(?:^\|.*\n)+", summary, re.MULTILINE):
        bars = [[match.start() for match in re.finditer(r"(?<!\\)\|", line)][:-1] for line in block.splitlines()]
        assert all(places == bars[0] for places in bars), block


@pytest.mark.parametrize("path", ["a`b.jpg", "a`*b|c*.jpg"])
def test_a_path_that_cannot_be_code_is_escaped_once(path: str) -> None:
    assert escape(code(path)) == code(path)
    assert path.replace("&", "&amp;") in PARSER.render(f"| photo |\n|---|\n| {code(path)} |")


def test_names_are_text(summary: str) -> None:
    html = PARSER.render(summary)
    assert set(re.findall(r"<(\w+)", html)) <= {
        *("h1", "h2", "h3", "p", "strong", "code", "a", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"),
    }
    assert set(re.findall(r'href="(.*?)"', html)) == {"index.html", "validation/index.html"}
    assert "\u202e" not in summary
    shown = html.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("&quot;", '"')
    assert str(visible(HOSTILE_PATH)) in shown
    assert HOSTILE_LABEL in shown
    assert "dog_|_[x](javascript:1)" in shown
