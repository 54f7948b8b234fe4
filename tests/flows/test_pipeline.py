import time
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterTaskRunId
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import FlowRunSort, LogSort

from flows.pipeline import pipeline
from lineage.prefect_runs import find_record
from lineage.records import RunRecord
from lineage.runs import WORKSPACE, Project
from tasks.stage import PawlineError
from tests.flows.conftest import FAILS, PARAMS, dvc

pytestmark = pytest.mark.usefixtures("prefect_url")

ALL_COMPLETED = dict.fromkeys(["source", "left", "right", "join"], "Completed")
ALL_CACHED = {"source": "Completed", "left": "Cached", "right": "Cached", "join": "Cached"}  # source always runs


def recorded_task_runs(count: int) -> list[TaskRun]:
    """Return the last flow run's task runs as the server has them, once that many are there and over."""
    with get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(limit=1, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        of_last = FlowRunFilter(id=FlowRunFilterId(any_=[last.id]))
        for _ in range(100):  # the server writes them down a little later
            runs = client.read_task_runs(flow_run_filter=of_last)
            if len(runs) == count and all(run.state is not None and run.state.is_final() for run in runs):
                return sorted(runs, key=lambda run: str(run.start_time))
            time.sleep(0.1)
    pytest.fail(f"{[(run.name, run.state_name) for run in runs]} are not {count} finished task runs")


def recorded_states(count: int) -> list[tuple[str, str | None]]:
    return [(run.name, run.state_name) for run in recorded_task_runs(count)]


def recorded_lines(task_run: TaskRun, *, last: str) -> list[str]:
    """Return the lines of a task run's log, once the one that begins with `last` has arrived."""
    of_run = LogFilter(task_run_id=LogFilterTaskRunId(any_=[task_run.id]))
    with get_client(sync_client=True) as client:
        for _ in range(100):
            lines = [log.message for log in client.read_logs(of_run, sort=LogSort.TIMESTAMP_ASC)]
            if any(line.startswith(last) for line in lines):
                return lines
            time.sleep(0.1)
    pytest.fail(f"no line begins with {last!r} in {lines}")


def test_every_stage_is_a_task_run_and_then_cached(project: Path) -> None:
    assert list(pipeline().items()) == list(ALL_COMPLETED.items())
    assert recorded_states(4) == list(ALL_COMPLETED.items())
    assert (project / "join.txt").exists()
    assert pipeline() == ALL_CACHED
    assert recorded_states(4) == list(ALL_CACHED.items())


def test_the_lineage_knows_which_task_run_ran_a_stage_but_not_of_one_that_was_not_run(project: Path) -> None:
    def record(stage: str) -> RunRecord | None:
        return find_record(Project(project), Project(project).lock(WORKSPACE)[stage])

    dvc("repro", "--single-item", "source", "left")
    pipeline()
    task_runs = {run.name: run for run in recorded_task_runs(4)}
    assert record("left") is None, "DVC ran it, and Prefect found it done"
    join = record("join")
    assert join is not None
    assert (join.task_run_id, join.flow_run_id) == (str(task_runs["join"].id), str(task_runs["join"].flow_run_id))
    assert join.started <= join.ended
    (project / "params.yaml").write_text(PARAMS.replace("views: 3", "views: 4"))
    dvc("repro")
    assert record("join") is None, "another run of the stage, by DVC"


def test_the_lines_of_a_stage_are_in_the_log_of_its_task_run(project: Path) -> None:
    pipeline(["left"])
    source, left = recorded_task_runs(2)
    assert any(line.startswith("source at work") for line in recorded_lines(source, last="done in"))
    lines = recorded_lines(left, last="done in")
    assert lines[0] == "> python -m tasks.left"
    assert lines[1].startswith("left at work")
    assert not any("source at work" in line or "dvc push" in line for line in lines)


def test_a_changed_param_reruns_just_what_reads_it_and_what_follows(project: Path) -> None:
    pipeline()
    (project / "params.yaml").write_text(PARAMS.replace("epochs: 6", "epochs: 7"))
    assert pipeline() == ALL_CACHED | {"left": "Completed", "join": "Completed"}
    (project / "params.yaml").write_text(PARAMS)
    assert pipeline() == ALL_CACHED  # from the run cache
    assert (project / "left.txt").read_text().count("epochs: 6") == 1


def test_targets_take_what_they_need_and_force_runs_it(project: Path) -> None:
    assert pipeline(["left"]) == {"source": "Completed", "left": "Completed"}
    assert pipeline(["left"], force=True) == {"source": "Completed", "left": "Completed"}
    assert not (project / "right.txt").exists()


def test_a_failed_stage_stops_the_run_and_leaves_the_rest(project: Path) -> None:
    pipeline()
    (project / "tasks/left.py").write_text(FAILS)
    with pytest.raises(PawlineError, match=r"^stage left failed: no photos in x: set data.path$"):
        pipeline()
    assert recorded_states(2) == [("source", "Completed"), ("left", "Failed")]
    assert (project / "join.txt").exists()


def test_dvc_and_the_flow_find_each_others_work(project: Path) -> None:
    pipeline()
    assert dvc("repro").count("didn't change, skipping") == 3
    (project / "params.yaml").write_text(PARAMS.replace("views: 3", "views: 4"))
    assert dvc("repro").count("Running stage") == 3
    assert pipeline() == ALL_CACHED
