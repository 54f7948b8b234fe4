"""What the report is told that no stage can know: the standing, and the times."""

import hashlib
import json
from pathlib import Path

import pytest

from flows.report_context import CONTEXT_PATH, collect, describe_machine, draw, known_times, read_classifier_digest
from lineage import git, prefect_runs
from lineage.records import RunRecord
from lineage.runs import MODEL_PATH, WORKSPACE, Project, find_run
from registry.champion import promote, rollback
from registry.register import register
from registry.signing import KEY_VARIABLE
from tasks.stage import PawlineError, write_json


@pytest.fixture
def project(three_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return Project(three_runs)


def evaluation_at(project: Project, revision: str) -> dict[str, object]:
    run = find_run(project, revision)
    content = project.store.read_path(project.lock(run), "reports/metrics/evaluation.json")
    figures: dict[str, object] = json.loads(content or b"")
    return figures


def test_without_a_champion_it_is_compared_with_the_run_before(project: Project) -> None:
    context = collect(project, {"keras": 12.3456})
    before = evaluation_at(project, "HEAD~1")
    assert context["classifier_sha256"] == hashlib.sha256((project.root / MODEL_PATH).read_bytes()).hexdigest()
    assert context["against"]["name"] == git.find_commit(project.root, "HEAD~1")[:10]  # type: ignore[index]
    assert (context["against"]["kind"], context["against"]["same_classifier"]) == ("previous run", False)
    assert {key: context["against"][key] for key in ("accuracy", "images", "loss")} == {
        key: before[key] for key in ("accuracy", "images", "loss")
    }
    assert (context["verdict"], context["stages"]) == (None, {})
    assert (context["latency_ms"], context["machine"]) == ({"keras": 12.35}, describe_machine())


def test_with_champions_it_is_compared_with_the_one_that_it_is_not(project: Project) -> None:
    register(project, find_run(project, "HEAD~2"), reason="first")
    promote(project, find_run(project, "v1"), reason="all there is")
    challenger = collect(project, {})
    assert (challenger["against"]["name"], challenger["against"]["kind"]) == ("v1.0.0", "champion")
    assert challenger["against"]["accuracy"] == evaluation_at(project, "v1")["accuracy"]
    assert challenger["verdict"] is None

    register(project, find_run(project, "HEAD"), reason="more photos")
    promote(project, find_run(project, "v2"), reason="better on every class")
    promoted = collect(project, {})
    assert promoted["verdict"] == {"promoted": True, "text": "better on every class"}
    assert promoted["against"] == challenger["against"] | {"kind": "former champion"}

    rollback(project, to=None, reason="it was worse")
    assert collect(project, {}) == challenger


def test_the_first_champion_is_compared_with_itself_and_has_a_verdict_if_somebody_decided(project: Project) -> None:
    register(project, find_run(project, "HEAD"), reason="first")
    git.git(project.root, "tag", "classifier#champion#1")  # as GTO would
    context = collect(project, {})
    assert (context["against"]["same_classifier"], context["verdict"]) == (True, None)
    git.git(project.root, "tag", "--delete", "classifier#champion#1")

    promote(project, find_run(project, "v1"), reason="")
    context = collect(project, {})
    assert context["against"]["same_classifier"]
    assert context["verdict"] == {"promoted": True, "text": "promoted by tests <tests@example.com>"}


def test_known_times_are_of_the_machine_where_they_were_measured(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    digest = read_classifier_digest(project.root)
    write_json(collect(project, {"keras": 12.3}, "8 x Fast"), project.root / CONTEXT_PATH)
    assert known_times(digest) == ({"keras": 12.3}, "8 x Fast")
    assert collect(project, *known_times(digest))["machine"] == "8 x Fast"
    assert known_times("another") == ({}, None)


def test_times_are_those_that_pawline_run_noted_for_this_very_run(project: Project) -> None:
    locked = project.lock(WORKSPACE)["train_head"]
    record = RunRecord(
        flow_run_id="1",
        flow_run_name="quick-otter",
        task_run_id="2",
        started="2026-01-01T00:00:00.500+00:00",
        ended="2026-01-01T00:00:08.250+00:00",
    )
    prefect_runs.write_record(project, locked, record)
    assert collect(project, {})["stages"] == {"train_head": {"seconds": 7.75}}


def test_nothing_that_ran_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PawlineError, match=r"models/export/export\.json is missing: `dvc repro` makes it"):
        read_classifier_digest(tmp_path)


def test_a_page_is_drawn_beside_what_is_known(project: Project, tmp_path: Path) -> None:
    committed = (project.root / "reports/index.html").read_bytes()
    context = collect(project, {}) | {"verdict": {"promoted": False, "text": "not better beyond chance"}}
    folder = tmp_path / "page"
    folder.mkdir()
    draw(context, project.root, folder / "report.html")
    assert "not better beyond chance" in (folder / "report.html").read_text()
    assert "not better beyond chance" in (folder / "summary.md").read_text()
    assert (project.root / "reports/index.html").read_bytes() == committed
    (project.root / "data/source.json").unlink()
    with pytest.raises(PawlineError, match=r"tasks\.report failed: data/source\.json is missing"):
        draw(context, project.root, folder / "report.html")
