"""The command line: `pawline`.

Prefect and DVC are imported by the commands that need them, so that help appears at once.
"""

import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from tasks.stage import PawlineError

METRICS_PATH = Path("reports/metrics/evaluation.json")
REPORT_PATH = Path("reports/index.html")

logger = logging.getLogger(__name__)
app = typer.Typer(
    name="pawline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def pawline() -> None:
    """Pawline turns a folder of photos into a validated, evaluated and exported image classifier.

    What is done, in which order and from what is described in dvc.yaml, with which settings in params.yaml.
    `dvc repro` does the same work as `pawline run`, and each finds what the other has done.
    """


@app.command(name="run")
def run_command(
    stages: Annotated[
        list[str] | None, typer.Argument(metavar="STAGE", help="Stages wanted, with all they need. Default: all.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Run even what has not changed.")] = False,
) -> None:
    """Bring the pipeline up to date: run what changed, in order, and skip the rest.

    Each stage of dvc.yaml becomes one task run in Prefect: Completed when it ran, Cached when DVC found it unchanged,
    with its output in Prefect's log. A failed or interrupted run leaves earlier results intact, and the next run
    carries on from there.

    \b
    Examples:
      pawline run                     everything
      pawline run evaluate            evaluate, and what it needs
      pawline run --force train_head  once more, with what it needs

    Prefect keeps its records in .prefect/. To look at them: `prefect server start` in one terminal, then
    `PREFECT_API_URL=http://127.0.0.1:4200/api pawline run` in another.
    """  # noqa: D301 - \b keeps the lines of the examples apart
    started = time.monotonic()
    states = _run_pipeline(stages or [], force=force)
    typer.echo(_summary(states, seconds=time.monotonic() - started, everything=not stages))


def main() -> None:
    """Run the command line: exit code 1 and one line for a `PawlineError`, 130 when interrupted, 143 when ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except PawlineError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)


def _run_pipeline(targets: list[str], *, force: bool) -> dict[str, str]:
    """Go to the project's root and run the flow there, its log on the terminal and Prefect's own words not."""
    os.chdir(_project_root())
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    _log_to_terminal()
    try:
        from flows import dvc_graph

        dvc_graph.plan_stages(targets)  # what is wrong with dvc.yaml or the targets shows before Prefect starts
        logger.info("starting Prefect")
        from flows import server
        from flows.pipeline import pipeline

        server.connect()
        return pipeline(targets, force=force)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the next run carries on from here\n")
        raise typer.Exit(130) from None


def _project_root() -> Path:
    """Return the nearest folder, from the current one upwards, that holds a dvc.yaml."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise PawlineError(f"no dvc.yaml in {here} or above it: change to a checkout of Pawline first")


def _log_to_terminal() -> None:
    """Show what the flow logs, each line after the name of its stage."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(stage)-10s | %(message)s", defaults={"stage": "pawline"}))
    flows_logger = logging.getLogger("flows")
    flows_logger.propagate = False
    flows_logger.addHandler(handler)


def _summary(states: dict[str, str], *, seconds: float, everything: bool) -> str:
    """Return the last line: how much was work, what came out and where to look (if everything is up to date)."""
    counts = Counter(states.values())
    parts = [f"{counts['Completed']} of {len(states)} stages run, {counts['Cached']} cached, in {seconds:.0f} s"]
    if everything and METRICS_PATH.exists():
        metrics = json.loads(METRICS_PATH.read_text(encoding="utf-8"))
        parts.append(f"{metrics['split']} accuracy {metrics['accuracy']:.4f} ({metrics['selected']})")
    if everything and REPORT_PATH.exists():
        parts.append(f"see {REPORT_PATH}")
    return "; ".join(parts)
