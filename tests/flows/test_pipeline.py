import re
import time
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterTaskRunId
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import FlowRunSort, LogSort
from prefect.runtime import flow_run
from ruamel.yaml import YAML

from flows import liveness, stage_process
from flows.pipeline import pipeline
from flows.presets import load_preset
from lineage.prefect_runs import find_record
from lineage.records import RunRecord
from lineage.runs import WORKSPACE, Project
from tasks.stage import PawlineError, TemporaryError
from tests.flows.conftest import FAILS, PARAMS, dvc, meets, with_meta

pytestmark = pytest.mark.usefixtures("prefect_url")

ALL_COMPLETED = dict.fromkeys(["source", "left", "right", "join"], "Completed")
ALL_CACHED = {"source": "Completed", "left": "Cached", "right": "Cached", "join": "Cached"}  # source always runs


def recorded_task_runs(count: int, *, also: str = "") -> list[TaskRun]:
    """Return the last flow run's task runs as the server has them, once that many are there and over (or `also`)."""
    with get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(limit=1, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        of_last = FlowRunFilter(id=FlowRunFilterId(any_=[last.id]))
        for _ in range(100):  # the server writes them down a little later
            runs = client.read_task_runs(flow_run_filter=of_last)
            over = [run for run in runs if run.state and (run.state.is_final() or run.state.name == also)]
            if len(over) == len(runs) == count:
                return sorted(runs, key=lambda run: str(run.start_time))
            time.sleep(0.1)
    pytest.fail(f"{[(run.name, run.state_name) for run in runs]} are not {count} finished task runs")


def recorded_states(count: int, *, also: str = "") -> list[tuple[str, str | None]]:
    return [(run.name, run.state_name) for run in recorded_task_runs(count, also=also)]


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


def test_every_stage_is_a_task_run_and_then_cached_by_dvc_too(project: Path) -> None:
    assert list(pipeline().items()) == list(ALL_COMPLETED.items())
    assert dict(recorded_states(4)) == ALL_COMPLETED
    assert (project / "join.txt").exists()
    assert pipeline() == ALL_CACHED
    cached = recorded_task_runs(4)
    assert {run.name: run.state_name for run in cached} == ALL_CACHED
    for run in cached:
        assert run.state is not None
        if run.state_name == "Cached":
            assert run.state.message == "unchanged"
            assert run.total_run_time.total_seconds() < 1
        else:
            assert re.fullmatch(r"done in \d+\.\d s", run.state.message or "")
    assert dvc("repro").count("didn't change, skipping") == 3


def test_stages_that_do_not_need_each_other_run_at_the_same_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_process, "available_processors", lambda: 2)
    for name, other in (("left", "right"), ("right", "left")):
        (project / f"tasks/{name}.py").write_text(meets(name, other))
    assert pipeline() == ALL_COMPLETED
    assert (project / "join.txt").read_text() == "metmetjoin\n"
    assert dvc("status").split() == ["source:", "always", "changed"]
    # What each waited for is what Prefect's page draws.
    runs = {run.id: run for run in recorded_task_runs(4)}
    needs = {
        run.name: {
            runs[needed.id].name for needed in run.task_inputs.get("wait_for", []) if needed.input_type == "task_run"
        }
        for run in runs.values()
    }
    assert needs == {"source": set(), "left": {"source"}, "right": {"source"}, "join": {"left", "right"}}


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
    with_meta(project, "left", "{}", desc="the left one")
    pipeline(["left"])
    source, left = recorded_task_runs(2)
    assert any(line.startswith("source at work") for line in recorded_lines(source, last="done in"))
    lines = recorded_lines(left, last="done in")
    assert lines[:2] == ["the left one", "> python -m tasks.left"]
    assert lines[2].startswith("left at work")
    assert not any("source at work" in line or "dvc push" in line for line in lines)


def test_a_changed_param_reruns_just_what_reads_it_and_what_follows(recorded: Path) -> None:
    (recorded / "params.yaml").write_text(PARAMS.replace("epochs: 6", "epochs: 7"))
    assert pipeline() == ALL_CACHED | {"left": "Completed", "join": "Completed"}  # DVC ran the others
    (recorded / "params.yaml").write_text(PARAMS)
    assert pipeline() == ALL_CACHED  # from the run cache
    assert (recorded / "left.txt").read_text().count("epochs: 6") == 1


def test_targets_take_what_they_need_and_force_runs_it(project: Path) -> None:
    assert pipeline(["left"]) == {"source": "Completed", "left": "Completed"}
    assert pipeline(["left"], force=True) == {"source": "Completed", "left": "Completed"}
    assert not (project / "right.txt").exists()


def test_a_failed_stage_stops_what_needs_it_and_leaves_the_rest(recorded: Path) -> None:
    (recorded / "tasks/left.py").write_text(FAILS)
    (recorded / "tasks/right.py").write_text("import time; time.sleep(1.5); " + FAILS.replace("no photos", "nothing"))
    with pytest.raises(PawlineError, match=r"^stage left failed: no photos in x: set data.path$") as failure:
        pipeline()
    assert not isinstance(failure.value, TemporaryError)
    states = {"source": "Completed", "left": "Failed", "right": "Failed", "join": "NotReady"}
    assert dict(recorded_states(4, also="NotReady")) == states
    assert (recorded / "join.txt").exists()


def test_a_stage_is_tried_again_as_often_as_its_policy_says_if_the_reason_may_pass(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_meta(project, "source", "{prefect: {retries: 2, retry_delay_seconds: 0.1}}")
    tries = (
        "import os, pathlib, sys\ntried = pathlib.Path('tried')\n"
        "count = len(tried.read_text()) if tried.exists() else 0\ntried.write_text('x' * (count + 1))\n"
    )
    killed = "os.kill(os.getpid(), 9)\n"
    script = project / "tasks/source.py"
    script.write_text(
        f"{tries}if count == 0: sys.exit(75)\nif count == 1: {killed}pathlib.Path('source.txt').touch()\n"
    )
    assert pipeline(["source"]) == {"source": "Completed"}
    (run,) = recorded_task_runs(1)
    assert run.run_count == 3
    assert "failed to run: python -m tasks.source, exited with 75; try 2 of 3 follows" in caplog.text
    assert "the next run carries on from here; try 3 of 3 follows" in caplog.text
    (project / "tried").unlink()
    script.write_text(f"{tries}sys.exit(1)")
    with pytest.raises(PawlineError, match=r"^stage source failed: "):
        pipeline(["source"])
    assert (project / "tried").read_text() == "x"


def test_a_stage_without_retries_that_was_killed_fails_at_once(project: Path) -> None:
    (project / "tasks/source.py").write_text("import os; os.kill(os.getpid(), 9)")
    with_meta(project, "left", "{prefect: {retries: 2}}")
    with pytest.raises(TemporaryError, match=r"^stage source failed: killed by signal 9 \(SIGKILL\); out of memory"):
        pipeline(["left"])


def test_settings_are_checked_and_written_before_anything_runs(project: Path) -> None:
    for wrong, message in (
        ({"train_head.epochs": 0}, "params.yaml: train_head.epochs is 0"),
        ({"train_head": {"epoch": 3}}, "params.yaml: unknown key train_head.epoch: did you mean epochs"),
    ):
        with pytest.raises(PawlineError, match=f"^{re.escape(message)}"):
            pipeline(overrides=wrong)
    with pytest.raises(PawlineError, match=r"^unknown preset s44: did you mean s4\?"):
        pipeline(preset="s44")
    assert (project / "params.yaml").read_text() == PARAMS
    (project / "photos").mkdir()
    pipeline(["left"], preset="s4", overrides={"data.path": "photos", "fine_tune": {"epochs": 7}})
    written = YAML(typ="safe").load(project / "params.yaml")
    assert (written["data"]["source"], written["data"]["path"]) == ("directory", "photos")
    assert written["fine_tune"]["epochs"] == 7
    assert written["fine_tune"]["unfrozen_layers"] == load_preset("s4")["fine_tune.unfrozen_layers"]
    assert "epochs: 7" in (project / "left.txt").read_text()


@flow
def inner() -> list[str]:
    with liveness.noted():
        return [note.name for note in liveness.notes()]


@flow
def outer() -> tuple[list[str], str]:
    with liveness.noted():
        return inner(), str(flow_run.name)


@pytest.mark.usefixtures("workdir")
def test_a_run_and_its_parts_are_one_to_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "home")
    noted, name = outer()
    assert noted == [name]
    assert liveness.notes() == []
