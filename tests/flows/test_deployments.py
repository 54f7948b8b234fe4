import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from flows import deployments
from tasks.stage import PawlineError
from tests.flows.served import Served, state_of, wait_for

pytest_plugins = ["tests.flows.served"]


def schedule(cron: str | None = None, every: str | None = None) -> CronSchedule | IntervalSchedule:
    found = deployments.parse_schedule(cron, every, "UTC")
    assert found is not None
    return found


def due(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[FlowRun]:
    """The runs that should have started by now, oldest first."""
    of_deployment = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]))
    runs = client.read_flow_runs(flow_run_filter=of_deployment)
    now = datetime.now(UTC)
    late = [run for run in runs if run.state_name in ("Scheduled", "Late") and deployments._due(run) < now]
    return sorted(late, key=deployments._due)


def test_late_runs_survive_and_the_newest_makes_up_for_them(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.in_use(monkeypatch) as client:
        deployment = deployments.deploy(client, "pipeline")
        deployments.set_schedule(client, deployment, schedule(every="1s"), {"seconds": 0.1})
        wait_for(30, lambda: len(due(client, deployment)) >= 2)
        kept = {run.id for run in due(client, deployment)}
        by_hand = client.create_flow_run_from_deployment(deployment.id)

        # The same rhythm again, another one, and Prefect's own deploy, which knows nothing of schedules.
        deployments.set_schedule(client, deployment, schedule(every="1s"), {"seconds": 0.1})
        deployments.set_schedule(client, deployment, schedule(cron="0 3 1 1 *"), {"seconds": 0.2})
        assert served.python("-m", "prefect", "--no-prompt", "deploy", "--all") == 0
        assert kept <= {run.id for run in due(client, deployment)}
        (active,) = client.read_deployment_schedules(deployment.id)
        assert (active.active, active.schedule.model_dump()["cron"]) == (True, "0 3 1 1 *")
        assert active.parameters == {"seconds": 0.2}

        *missed, newest, _ = due(client, deployment)
        (said,) = deployments.make_up(client)
        assert said.startswith(f"{len(missed)} missed runs cancelled; {newest.name}, which was due at 20")
        assert [state_of(run, client) for run in missed] == ["Cancelled"] * len(missed)
        state = client.read_flow_run(missed[0].id).state
        assert state is not None
        assert f"{state.message}".startswith("missed while nothing was running; the run of 20")
        assert {state_of(run, client) for run in (newest, by_hand)} <= {"Scheduled", "Late"}
        assert deployments.make_up(client) == []

        (plan,) = [plan for plan in deployments.plans(client) if plan.name == "pipeline"]
        assert [when.isoformat()[4:] for when in plan.coming] == ["-01-01T03:00:00+00:00"]
        assert plan.late == [deployments._due(newest)]
        assert deployments.switch_off(client, deployment) == 1
        assert [run.id for run in due(client, deployment)] == [by_hand.id]
        client.delete_flow_run(by_hand.id)


def test_one_schedule_which_keeps_its_rhythm(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.in_use(monkeypatch) as client:
        deployment = deployments.find(client, "pipeline") or deployments.deploy(client, "pipeline")
        by_hand = [DeploymentScheduleCreate(schedule=CronSchedule(cron=f"0 {hour} * * *")) for hour in (1, 2)]
        client.create_deployment_schedules(deployment.id, by_hand)  # as on Prefect's page
        deployments.set_schedule(client, deployment, schedule(every="2d"), {})
        before, off = sorted(client.read_deployment_schedules(deployment.id), key=lambda one: not one.active)
        assert (before.active, off.active, before.slug) == (True, False, deployments.SLUG)

        time.sleep(1.1)
        deployments.set_schedule(client, deployment, schedule(every="2d"), {"seconds": 1.0})
        (after,) = [one for one in client.read_deployment_schedules(deployment.id) if one.active]
        assert after.schedule == before.schedule  # not two days from now on
        assert (before.parameters, after.parameters) == ({}, {"seconds": 1.0})
        first, second = deployments.next_times(after, 2)
        assert (second - first, first > datetime.now(UTC)) == (timedelta(days=2), True)
        assert deployments.switch_off(client, deployment) == 2


def test_times_in_their_zone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    found = deployments.parse_schedule("30 2 * * *", None, "Europe/Berlin")
    assert isinstance(found, CronSchedule)
    with served.in_use(monkeypatch) as client:
        deployment = deployments.find(client, "pipeline") or deployments.deploy(client, "pipeline")
        deployments.set_schedule(client, deployment, found, {})
        (current,) = client.read_deployment_schedules(deployment.id)
        times = deployments.next_times(current, 3)
        assert {f"{time:%H:%M} {time.tzinfo}" for time in times} == {"02:30 Europe/Berlin"}
        deployments.switch_off(client, deployment)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("x y", None, "UTC"),
            r'--cron "x y": no cron line; minute, hour, day, month and weekday, such as "0 3 \* \* \*"',
        ),
        (("R 3 * * *", None, "UTC"), r'--cron "R 3 \* \* \*": no cron line'),
        (("0 0 31 2 *", None, "UTC"), r'--cron "0 0 31 2 \*": it never fires; give a day that its months have$'),
        (("0 3 * * *", None, "Mars/Olympus"), r"--timezone Mars/Olympus: no such time zone; they are called like"),
        ((None, "0s", "UTC"), r"--every 0s: a number and a unit, such as 20s, 30m, 1h or 2d"),
        ((None, "90", "UTC"), r"--every 90: a number and a unit"),
        ((None, "1h30m", "UTC"), r"--every 1h30m: a number and a unit"),
    ],
)
def test_what_is_no_schedule(options: tuple[str | None, str | None, str], said: str) -> None:
    with pytest.raises(PawlineError, match=f"^{said}"):
        deployments.parse_schedule(*options)


def test_a_deployment_that_prefect_refuses(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.in_use(monkeypatch) as client, _broken(served):
        with pytest.raises(
            PawlineError, match=r"^`prefect deploy --name retrain` failed: .*'retrain' in 'jobs/retrain\.py'"
        ):
            deployments.deploy(client, "retrain")
        with pytest.raises(PawlineError, match=r"^unknown deployment nope: prefect\.yaml has retrain, pipeline$"):
            deployments.check_name("nope")


@contextmanager
def _broken(served: Served) -> Iterator[None]:
    """The flow cannot be imported."""
    script = served.folder / "jobs/retrain.py"
    good = script.read_text()
    script.write_text("import nowhere\n")
    try:
        yield
    finally:
        script.write_text(good)
