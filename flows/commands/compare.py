"""`pawline compare`: two versions side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.models import NONE, cell, table
from flows.commands.shared import enter_project

if TYPE_CHECKING:
    from lineage.records import Lineage
    from lineage.runs import Project, Run
    from registry.ledger import Ledger


def compare_command(
    first: Annotated[str, typer.Argument(metavar="V1", help="A version, or another run.")],
    second: Annotated[str, typer.Argument(metavar="V2", help="Another.")],
) -> None:
    """Put the figures and parameters of two versions side by side.

    \b
    Examples:
      pawline compare v1 v2
      pawline compare champion workspace
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    from lineage.runs import Project, find_from
    from registry import ledger

    project = Project(Path.cwd())
    book = ledger.load(project.root) if project.has_history else ledger.Ledger(project.root)
    one, two = (_lineage(project, book, find_from(project, what, here)) for what in (first, second))
    rows = [["", one.name, two.name], *_figure_rows(one, two), *_photo_rows(one, two), *_param_rows(one, two)]
    typer.echo(table(rows))
    typer.echo(f"next: `pawline lineage {first} {second}` compares them photo by photo and file by file")


def _lineage(project: "Project", book: "Ledger", run: "Run") -> "Lineage":
    """Return a version's lineage as it was registered, and another run's as it is."""
    from lineage.trace import trace

    entry = book.entry(run.name) if run.kind == "version" else None
    return entry.lineage if entry is not None else trace(project, run)


def _figure_rows(one: "Lineage", two: "Lineage") -> list[list[str]]:
    rows = [["evaluated on", *(cell((run.metrics or {}).get("split")) for run in (one, two))]]
    for figure in ("accuracy", "auc", "loss"):
        for name in (figure, f"{figure}_interval"):
            values = [(run.metrics or {}).get(name) for run in (one, two)]
            if any(value is not None for value in values):
                rows.append([name.replace("_", " "), *map(cell, values)])
    return rows


def _photo_rows(one: "Lineage", two: "Lineage") -> list[list[str]]:
    counts = [run.counts for run in (one, two)]
    splits = list(dict.fromkeys(split for count in counts if count is not None for split in count.splits))
    rows = [["photos kept", *(NONE if count is None else f"{count.kept:,}" for count in counts)]]
    for split in splits:
        sums = [None if count is None else sum(count.splits.get(split, {}).values()) for count in counts]
        rows.append([f"  {split}", *map(cell, sums)])
    return [*rows, ["quarantined", *(NONE if count is None else f"{count.quarantined:,}" for count in counts)]]


def _param_rows(one: "Lineage", two: "Lineage") -> list[list[str]]:
    first, second = ({key: value for stage in run.stages for key, value in stage.params.items()} for run in (one, two))
    keys = [key for key in dict.fromkeys([*first, *second]) if first.get(key, NONE) != second.get(key, NONE)]
    return [[key, *(str(params.get(key, NONE)) for params in (first, second))] for key in keys]
