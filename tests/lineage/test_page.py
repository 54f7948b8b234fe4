"""The page: everything by its full hash behind links that lead somewhere, and nothing in it that could run or load."""

import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from lineage.lockfile import flatten
from lineage.page import render, telling_fact
from lineage.records import Lineage
from lineage.runs import Project, find_run
from lineage.trace import trace
from tests.browser import CHROMIUM, needs_chromium
from tests.lineage.test_tree import sample

CLOSED = ("br", "meta", "rect", "path", "i", "img", "link")
ADDRESSES = ("href", "src", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href", "style")
ATTACKS = """\
<script>document.title='ran'</script>
"><img src=x onerror="document.title='ran'">
'><img src=ADDRESS/quoted><iframe src=ADDRESS/frame></iframe>
</style></title></svg><svg/onload=document.title='ran'><link rel=stylesheet href=ADDRESS/sheet>
<meta http-equiv=refresh content="0;url=ADDRESS/refresh">
javascript:document.title='ran'
{{ 7 * 7 }}{% set x = 1 %}<style>*{background:url(ADDRESS/style)}</style>
""".splitlines()


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in CLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in CLOSED:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def check(text: str) -> Page:
    """The page is well-formed, every link leads to a place within it, and nothing can run or load."""
    page = Page(text)
    assert page.open == []
    assert not page.tags & {"script", "img", "iframe", "link", "object", "embed", "form", "base", "image", "use"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    anchors = page.values("id")
    assert len(anchors) == len(set(anchors))
    for name, value in page.attributes:
        if name in ADDRESSES:
            assert (name == "href" and value[:1] == "#" and value[1:] in anchors) or value.startswith("stroke: ")
    assert page.values("http-equiv") == ["Content-Security-Policy"]
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page.values("content")
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    return page


def poisoned(value: Any, attack: str) -> Any:  # noqa: ANN401 - JSON
    """A document with an attack at the end of every text and every key of a free mapping."""
    if isinstance(value, str):
        return value + attack
    if isinstance(value, list):
        return [poisoned(item, attack) for item in value]
    if isinstance(value, dict):
        return {key: poisoned(item, attack) for key, item in value.items()}
    return value


def hostile(attack: str, *, names: bool) -> Lineage:
    """The sample with an attack in every text; in the stages' names only if wanted, as much goes by them."""
    document = poisoned(sample().model_dump(), attack)
    for part in ("params", "fingerprint"):
        document["source"][part][attack] = attack
    document["counts"]["by_reason"][attack] = 1
    document["environment"]["packages"][attack] = attack
    document["metrics"][attack] = document["weights"][attack] = attack
    document["missing"] = document["uncommitted"] = [attack]
    document["kind"], document["schema_id"] = "version", sample().schema_id
    for stage, whole in zip(document["stages"], sample().stages, strict=True):
        stage["params"][attack] = attack
        if not names:
            stage["name"] = whole.name
            for artifact in stage["inputs"] + stage["outputs"]:
                artifact["stage"] = artifact["stage"].removesuffix(attack)
    return Lineage.model_validate(document)


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A web server that writes down what it is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def open_in_chromium(text: str, folder: Path) -> str:
    """Return the document as the browser has it after everything that could run has run."""
    assert CHROMIUM is not None
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        f"--user-data-dir={folder}/chromium",
    ]
    done = subprocess.run([CHROMIUM, *flags, "--dump-dom", path.as_uri()], capture_output=True, timeout=60, check=True)
    return done.stdout.decode()


def title(document: str) -> str:
    found = re.search(r"<title>(.*?)</title>", document)
    return found[1] if found else ""


def test_a_real_run_has_every_hash_in_full_and_every_stage_in_the_picture(three_runs: Path) -> None:
    project = Project(three_runs)
    lineage = trace(project, find_run(project, None))
    text = render(lineage)
    page = check(text)
    for stage in lineage.stages:
        assert f"#stage-{stage.name}" in page.values("href")
        assert all(artifact.md5 in page.text for artifact in stage.code + stage.inputs + stage.outputs)
        assert all(key in page.text for key in stage.params)
    for fact in ("SYNTHETIC DATA", "exact duplicate", "TF-Hub MobileNetV2", "Take more photos", lineage.model.md5):
        assert fact in page.text
    assert lineage.commit is not None
    assert lineage.commit.id in page.text
    assert [lineage.stage(name) and telling_fact(lineage, lineage.stage(name)) for name in ("source", "validate")] == [
        "synthetic, 90 images",
        "80 of 90 kept",
    ]
    assert telling_fact(lineage, lineage.stage("fine_tune")) == "stage1 selected"
    assert re.fullmatch(r"9\.\d MB in 8 files", telling_fact(lineage, lineage.stage("train_head")))
    assert render(lineage) == text, "the same lineage gives the same bytes"


def test_what_is_not_known_is_said_and_not_guessed() -> None:
    changes = {"counts": None, "weights": None, "metrics": None, "commit": None, "kind": "workspace"}
    lineage = sample(missing=["data/source.json"], uncommitted=["dvc.lock"], version=None, **changes)
    page = check(render(lineage))
    assert page.text.count("not known here") >= 3
    assert "data/source.json" in page.text
    assert "Not committed:" in page.text
    assert "SYNTHETIC" not in page.text
    assert telling_fact(lineage, lineage.stage("validate")) == "37.0 kB in 3 files", "what it wrote"


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_texts_of_others_stay_texts(attack: str, names: bool) -> None:
    lineage = hostile(attack, names=names)
    page = check(render(lineage))
    assert page.text.count(attack) > 40
    assert "49" not in page.text.replace(lineage.model.md5, ""), "nothing in the data is a template"


def test_texts_cannot_hide_or_reorder_others() -> None:
    text = render(hostile("\u202egnp.exe\u200b", names=False))
    assert "\u202e" not in text
    assert "\\u202egnp.exe\\u200b" in text


@needs_chromium
def test_nothing_runs_and_nothing_is_loaded_in_a_browser(tmp_path: Path) -> None:
    with listening() as (address, asked):
        attacks = " ".join(ATTACKS).replace("ADDRESS", address)
        bare = re.sub(r"<meta http-equiv=refresh.*?>", "", attacks)
        assert title(open_in_chromium(f"<title>page</title>{bare}", tmp_path)) == "ran", "or the test is blind"
        assert asked
        asked.clear()
        text = render(hostile(attacks, names=True))
        without_policy = re.sub(r"<meta http-equiv=.*?>\n", "", text)
        assert 'http-equiv="Content' not in without_policy
        for page in (text, without_policy):
            document = open_in_chromium(page, tmp_path)
            assert title(document).startswith("Lineage of v2.0.0&lt;script&gt;")
            assert document.count("<section") == text.count("<section")
        assert asked == []


def test_parameters_are_shown_exactly() -> None:
    page = check(render(sample()))
    params = dict(flatten(sample().stage("validate").params))
    assert params["validate.rate"] == 0.0005
    assert "0.0005" in page.text
    assert "0.9877" in page.text
