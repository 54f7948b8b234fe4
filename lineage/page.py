"""The lineage as one page that stands by itself: a picture of the graph, and behind each box what is on record."""

import re
from dataclasses import dataclass
from pathlib import Path

import jinja2

from lineage import graph_picture, tree
from lineage.lockfile import flatten
from lineage.records import Lineage, StageRecord
from lineage.words import size
from tasks.words import visible

TEMPLATE = Path(__file__).with_name("page.html.j2")
LONGEST_NAME, LONGEST_FACT = 18, 27  # characters that fit into a box of the picture
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class StageView:
    """A stage as the page shows it.

    Attributes:
        stage: The record.
        anchor: The id of its section.
        fact: The most telling thing about it, in a few words.
        readers: The stages that read what it wrote.
        makes: Whether the classifier comes from it.
    """

    stage: StageRecord
    anchor: str
    fact: str
    readers: list[str]
    makes: bool


def render(lineage: Lineage) -> str:
    """Return the page: no scripts, nothing loaded, every link within the page.

    Raises:
        PawlineError: The stages read each other in a circle.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=visible
    )
    filters = (tree.show, size, tree.short, tree.rounded, tree.code_files, tree.code_digest, tree.counted)
    environment.filters |= {function.__name__: function for function in filters}
    environment.filters |= {"flat": lambda facts: list(flatten(facts)), "cut": _cut}
    views = _views(lineage)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        lineage=lineage,
        views=views,
        anchors={view.stage.name: view.anchor for view in views},
        picture=graph_picture.draw(lineage),
        splits=_splits(lineage),
        synthetic=(lineage.source.fingerprint or lineage.source.params).get("source") == "synthetic"
        or lineage.source.params.get("data.source") == "synthetic",
        longest_name=LONGEST_NAME,
        longest_fact=LONGEST_FACT,
    )
    return page + "\n"


def telling_fact(lineage: Lineage, stage: StageRecord) -> str:
    """Return what a reader wants to know first of a stage; of one that is not known here, what it wrote."""
    fingerprint, counts, weights = lineage.source.fingerprint, lineage.counts, lineage.weights
    metrics = lineage.metrics
    if stage.name == "source" and fingerprint is not None:
        known = [noun for noun in ("image", "file") if f"{noun}s" in fingerprint]
        amounts = [tree.counted(fingerprint[f"{noun}s"], noun) for noun in known]
        return ", ".join([fingerprint["source"], *amounts])
    if stage.name == "validate" and counts is not None:
        return f"{counts.kept:,} of {counts.images:,} kept"
    if stage.name == "backbone" and weights is not None:
        return f"{weights['name']} from {weights['source']}"
    if stage.name == "evaluate" and metrics is not None:
        return f"{metrics['split']} accuracy {tree.rounded(metrics['accuracy'])}"
    if stage.name == "fine_tune" and metrics is not None:
        return f"{metrics['selected']} selected"
    files = sum(artifact.files or 1 for artifact in stage.outputs)
    return f"{size(sum(artifact.bytes for artifact in stage.outputs))} in {tree.counted(files, 'file')}"


def _views(lineage: Lineage) -> list[StageView]:
    makers = tree.makers(lineage)
    return [
        StageView(
            stage=stage,
            anchor="stage-" + re.sub(r"[^A-Za-z0-9_-]", "-", stage.name),
            fact=telling_fact(lineage, stage),
            readers=[other.name for other in lineage.stages if any(read.stage == stage.name for read in other.inputs)],
            makes=stage.name in makers,
        )
        for stage in lineage.stages
    ]


def _splits(lineage: Lineage) -> list[str]:
    """Return the splits there are, in their usual order."""
    names = [] if lineage.counts is None else list(lineage.counts.splits)
    return sorted(names, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"
