"""Stages in another work pool, for real: a server, a worker of the pool, and a DVC project that both see."""

import contextvars
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import CancelledRun
from prefect.states import Cancelling

from flows import dvc_graph, liveness, pools
from flows.commands import cancel as cancel_command
from flows.dvc_graph import PlannedStage
from flows.pipeline import pipeline
from flows.policy import Policy, Resources
from flows.stage_process import StageProcesses
from tasks.stage import PawlineError, TemporaryError
from tests.flows.conftest import QUIET_DVC, dvc, processes_in
from tests.flows.served import IMPATIENT, PAWLINE, Served, state_of, wait_for

pytest_plugins = ["tests.flows.served"]

POOL = "with-gpu"
GRAPH = """\
stages:
  first:
    cmd: python first.py
    deps: [first.py]
    outs: [first.txt]
  second:
    cmd: python second.py
    meta: {{prefect: {{work_pool: {pool}, retries: 0, timeout_seconds: 50}}, resources: {{gpus: 1, memory_gb: 4}}}}
    deps: [second.py, first.txt]
    outs: [second.txt]
"""
# What it writes beside the output, DVC does not see: who started it.
STEP = """\
import os, sys
from pathlib import Path
name = Path(sys.argv[0]).stem
Path(f"by-{name}").write_text(os.environ.get("PREFECT__FLOW_RUN_ID", ""))
Path(f"{name}.txt").write_text(name)
"""
SLEEPS = "import time\nfrom pathlib import Path\nPath('asleep').touch()\ntime.sleep(60)\n"


@pytest.fixture
def gpu_project(tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """A project of two stages as the current folder, the second for another pool; and the server's client."""
    folder = tmp_path / "project"
    (folder / "presets").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=folder, check=True)
    (folder / ".dvc/config").write_text(QUIET_DVC.replace("[core]", "[core]\n    no_scm = true"))
    (folder / "dvc.yaml").write_text(GRAPH.format(pool=POOL))
    for name in ("first", "second"):
        (folder / f"{name}.py").write_text(STEP)
    for name in ("prefect.toml", "prefect.yaml", "params.yaml"):
        shutil.copy(served.folder / name, folder)
    with served.in_use(monkeypatch) as client:
        monkeypatch.chdir(folder)
        yield client
    assert processes_in(folder) == []


@pytest.fixture(scope="module")
def worker(served: Served) -> Iterator["subprocess.Popen[str]"]:
    """A worker of the pool, in another folder, which the server forgets when it has ended."""
    worker = subprocess.Popen(
        [*PAWLINE, "worker", "--pool", POOL],
        cwd=served.folder,
        env={**served.environment, **IMPATIENT, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == (
            f"at work for {served.address} (Ctrl-C ends it): takes the stages of work pool {POOL}\n"
        )
        wait_for(20, lambda: requests.post(f"{workers_of(served, POOL)}/filter", json={}, timeout=30).json())
        yield worker
        assert worker.poll() is None
    finally:
        worker.terminate()
        try:
            worker.communicate(timeout=50)
        finally:
            worker.kill()
            forget_workers(served, POOL)


def workers_of(served: Served, pool: str) -> str:
    return f"{served.address}/api/work_pools/{pool}/workers"


def forget_workers(served: Served, pool: str) -> None:
    """Have the server forget workers that ended: for a minute it takes them for alive."""
    for worker in requests.post(f"{workers_of(served, pool)}/filter", json={}, timeout=30).json():
        requests.delete(f"{workers_of(served, pool)}/{worker['name']}", timeout=30).raise_for_status()


def runs_there(client: SyncPrefectClient) -> tuple[FlowRun, list[FlowRun]]:
    """The last run of the pipeline, and the stages that it handed over."""
    runs = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=20)
    last = next(run for run in runs if run.parent_task_run_id is None)
    of_last = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[last.id]))
    return last, client.read_flow_runs(flow_run_filter=of_last)


@pytest.mark.usefixtures("worker")
def test_a_stage_runs_in_its_pool_as_it_would_here(
    gpu_project: SyncPrefectClient, caplog: pytest.LogCaptureFixture
) -> None:
    here = Path.cwd()
    with caplog.at_level(logging.INFO, "flows"):
        assert pipeline() == {"first": "Completed", "second": "Completed"}
    last, (there,) = runs_there(gpu_project)
    assert (there.name, there.state_name) == (f"second-{last.name}", "Completed")
    assert f"handed over to work pool {POOL} as run {there.name}" in caplog.text
    by_first, by_second = ((here / f"by-{name}").read_text() for name in ("first", "second"))
    assert (by_first, by_second) == ("", str(there.id))  # the second, by a process of the worker's
    recorded = (here / "dvc.lock").read_bytes()
    dvc("repro", "--force")  # here, without Prefect
    assert (here / "by-second").read_text() == ""
    assert (here / "dvc.lock").read_bytes() == recorded
    assert pipeline() == {"first": "Cached", "second": "Cached"}
    assert runs_there(gpu_project)[1] == []  # nobody was asked

    (here / "second.py").write_text("import sys; sys.exit('error: no GPU here')")
    with pytest.raises(PawlineError, match=r"^stage second failed: no GPU here$") as failure:
        pipeline()
    assert not isinstance(failure.value, TemporaryError)


@pytest.mark.usefixtures("worker")
def test_a_cancelled_run_ends_its_stage_in_the_pool(gpu_project: SyncPrefectClient) -> None:
    listed: list[str] = []

    def cancel() -> None:
        wait_for(60, Path("asleep").exists)
        listed.extend(run.name for run in cancel_command._at_work())
        gpu_project.set_flow_run_state(runs_there(gpu_project)[0].id, Cancelling(message="by a test"))

    Path("second.py").write_text(SLEEPS)
    canceller = threading.Thread(target=contextvars.copy_context().run, args=(cancel,))  # which knows the server
    canceller.start()
    started = time.monotonic()
    with pytest.raises(CancelledRun):
        pipeline()
    canceller.join()
    assert time.monotonic() - started < 50
    last, (there,) = runs_there(gpu_project)
    assert there.state_name == "Cancelled"
    assert listed == [last.name]  # for `pawline cancel` the stage is a part of it
    assert processes_in(Path.cwd()) == []
    with dvc_graph.hold_lock(dvc_graph.GUEST_LOCK_PATH):  # nobody is at work here
        pass


@pytest.mark.usefixtures("worker")
def test_a_stage_that_outlived_its_run_is_ended_by_the_next_which_waits_for_that(
    gpu_project: SyncPrefectClient,
) -> None:
    Path("second.py").write_text(SLEEPS)
    run = subprocess.Popen([*PAWLINE, "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(60, Path("asleep").exists)
    last, (there,) = runs_there(gpu_project)
    run.kill()
    run.wait()
    assert liveness.end_dead_runs() == [last.name]
    with dvc_graph.only_run():
        assert processes_in(Path.cwd()) == []
    wait_for(10, lambda: state_of(there, gpu_project) in ("Crashed", "Cancelled"))


def planned(pool: str | None = POOL, **resources: float) -> PlannedStage:
    return PlannedStage("second", "", (), Policy(work_pool=pool), Resources.model_validate(resources))


def test_what_is_missing_is_one_line_before_work_starts(
    gpu_project: SyncPrefectClient, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = r"which stage second asks for \(work_pool in its meta in dvc\.yaml\)"
    (Path.cwd() / "dvc.yaml").write_text(GRAPH.format(pool="nowhere"))
    with pytest.raises(
        PawlineError, match=rf"^there is no work pool nowhere, {asked}: `pawline worker --pool nowhere`"
    ):
        pipeline()
    assert not Path("first.txt").exists()
    gpu_project.create_work_pool(WorkPoolCreate(name="bare", type="process"))
    with pytest.raises(
        PawlineError, match=rf"^work pool bare, {asked}, takes no stages yet: `pawline worker --pool bare`$"
    ):
        pools.check_ready([planned("bare")])
    pools.make(gpu_project, "bare")
    with pytest.raises(PawlineError, match=rf"^no worker is at work for work pool bare, {asked}: `pawline worker"):
        pools.check_ready([planned("bare")])
    _given_up(gpu_project, "bare", monkeypatch)
    pools.check_ready([planned(None)])
    gpu_project.create_work_pool(WorkPoolCreate(name="of-docker", type="docker"))
    with pytest.raises(PawlineError, match=r"^work pool of-docker is of type docker: `prefect worker start --pool"):
        pools.make(gpu_project, "of-docker")
    with pytest.raises(
        PawlineError, match=r"takes no stages yet: `prefect deploy --prefect-file deploy/docker/prefect"
    ):
        pools.check_ready([planned("of-docker")])
    forget_workers(served, "bare")


def _given_up(client: SyncPrefectClient, pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage whose workers are gone does not wait for ever."""
    deployment = client.read_deployment_by_name(f"stage/{pool}")
    parameters = {"name": "second", "folder": "/", "run": ""}
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    monkeypatch.setattr(pools, "LOST_SECONDS", 0.5)
    with pytest.raises(
        TemporaryError, match=rf"^stage second failed: no worker of work pool {pool} has been there for"
    ):
        pools._wait(client, run.id, planned(pool), StageProcesses())
    assert state_of(run, client) == "Crashed"
