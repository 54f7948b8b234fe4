import json
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.sorting import FlowRunSort

from flows import artifacts

BEFORE = {"split": "test", "selected": "stage1", "accuracy": 0.9, "auc": None, "loss": 0.3, "images": 1200}
AFTER = {"split": "test", "selected": "stage2", "accuracy": 0.925, "auc": 0.98, "loss": 0.2, "images": 1300}
VALIDATION = {
    "images": 1500,
    "kept": 1488,
    "quarantined": 12,
    "by_reason": {"truncated": 5, "blank": 7},
    "splits": {"test": {"dog": 100, "cat": 50}, "train": {"cat": 700, "dog": 638}},
}


def test_figures_stand_beside_those_of_the_run_before() -> None:
    assert artifacts.compare_metrics(BEFORE, AFTER) == [
        {"figure": "accuracy", "this run": "0.9250", "run before": "0.9000", "change": "0.0250"},
        {"figure": "auc", "this run": "0.9800", "run before": "-", "change": "-"},
        {"figure": "loss", "this run": "0.2000", "run before": "0.3000", "change": "-0.1000"},
        {"figure": "images", "this run": "1,300", "run before": "1,200", "change": "100"},
    ]


def test_validation_is_told_in_counts() -> None:
    lines = artifacts.describe_validation(VALIDATION).splitlines()
    assert lines[0] == "**1,488 of 1,500 photos kept**, 12 quarantined"
    assert "| blank | 7 |" in lines
    assert lines[-2:] == ["| test | 150 | cat 50, dog 100 |", "| train | 1,338 | cat 700, dog 638 |"]


@pytest.mark.usefixtures("prefect_url")
def test_they_are_on_the_page_of_the_run(workdir: Path) -> None:
    artifacts.METRICS_PATH.parent.mkdir(parents=True)

    @flow
    def publishes() -> None:
        before = artifacts.read_metrics()
        artifacts.METRICS_PATH.write_text(json.dumps(AFTER))
        artifacts.VALIDATION_PATH.write_text(json.dumps(VALIDATION))
        artifacts.publish_run(before)
        artifacts.publish_report(workdir / "reports/index.html", "the report")
        artifacts.publish_verdict("**refused**")

    publishes()
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(limit=1, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        found = {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=of_run)}
    assert set(found) == {"metrics", "validation", "report", "gate"}
    assert json.loads(str(found["metrics"].data)) == artifacts.compare_metrics({}, AFTER)
    assert found["gate"].data == "**refused**"
    assert str(workdir / "reports/index.html") in str(found["report"].data)
