"""The model card of a run: Markdown with the front matter that model hubs read, and a page made of it.

Nothing in it but facts of the lineage document and of the files that it names by hash: no clock, no host, no absolute
path, so that the same run gives the same card.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from lineage.records import Lineage
from lineage.runs import Project
from registry.card_run import NOT_RECORDED, CardRun, read_run
from tasks.slices import FEWEST_IMAGES

CARD_TEMPLATE = Path(__file__).with_name("card.md.j2")
PAGE_TEMPLATE = Path(__file__).with_name("card.html.j2")
MOST_NAMED = 30  # classes named in a sentence; the table of the training data has them all
# What Markdown (CommonMark, GFM's tables and links, `$` for formulas) takes for its own within a line.
ACTIVE = re.compile(r"[\\`*\[\]<>|~&$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|:(?=//)|(?<=www)\.", re.IGNORECASE)


class Markdown(str):
    """Text that is Markdown already; all other text is escaped."""

    __slots__ = ()


def lineage_digest(lineage: Lineage) -> str:
    """Return the SHA-256 of a run's lineage, in hex: the same whatever the run is called and whoever ran its stages.

    Of the document as JSON with sorted keys and no spaces, in UTF-8, without `name`, `kind`, `version` (a run has none
    before it is registered) and each stage's `run`.
    """
    facts = lineage.model_dump(exclude={"name": True, "kind": True, "version": True, "stages": {"__all__": {"run"}}})
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def render_card(project: Project, lineage: Lineage, version: str) -> str:
    """Return the model card of a run, in Markdown.

    Args:
        project: The checkout, for the files that the lineage names.
        lineage: The run.
        version: The version it is, or is going to be, such as `v1.0.0`; of another run, how it is called.
    """
    from registry import card_facts  # draws in Matplotlib, by way of the report's words

    run = read_run(project, lineage)
    facts = {
        "version": version,
        "registered": lineage.version or (version if lineage.kind == "version" else None),
        "digest": lineage_digest(lineage),
        "front_matter": Markdown(_front_matter(run, version)),
        **card_facts.collect(run),
    }
    return align_tables(_fill_in(facts))


def render_html(markdown: str) -> str:
    """Return a card as a page that stands by itself: no scripts, nothing loaded.

    Args:
        markdown: As `render_card` returns it; HTML within it is shown, not taken.
    """
    import jinja2
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    text = re.sub(r"\A---\n.*?\n---\n", "", markdown, count=1, flags=re.DOTALL)
    tokens = parser.parse(re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text))
    headings = [index for index, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    parts = [
        Markup(parser.renderer.render(tokens[begin:end], parser.options, {}))  # noqa: S704 - escaped by the parser
        for begin, end in pairwise([0, *headings, len(tokens)])
    ]
    title = next((token.content for token in tokens if token.type == "inline"), "Model card")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(PAGE_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=re.sub(r"\\(\W|_)", r"\1", title), head=parts[0], sections=parts[1:])


def escape(value: object) -> object:
    """Make text mean itself in Markdown, on one line and within a table's cell; other values are left as they are.

    Characters that would not be seen, or would reorder the text around them, are spelt out.
    """
    if not isinstance(value, str) or isinstance(value, Markdown):
        return value
    return ACTIVE.sub(r"\\\g<0>", _visible(value))


def code(value: str) -> str:
    """Show text as code, if a table's cell can show it so."""
    shown = _visible(value)
    return str(escape(value)) if re.search(r"[`|]|^\s*$|^\s|\s$", shown) else Markdown(f"`{shown}`")


def align_tables(markdown: str) -> str:
    """Pad the cells of tables, so that they can be read as text; a last column of text is left as it is."""
    lines: list[str] = []
    for is_table, group in groupby(markdown.split("\n"), key=lambda line: line.startswith("|")):
        block = list(group)
        lines += _aligned(block) if is_table else block
    return "\n".join(lines)


def _aligned(lines: list[str]) -> Iterator[str]:
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rule = rows[1]
    widths = [max(len(row[column]) for row in rows if row is not rule) for column in range(len(rule))]
    to_right = [cell.endswith(":") for cell in rule]
    if not to_right[-1]:
        widths[-1] = 0
    for row in rows:
        cells = [
            (("-" * max(width - right, 2)) + ":" * right if right else "-" * max(width, 3))
            if row is rule
            else (cell.rjust(width) if right else cell.ljust(width))
            for cell, width, right in zip(row, widths, to_right, strict=True)
        ]
        yield f"| {' | '.join(cells)} |"


def _visible(text: str) -> str:
    from tasks.report import visible

    return str(visible(text))


def _fill_in(facts: Mapping[str, Any]) -> str:
    import jinja2

    from tasks import report

    def between(interval: list[float] | None, shown: Any) -> str:  # noqa: ANN401 - a format of one figure
        return NOT_RECORDED if interval is None else f"{shown(interval[0])} to {shown(interval[1])}"

    environment = jinja2.Environment(  # noqa: S701 - not HTML: `finalize` escapes for Markdown
        undefined=jinja2.StrictUndefined, finalize=escape, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "code": code,
        "count": "{:,}".format,
        "figure": report.figure,
        "figures": lambda interval: between(interval, report.figure),
        "megabytes": report.megabytes,
        "percent": report.percent,
        "percents": lambda interval: between(interval, report.percent),
    }
    environment.globals |= {"MOST_NAMED": MOST_NAMED, "FEWEST_IMAGES": FEWEST_IMAGES, "NOT_RECORDED": NOT_RECORDED}
    return environment.from_string(CARD_TEMPLATE.read_text(encoding="utf-8")).render(facts)


def _front_matter(run: CardRun, version: str) -> str:
    """Return the YAML that model hubs read."""
    from huggingface_hub import EvalResult, ModelCardData

    from registry.card_licences import data_name, model_licence

    task, metrics = "image-classification", run.lineage.metrics
    figures = {name: metrics[key] for name, key in FIGURES.items() if metrics[key] is not None} if metrics else {}
    results = [
        EvalResult(
            task_type=task,
            dataset_type=str(run.params["data.source"]),
            dataset_name=_visible(data_name(run)),
            dataset_split=metrics["split"] if metrics else None,
            metric_type=name,
            metric_value=round(value, 6),
        )
        for name, value in figures.items()
    ]
    data = ModelCardData(
        license=model_licence(run)[0].lower(),
        library_name="keras",
        pipeline_tag=task,
        tags=[task, "keras", "pawline", *(["synthetic-data"] if run.synthetic else [])],
        metrics=[name for name in figures if name != "loss"] or None,
        model_name=_visible(f"classifier {version}"),
        eval_results=results or None,
    )
    return data.to_yaml()


FIGURES = {"accuracy": "accuracy", "roc_auc": "auc", "loss": "loss"}  # as the hub calls them, and as evaluate does
