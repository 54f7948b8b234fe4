"""The report's facts as a page and as Markdown; every value is shown as text, whatever it holds."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from tasks import words
from tasks.markdown import align_tables, code, escape
from tasks.report.lineage import is_folder

TEMPLATES = Path(__file__).with_name("page")
PAGE, SUMMARY = "page.html.j2", "summary.md.j2"


def render_page(facts: Mapping[str, Any]) -> str:
    """Return the page."""
    environment = _environment(autoescape=True, finalize=words.visible)
    page = environment.get_template(PAGE).render(facts)
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", page) + "\n"


def render_summary(facts: Mapping[str, Any]) -> str:
    """Return the same facts in Markdown, its tables aligned."""
    environment = _environment(autoescape=False, finalize=escape)
    environment.filters["code"] = code
    return align_tables(environment.get_template(SUMMARY).render(facts)) + "\n"


def _environment(**options: Any) -> jinja2.Environment:  # noqa: ANN401 - Jinja's
    environment = jinja2.Environment(  # noqa: S701 - Markdown is escaped by `finalize`
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    names = ("percent", "points", "figure", "small", "megabytes", "seconds", "counted", "name")
    environment.filters |= {name: getattr(words, name) for name in names}
    environment.filters["count"] = "{:,}".format
    environment.tests["folder"] = is_folder
    return environment
