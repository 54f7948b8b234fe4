"""What Prefect's page shows of a run besides states and logs: metrics, validation, the gate's verdict, the report."""

import json
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from flows import server
from tasks.markdown import escape

METRICS_PATH = Path("reports/metrics/evaluation.json")
VALIDATION_PATH = Path("reports/metrics/validation.json")
REPORT_PATH = Path("reports/index.html")
FIGURES = ("accuracy", "auc", "loss", "images")  # of the evaluation, in this order

Metrics = dict[str, Any]


def read_metrics(path: Path = METRICS_PATH) -> Metrics:
    """Return what a stage measured, or nothing if it has not run."""
    if not path.is_file():
        return {}
    metrics: Metrics = json.loads(path.read_text(encoding="utf-8"))
    return metrics


def publish_run(before: Metrics) -> None:
    """Show what came out of a run of the pipeline in the current folder.

    Args:
        before: The evaluation as the run found it.
    """
    after, validation = read_metrics(), read_metrics(VALIDATION_PATH)
    if REPORT_PATH.is_file() and flow_run.id == flow_run.root_flow_run_id:
        # As a part of a retraining, the run is in a folder that goes when it is over.
        publish_report(REPORT_PATH, "the report")
    if after:
        create_table_artifact(
            table=compare_metrics(before, after),
            key="metrics",
            description=f"Evaluation on {after['split']} ({after['selected']}), against the run before",
        )
    if validation:
        create_markdown_artifact(
            markdown=describe_validation(validation), key="validation", description="What validation found in the data"
        )


def publish_report(report: Path, text: str, *, key: str = "report") -> None:
    """Link a report's page, under a key of Prefect's list of artifacts."""
    create_link_artifact(link=server.report_url(report), link_text=text, key=key, description=str(report))


def publish_verdict(markdown: str) -> None:
    """Show the gate's decision."""
    create_markdown_artifact(markdown=markdown, key="gate", description="Champion against challenger")


def publish_push(text: str) -> None:
    """Say what became of copying a new champion's files to the default remote."""
    create_markdown_artifact(
        markdown=str(escape(text)), key="push", description="The champion's files on the default remote"
    )


def compare_metrics(before: Metrics, after: Metrics) -> list[dict[str, Any]]:
    """Return a row a figure: now, before, and the difference."""
    rows = []
    for figure in FIGURES:
        now, then = after.get(figure), before.get(figure)
        change = None if now is None or then is None else now - then
        rows.append({"figure": figure, "this run": _shown(now), "run before": _shown(then), "change": _shown(change)})
    return rows


def describe_validation(validation: Metrics) -> str:
    """Return the validation's counts as Markdown."""
    reasons = [f"| {escape(reason)} | {count:,} |" for reason, count in sorted(validation["by_reason"].items())]
    splits = [
        f"| {split} | {sum(labels.values()):,} | "
        f"{', '.join(f'{escape(name)} {n:,}' for name, n in sorted(labels.items()))} |"
        for split, labels in validation["splits"].items()
    ]
    return "\n".join(
        [
            f"**{validation['kept']:,} of {validation['images']:,} photos kept**, {validation['quarantined']:,} "
            "quarantined",
            *(["", "| reason | photos |", "|---|---:|", *reasons] if reasons else []),
            *("", "| split | photos | by class |", "|---|---:|---|", *splits),
        ]
    )


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
