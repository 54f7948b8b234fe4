"""`pawline report`: the page with what no stage can know, and the same on the terminal."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.models import NONE, table
from flows.commands.shared import enter_project, interruptible
from tasks.stage import write_json

REPORT_PATH, EXPORT_PATH = Path("reports/index.html"), Path("models/export/export.json")
EVALUATION_PATH, CONTEXT_PATH = Path("reports/metrics/evaluation.json"), Path("reports/context.json")


def report_command(
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    times: Annotated[
        bool,
        typer.Option(
            "--times/--no-times", help="Measure how long each export takes for one photo, or keep what is known."
        ),
    ] = True,
) -> None:
    """Say how the last run stands, and bring its page up to date.

    Adds to the page what no stage can know: accuracy against the champion, or else the run before; whether the model
    was promoted; how long each export takes for one photo on this machine, and how long the stages took, as far as
    `pawline run` noted it. It is kept in reports/context.json, which is yours to commit, so that the page can be made
    again byte for byte.

    \b
    Examples:
      pawline report               what there is, and where the page is
      pawline report --open        and look at it
      pawline report --no-times    without measuring
    """  # noqa: D301 - \b keeps the lines of the examples apart
    enter_project()
    with interruptible("the page is the one it was"):
        from flows import dvc_graph, report_context
        from lineage.runs import Project

        project = Project(Path.cwd())
        # What is missing shows before anything is measured.
        digest = report_context.read_classifier_digest(project.root)
        with dvc_graph.only_run() as lock_fd:
            latency_ms, machine = (
                (report_context.time_exports(project.root), None) if times else report_context.known_times(digest)
            )
            context = report_context.collect(project, latency_ms, machine)
            write_json(context, CONTEXT_PATH)
            dvc_graph.reproduce_stage("report", force=False, lock_fd=lock_fd)
    exported = _read_json(EXPORT_PATH)
    typer.echo(_in_words(_read_json(EVALUATION_PATH), exported))
    typer.echo(_exports_table(exported, latency_ms))
    typer.echo(f"page: {REPORT_PATH}")
    if show:
        typer.launch(str(REPORT_PATH))


def _in_words(evaluation: dict[str, Any], exported: dict[str, Any]) -> str:
    """Return what the page says first."""
    from tasks.report.answer import compare, read_context

    context = read_context(CONTEXT_PATH, exported["classifier_sha256"])
    comparison = compare(evaluation, context)
    low, high = evaluation["accuracy_interval"]
    lines = [
        f"accuracy {evaluation['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}) on {evaluation['images']:,} "
        f"photos of {evaluation['split']}",
        "no champion and no earlier run to compare with" if comparison is None else comparison.finding,
    ]
    return "\n".join([*lines, *([f"promoted: {context.verdict['text']}"] if context.verdict else [])])


def _exports_table(exported: dict[str, Any], latency_ms: dict[str, float]) -> str:
    from tasks.words import percent

    rows = [["export", "size", "one photo", "largest difference", "same answers"]]
    for name, facts in exported["formats"].items():
        took = f"{latency_ms[name]:.1f} ms" if name in latency_ms else NONE
        size = f"{facts['bytes'] / 1e6:.1f} MB"
        rows.append([name, size, took, f"{facts['max_difference']:.2g}", percent(facts["same_answers"])])
    return "\n".join([table(rows), *(f"{name} was refused: {why}" for name, why in exported["refused"].items())])


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
