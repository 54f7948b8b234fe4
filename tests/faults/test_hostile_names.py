"""Names of classes, folders and files that mean something to a browser, a shell or a terminal, through a whole run."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.browser import needs_chromium, open_chromium
from tests.faults.conftest import Report
from tests.faults.fuzz_seeds import encoded, exif
from tests.faults.results import Fault
from tests.faults.test_hostile import MARKUP, SVG
from tests.test_audit import PAWLINE
from tests.test_pipeline import commit, copy_project, run, set_params
from tests.three_runs import SMALL

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = "photos <b>;touch canary;$(touch canary) 'quoted\""
CLASSES = (
    "<img src=x onerror=alert(1)>&amp;<svg onload=alert(2)>",
    '"];click A "javascript:alert(3)" [x](javascript:alert(4)) ![y](y.png) | `b` {{7*7}} {%raw%}',
    r"=cmd|' '!A1 $(touch canary)`touch canary`;touch canary %s%n{0.__class__} --out=canary ..\\..\\canary",
)
FILES = (
    "<script>document.title='ran'.jpg",
    "a\nerror: done\r.jpg",
    "\x1b]0;owned\x07\x1b[2J.jpg",
    "\u202egpj.exe.jpg",
    "$(touch canary);touch canary&|`touch canary`.jpg",
    "--help.jpg",
    "x" * 240 + ".jpg",
    "javascript:alert(5).jpg",
    "{{ 7*7 }}{% for x in y %}.jpg",
    "%s%n%(x)s{0.__class__}.jpg",
    "'\" onmouseover=alert(6) x='.jpg",
    "]]>--><svg onload=alert(7)>.jpg",
)
DAMAGED = {"cut <i>\n.jpg": 0.5, "\x1b[31m cut.jpg": 0.7}
PHOTOS = 24  # a class
COMMANDS = (
    "models",
    "lineage",
    "lineage --json",
    "lineage --prov",
    "lineage --openlineage",
    "lineage --cyclonedx",
    "lineage --html lineage.html",
    "lineage data/predictions.parquet#0",
    "card v1 --out card.md",
    "card v1 --html card.html",
    "verify v1",
    "why",
    "compare v1 HEAD",
    "report",
)
HEARD = """
window.ran = [];
for (const name of ['alert', 'confirm', 'prompt', 'print', 'open']) { window[name] = (...all) => window.ran.push(name) }
"""
# Of an SVG's links, too.
LINKS = "all => all.map(one => new URL(one.href.baseVal ?? one.href, location.href).protocol)"


class Ran(NamedTuple):
    """A whole run on such names: its folder, and what its commands printed."""

    project: Path
    printed: dict[str, str]


def photo(label: int, number: int) -> Image.Image:
    """A picture of its own, in the colour of its class."""
    chance = np.random.default_rng(1000 * label + number)
    small = chance.integers(0, 120, (7, 7, 3), np.uint8)
    small[..., label] += 130
    return Image.fromarray(small).resize((96, 80), Image.Resampling.BICUBIC)


def write_photos(folder: Path) -> None:
    chance = random.Random(3)  # noqa: S311 - reproducible, not secret
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        names = [*FILES, *(f"{number}.jpg" for number in range(len(FILES), PHOTOS))]
        for number, file in enumerate(names):
            options: dict[str, Any] = chance.choice(({}, {"exif": exif()}, {"comment": MARKUP}))
            (folder / name / file).write_bytes(encoded(photo(label, number), "JPEG", **options))
        for file, share in DAMAGED.items():
            content = encoded(photo(label, int(1000 * share)), "JPEG")
            (folder / name / file).write_bytes(content[: int(share * len(content))])
        (folder / name / "svg.jpg").write_bytes(SVG + str(label).encode())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("names")
    project = root / "project"
    project.mkdir()
    copy_project(project)
    write_photos(root / FOLDER)
    values = {"data.source": "directory", "data.path": f"../{FOLDER}", "validate.min_images_per_class": 5}
    set_params(project, SMALL | values)
    commit(project)
    for key, value in {"name": "<b>$(touch canary)", "email": "tests@example.com"}.items():
        run(["git", "config", f"user.{key}", value], project)
    printed = {"dvc repro": output(["dvc", "repro"], project)}
    run(["git", "add", "--all"], project)
    run(["git", "commit", "--quiet", "--message", "<script>alert(8)</script> `touch canary` {{7*7}}"], project)
    for command in ("register", "promote", *COMMANDS):
        told = ["--reason", "<img src=x onerror=alert(9)>$(touch canary)"] if command == "promote" else []
        which = ["v1"] if command == "promote" else []
        printed[command] = output([*PAWLINE, *command.split(), *which, *told], project)
    return Ran(project, printed)


def output(command: list[str], project: Path) -> str:
    done = run(command, project)
    return done.stdout + done.stderr


def test_nothing_runs_in_a_shell_and_no_name_steers_a_terminal(
    whole_suite_only: None, ran: Ran, report: Report
) -> None:
    assert list(ran.project.parent.rglob("canary*")) == []
    for command, text in ran.printed.items():
        steering = {char for char in text if not char.isprintable()} - set("\n\t\r")
        assert steering == set(), command
        assert "error: done" not in text.replace("\\nerror: done", ""), command
    summary = "".join(path.read_text("utf-8") for path in (ran.project / "reports/summary.md", ran.project / "card.md"))
    assert summary.replace("\n", "").isprintable()
    commands = ", ".join(dict.fromkeys(command.split()[0] for command in COMMANDS))
    report(
        Fault.HOSTILE,
        "classes, folders and files with names for a shell or a terminal, through a run and its commands",
        tries=len(ran.printed),
        held=len(ran.printed),
        seen=f"dvc repro; pawline register, promote, {commands}",
    )


@needs_chromium
def test_nothing_runs_in_a_page(whole_suite_only: None, ran: Ran, report: Report) -> None:
    pages = sorted([*ran.project.glob("*.html"), *ran.project.glob("reports/**/*.html")])
    assert {"lineage.html", "card.html", "index.html", "source-files.html"} <= {page.name for page in pages}
    held = 0
    for page, (happened, title, text) in zip(pages, opened(pages), strict=True):
        assert happened == [], page
        assert "ran" not in title, page
        if page.parent.name != "validation" and page.name != "lineage.html":
            assert "{{7*7}}" in text, "a template's braces are text"
        held += 1
    index = (ran.project / "reports/index.html").read_text("utf-8")
    assert "alert(1)" in index, "the class is named"
    assert not {"\u202e", "\x1b"} & set(index)
    seen = ", ".join(sorted({page.name for page in pages}))
    report(Fault.HOSTILE, "pages made of such names, in Chromium", tries=len(pages), held=held, seen=seen)


def opened(pages: list[Path]) -> Iterator[tuple[list[str], str, str]]:
    """Open each page, touch what can be touched, and yield what happened, its title and its text."""
    with open_chromium() as browser:
        for page in pages:
            tab = browser.new_page()
            happened = listen(tab)
            tab.goto(page.as_uri())
            tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
            tab.eval_on_selector_all("body *", "all => all.forEach(one => one.dispatchEvent(new Event('mouseover')))")
            ran = [str(one) for one in tab.evaluate("window.ran")]
            strange = [link for link in tab.eval_on_selector_all("a", LINKS) if link != "file:"]
            loaded = [one for one in happened if not one.startswith(("data:", page.parent.as_uri()))]
            yield loaded + ran + strange, tab.title(), tab.inner_text("body")
            tab.close()


def listen(tab: "Page") -> list[str]:
    """Return what will hold whatever a tab says, opens or asks for."""
    happened: list[str] = []
    tab.add_init_script(HEARD)
    tab.on("dialog", lambda dialog: happened.append(f"dialog {dialog.message}"))
    tab.on("console", lambda message: happened.append(f"console {message.text}"))
    tab.on("pageerror", lambda error: happened.append(f"error {error}"))
    tab.on("popup", lambda _: happened.append("popup"))
    tab.on("request", lambda asked: happened.append(asked.url))
    return happened
