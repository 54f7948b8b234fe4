import json
import os
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.states import Cancelling, Pending

from flows import deployments, liveness
from tests.flows.served import Served, state_of

pytest_plugins = ["tests.flows.served"]


def test_a_run_is_noted_while_it_is_at_work(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    @flow
    def at_work(*, fails: bool) -> list[liveness.Note]:
        with liveness.noted():
            found = liveness.notes()
            assert not fails
            return found

    with served.in_use(monkeypatch):
        (note,) = at_work(fails=False)
        assert (note.pid, note.is_alive) == (os.getpid(), True)
        with pytest.raises(AssertionError):
            at_work(fails=True)
        assert liveness.notes() == []
        with liveness.noted():  # no flow run, nothing to note
            assert liveness.notes() == []


def test_a_damaged_note_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    good = {"run": "an id", "name": "good", "pid": os.getpid(), "started": 0}
    for number, text in enumerate(("", "{", "[]", '{"run": "of another version"}', json.dumps(good), "\0" * 99)):
        (tmp_path / f"runs/{number}.json").write_text(text)
    assert [note.name for note in liveness.notes()] == ["good"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["4.json"]


def test_notes_of_other_machines_are_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    note = {"run": "an id", "name": "theirs", "pid": 1, "started": 0, "machine": "another pid:[4026531836]"}
    (tmp_path / "runs/1.json").write_text(json.dumps(note))
    assert liveness.notes() == []
    assert (tmp_path / "runs/1.json").exists()


def test_runs_of_dead_processes_crash_with_all_that_belongs_to_them(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.in_use(monkeypatch) as client:
        assert served.python("jobs/retrain.py") == -9
        (note,) = liveness.notes()
        run = client.read_flow_run(UUID(note.run))
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        (subflow,) = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
        )
        assert [state_of(one, client) for one in (run, subflow)] == ["Running", "Running"]

        home = Path(served.folder / ".prefect/runs")
        alive = {"run": str(run.id), "name": "alive", "pid": os.getpid(), "started": 0}
        elsewhere = {**alive, "run": "00000000-0000-4000-8000-000000000000"}
        (home / "elsewhere.json").write_text(json.dumps(elsewhere))
        assert liveness.end_dead_runs() == [run.name]
        ended = client.read_flow_run(run.id).state
        assert ended is not None
        assert ended.message == (f"its process ({note.pid}) ended without a word: killed, or the machine restarted")
        assert [state_of(one, client) for one in (run, subflow)] == ["Crashed", "Crashed"]
        of_subflow = FlowRunFilter(id=FlowRunFilterId(any_=[subflow.id]))
        for runs in (of_run, of_subflow):
            assert [task.state_name for task in client.read_task_runs(flow_run_filter=runs)] == ["Crashed"]
        # The server does not know this one: it may be another's.
        assert [one.run for one in liveness.notes()] == [elsewhere["run"]]
        (home / "elsewhere.json").unlink()
        assert liveness.end_dead_runs() == []


def test_a_run_whose_process_never_came_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.in_use(monkeypatch) as client:
        deployment = deployments.find(client, "pipeline") or deployments.deploy(client, "pipeline")
        taken = [client.create_flow_run_from_deployment(deployment.id) for _ in range(3)]
        client.set_flow_run_state(taken[0].id, Pending(), force=True)
        client.set_flow_run_state(taken[1].id, Pending(), force=True)
        client.set_flow_run_state(taken[1].id, Cancelling(), force=True)
        assert liveness.end_dead_runs() == []  # it may still be coming up
        monkeypatch.setattr(liveness, "PENDING_SECONDS", 0.0)
        assert liveness.end_dead_runs() == [taken[0].name]
        assert [state_of(run, client) for run in taken] == ["Crashed", "Cancelling", "Scheduled"]
        for run in taken:
            client.delete_flow_run(run.id)
