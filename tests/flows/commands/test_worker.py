import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import anyio
import pytest
import requests
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from flows import deployments
from flows.commands.worker import _Clock
from flows.liveness import POOL
from tests.flows.conftest import processes_in
from tests.flows.served import Served, state_of, wait_for

pytest_plugins = ["tests.flows.served"]


@contextmanager
def at_work(served: Served) -> Iterator["subprocess.Popen[str]"]:
    """A worker, which ends with the block whatever happens."""
    process = served.popen("worker")
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=50)
        finally:
            process.kill()
            forget_workers(served)


def forget_workers(served: Served) -> None:
    """Have the server forget workers that ended: for a minute it takes them for alive, which other tests would see."""
    pool = f"{served.address}/api/work_pools/{POOL}/workers"
    for worker in requests.post(f"{pool}/filter", json={}, timeout=30).json():
        requests.delete(f"{pool}/{worker['name']}", timeout=30).raise_for_status()


def running(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[FlowRun]:
    """The runs under way that a schedule started."""
    of_deployment = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]))
    runs = client.read_flow_runs(flow_run_filter=of_deployment)
    return [run for run in runs if run.state_name == "Running" and run.auto_scheduled]


def test_a_schedule_outlives_the_server_and_runs_end_with_the_worker(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = deployments.parse_schedule(None, "20s", "UTC")
    assert every is not None
    asleep = served.folder / "asleep"
    with served.in_use(monkeypatch) as client, at_work(served) as process:
        deployment = deployments.find(client, "pipeline") or deployments.deploy(client, "pipeline")
        deployments.set_schedule(client, deployment, every, {"seconds": 30})
        assert process.stdout is not None
        assert process.stdout.readline().startswith(
            f"at work for {served.address} (Ctrl-C ends it): `pawline schedule`"
        )

        served.stop()
        served.start()
        (kept,) = client.read_deployment_schedules(deployment.id)
        assert (kept.active, kept.schedule.model_dump()["interval"].total_seconds()) == (True, 20)
        asleep.unlink(missing_ok=True)
        wait_for(60, asleep.exists)
        deployments.switch_off(client, deployment)
        runs = running(client, deployment)
        process.terminate()
        output = process.communicate(timeout=50)[0]

        assert process.returncode == 0
        assert "the worker has ended; what is due waits for the next one" in output.splitlines()[-2:]  # Prefect may add
        assert f"napping in {served.folder}\n" in output
        assert runs
        assert {state_of(run, client) for run in runs} == {"Crashed"}
        assert len(processes_in(served.folder)) == 2  # the server and its page


def test_a_clock_that_leaps_lets_everything_be_planned_anew(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    hourly = deployments.parse_schedule(None, "1h", "UTC")
    assert hourly is not None
    with served.in_use(monkeypatch) as client:
        deployment = deployments.find(client, "pipeline") or deployments.deploy(client, "pipeline")
        deployments.set_schedule(client, deployment, hourly, {})
        wait_for(60, lambda: planned(client))
        before = planned(client)
        clock, now = _Clock(), time.time
        anyio.run(clock.look)
        assert planned(client) >= before, "nothing happens while it does not leap"
        monkeypatch.setattr(time, "time", lambda: now() - 86_400)
        anyio.run(clock.look)
        monkeypatch.undo()
    with served.in_use(monkeypatch) as client:
        wait_for(60, lambda: planned(client) and not planned(client) & before)
        deployments.switch_off(client, deployment)


def planned(client: SyncPrefectClient) -> set[UUID]:
    """The runs that the server has planned."""
    return {run.id for run in client.read_flow_runs() if run.state_name == "Scheduled"}
