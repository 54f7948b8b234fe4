"""What Prefect runs by itself: the deployments that prefect.yaml describes, each with at most one schedule at work.

Prefect's own `prefect deploy` makes a deployment; the schedule is set beside it and changed in place, because Prefect
drops late runs together with a schedule that is deleted. Parameters belong to the schedule, because a deploy resets
those of the deployment.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import anyio
from ruamel.yaml import YAML

from flows.liveness import POOL
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule, FlowRun
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule, IntervalSchedule

DESCRIPTION = Path("prefect.yaml")
SLUG = "pawline"  # of the schedule that `pawline schedule` sets
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Planned:
    """A deployment and when it runs.

    Attributes:
        name: The deployment's.
        schedules: Those at work; more than one only if somebody made them on Prefect's page.
        coming: When it runs next.
        late: The times of runs that should have started and did not.
    """

    name: str
    schedules: list["DeploymentSchedule"]
    coming: list[datetime]
    late: list[datetime]


def names() -> list[str]:
    """Return the names of the deployments that prefect.yaml describes."""
    described = YAML(typ="safe", pure=True).load(DESCRIPTION) if DESCRIPTION.is_file() else None
    return [deployment["name"] for deployment in (described or {}).get("deployments") or []]


def check_name(name: str) -> None:
    """Raise the one line for a deployment that prefect.yaml does not describe."""
    if name not in names():
        raise PawlineError(f"unknown deployment {name}: {DESCRIPTION} has {', '.join(names()) or 'none'}")


def parse_schedule(cron: str | None, every: str | None, timezone: str) -> "CronSchedule | IntervalSchedule | None":
    """Return the schedule that the options mean, if any.

    Raises:
        PawlineError: One of them cannot be read.
    """
    if cron is not None:
        return _cron_schedule(cron, timezone)
    return None if every is None else _interval_schedule(every)


def deploy(client: "SyncPrefectClient", name: str) -> "DeploymentResponse":
    """Make or update a deployment as prefect.yaml describes it, and return it.

    Raises:
        PawlineError: Prefect refuses it.
    """
    make_pool(client)
    said = run_deploy("--name", name)
    deployment = find(client, name)
    if deployment is None:
        raise PawlineError(f"`prefect deploy --name {name}` failed: {said}")
    return deployment


def run_deploy(*arguments: str) -> str:
    """Run `prefect deploy`, and return the last line of what it said.

    Raises:
        PawlineError: It failed.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", *arguments]
    done = subprocess.run(  # noqa: S603 - an argument list of our own, no shell
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    said = lines[-1] if lines else "no output"
    if done.returncode != 0:
        raise PawlineError(f"`prefect deploy {' '.join(arguments)}` failed: {said}")
    return said


def make_pool(client: "SyncPrefectClient", name: str = POOL) -> None:
    """Make a process work pool, if there is no pool of that name yet; that of prefect.yaml, unless told otherwise."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template))
    except ObjectAlreadyExists:
        return


def find(client: "SyncPrefectClient", name: str) -> "DeploymentResponse | None":
    """Return a deployment of our pool by its name."""
    return next((one for one in _deployments(client) if one.name == name), None)


def set_schedule(
    client: "SyncPrefectClient",
    deployment: "DeploymentResponse",
    schedule: "CronSchedule | IntervalSchedule",
    parameters: dict[str, Any],
) -> None:
    """Let a deployment run by one schedule, and no other.

    Args:
        client: Of the server.
        deployment: It keeps its late runs.
        schedule: An interval that is the same as before keeps its rhythm.
        parameters: Of the flow.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    current = client.read_deployment_schedules(deployment.id)
    ours = next((one for one in current if one.slug == SLUG), current[0] if current else None)
    for other in current:
        if other is not ours:
            client.update_deployment_schedule(deployment.id, other.id, active=False)
    if ours is None:
        new = DeploymentScheduleCreate(schedule=schedule, active=True, parameters=parameters, slug=SLUG)
        client.create_deployment_schedules(deployment.id, [new])
        return
    same = getattr(ours.schedule, "interval", None) == getattr(schedule, "interval", 0)
    client.update_deployment_schedule(
        deployment.id,
        ours.id,
        active=True,
        schedule=ours.schedule if same else schedule,
        parameters=parameters,
        slug=SLUG,
    )


def switch_off(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> int:
    """Remove a deployment's schedules with the runs that they planned, late ones too; return how many there were."""
    schedules = client.read_deployment_schedules(deployment.id)
    for schedule in schedules:
        client.delete_deployment_schedule(deployment.id, schedule.id)
    return len(schedules)


def next_times(schedule: "DeploymentSchedule", count: int) -> list[datetime]:
    """Return when a schedule fires next, in its time zone."""
    return _dates(schedule.schedule, count)


def plans(client: "SyncPrefectClient") -> list[Planned]:
    """Return the deployments there are on the server, and what is planned."""
    late = _late_runs(client)
    result = []
    for deployment in _deployments(client):
        active = [one for one in client.read_deployment_schedules(deployment.id) if one.active]
        coming = sorted(date for one in active for date in next_times(one, 1))
        result.append(Planned(deployment.name, active, coming, list(map(_due, late.get(deployment.id, [])))))
    return result


def make_up(client: "SyncPrefectClient") -> list[str]:
    """Cancel all but the newest of each deployment's runs that were due while nothing was running.

    Returns:
        A line for each deployment of which runs were cancelled.
    """
    from prefect.states import Cancelled

    said = []
    for runs in _late_runs(client).values():
        *missed, newest = runs
        when = f"{_due(newest):%Y-%m-%d %H:%M} UTC"
        for run in missed:
            message = f"missed while nothing was running; the run of {when} makes up for it"
            client.set_flow_run_state(run.id, Cancelled(message=message))
        if missed:
            said.append(
                f"{len(missed)} missed runs cancelled; {newest.name}, which was due at {when}, makes up for them"
            )
    return said


def plan_anew(client: "SyncPrefectClient") -> list[str]:
    """Let the server plan the runs of all schedules once more, and return a line for each deployment that has one.

    A server whose clock was ahead has planned runs for that time; put right, it finds enough runs planned for later
    and would plan none until then.
    """
    found = []
    for deployment in _deployments(client):
        active = [one for one in client.read_deployment_schedules(deployment.id) if one.active]
        for schedule in active:  # Prefect drops what was planned by a schedule that is changed
            client.update_deployment_schedule(deployment.id, schedule.id, active=True, schedule=schedule.schedule)
        found += [f"{deployment.name}: planned anew"] if active else []
    return found


def workers(client: "SyncPrefectClient", pool: str = POOL) -> list[str]:
    """Return the names of the workers that are at work for a pool; ours, unless told otherwise."""
    if not any(known.name == pool for known in client.read_work_pools()):
        return []
    found = client.read_workers_for_work_pool(pool)
    return [worker.name for worker in found if worker.status == "ONLINE"]


def _dates(rule: "SCHEDULE_TYPES", count: int) -> list[datetime]:
    """Return when a rule fires next, in its time zone; a cron line that never does is a ValueError."""
    from prefect.server.schemas import schedules as of_server

    kind = getattr(of_server, type(rule).__name__)  # only the server's own classes compute dates
    computed = kind.model_validate(rule.model_dump())
    dates = anyio.run(computed.get_dates, count, datetime.now(UTC) + timedelta(seconds=1))
    zone = ZoneInfo(getattr(rule, "timezone", None) or "UTC")
    return [date.astimezone(zone) for date in dates]


def _cron_schedule(cron: str, timezone: str) -> "CronSchedule":
    from prefect.client.schemas.schedules import CronSchedule

    if timezone not in available_timezones():
        raise PawlineError(f"--timezone {timezone}: no such time zone; they are called like Europe/Berlin, or UTC")
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
    except ValueError:
        raise PawlineError(
            f'--cron "{cron}": no cron line; minute, hour, day, month and weekday, such as "0 3 * * *"'
        ) from None
    try:
        _dates(schedule, 1)
    except ValueError:  # of Prefect's croniter, which looks 50 years ahead
        raise PawlineError(f'--cron "{cron}": it never fires; give a day that its months have') from None
    return schedule


def _interval_schedule(every: str) -> "IntervalSchedule":
    from prefect.client.schemas.schedules import IntervalSchedule

    found = re.fullmatch(r"(\d{1,6})([smhd])", every)
    if found is None or int(found[1]) == 0:
        raise PawlineError(f"--every {every}: a number and a unit, such as 20s, 30m, 1h or 2d")
    return IntervalSchedule(interval=timedelta(**{UNITS[found[2]]: int(found[1])}))


def _deployments(client: "SyncPrefectClient") -> list["DeploymentResponse"]:
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    found = client.read_deployments(work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])))
    return sorted(found, key=lambda one: one.name)


def _late_runs(client: "SyncPrefectClient") -> dict[UUID, list["FlowRun"]]:
    """Return the runs that a schedule planned for the past and that nobody started, oldest first, by deployment."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterNextScheduledStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime.model_validate({"before_": datetime.now(UTC)}),
    )
    in_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    order = FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC
    runs: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_run_filter=wanted, work_pool_filter=in_pool, sort=order, offset=len(runs)
    ):  # 200 at a time
        runs += page
    by_deployment: dict[UUID, list[FlowRun]] = {}
    for run in runs:
        # A run that was asked for by hand is nobody's to cancel, and one that waits for its retry has begun.
        if run.auto_scheduled and run.run_count == 0 and run.deployment_id is not None:
            by_deployment.setdefault(run.deployment_id, []).append(run)
    return by_deployment


def _due(run: "FlowRun") -> datetime:
    return run.next_scheduled_start_time or run.expected_start_time or datetime.now(UTC)
