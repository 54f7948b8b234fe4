"""The model card of a run: Markdown with the front matter that model hubs read, and a page made of it.

Nothing in it but facts of the lineage document and of the files that it names by hash: no clock, no host, no absolute
path, so that the same run gives the same card.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from lineage.records import Lineage
from lineage.runs import Project
from registry.card_run import NOT_RECORDED, CardRun, read_run
from tasks import words
from tasks.markdown import Markdown, align_tables, code, escape
from tasks.slices import FEWEST_IMAGES
from tasks.words import visible

CARD_TEMPLATE = Path(__file__).with_name("card.md.j2")
PAGE_TEMPLATE = Path(__file__).with_name("card.html.j2")
MOST_NAMED = 30  # classes named in a sentence; the table of the training data has them all


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
    from registry import card_facts

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


def _fill_in(facts: Mapping[str, Any]) -> str:
    import jinja2

    def between(interval: list[float] | None, shown: Any) -> str:  # noqa: ANN401 - a format of one figure
        return NOT_RECORDED if interval is None else f"{shown(interval[0])} to {shown(interval[1])}"

    environment = jinja2.Environment(  # noqa: S701 - not HTML: `finalize` escapes for Markdown
        undefined=jinja2.StrictUndefined, finalize=escape, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "code": code,
        "count": "{:,}".format,
        "figure": words.figure,
        "figures": lambda interval: between(interval, words.figure),
        "megabytes": words.megabytes,
        "percent": words.percent,
        "percents": lambda interval: between(interval, words.percent),
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
            dataset_name=str(visible(data_name(run))),
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
        model_name=str(visible(f"classifier {version}")),
        eval_results=results or None,
    )
    return data.to_yaml()


FIGURES = {"accuracy": "accuracy", "roc_auc": "auc", "loss": "loss"}  # as the hub calls them, and as evaluate does
