"""`pawline schedule`: when Prefect retrains by itself, and whom it tells."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows import server
from flows.commands.pipeline import PresetOption, SetOption
from flows.commands.shared import enter_project
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

SHOWN = 3  # times at which it fires next
DEFAULT = "retrain"
UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))  # seconds, and how --every calls them


def schedule_command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help=f"A deployment of prefect.yaml. Default: {DEFAULT}.")
    ] = None,
    cron: Annotated[str | None, typer.Option(help='When, as a cron line: "0 3 * * *" is every night at three.')] = None,
    timezone: Annotated[str | None, typer.Option(help="Of the cron line. Default: UTC.")] = None,
    every: Annotated[str | None, typer.Option(help="How often instead, from now on: 30m, 1h, 2d.")] = None,
    overlap: Annotated[
        Literal["wait", "skip"] | None, typer.Option(help="What a run does while another is at work. Default: wait.")
    ] = None,
    preset: PresetOption = None,
    set_: SetOption = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Where to tell of failed runs and of new champions.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Remove the schedule, its late runs, and the webhook.")] = False,
) -> None:
    """Retrain by a schedule; without options, show what is scheduled.

    The schedule replaces the earlier one. It is kept by Prefect's server (`pawline ui`), fires while that runs, and is
    carried out by `pawline worker`. It stays when either is restarted, and when the project is deployed again. Times
    that were missed while nothing was running are made up for by one run.

    \b
    Examples:
      pawline schedule --cron "0 3 * * *" --timezone Europe/Berlin
      pawline schedule --every 1h --overlap skip
      pawline schedule --cron "0 3 * * *" --preset s4 --set train_head.epochs=5
      pawline schedule --webhook https://example.org/hook      who is told, whenever it runs
      pawline schedule pipeline --every 1d                     `pawline run` every day
      pawline schedule                                         what is scheduled, and what is late
      pawline schedule --off
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    given = {"--timezone": timezone, "--overlap": overlap, "--preset": preset, "--set": set_}
    _check(cron=cron, every=every, off=off, webhook=webhook, given=given)
    server.prepare()
    from flows import deployments, notifications

    if name is not None or cron or every or off or webhook:
        deployments.check_name(name or DEFAULT)
    if webhook is not None:
        notifications.check_url(webhook)
    schedule = deployments.parse_schedule(cron, every, timezone or "UTC")
    parameters = _parameters(overlap, preset, set_, here=here)
    server.require()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        if off:
            _switch_off(client, name or DEFAULT)
        if schedule is not None:
            _set(client, name or DEFAULT, schedule, parameters)
        if webhook is not None:
            notifications.notify(client, webhook, flow=name or DEFAULT)
            typer.echo(
                f"failed runs of {name or DEFAULT} and new champions are told to {notifications.origin(webhook)}"
            )
        if not (off or schedule or webhook):
            _show(client, name)


def _check(*, cron: str | None, every: str | None, off: bool, webhook: str | None, given: dict[str, Any]) -> None:
    """Raise the one line for options that do not go together."""
    if cron is not None and every is not None:
        raise PawlineError("--cron and --every: a deployment has one schedule; give one of the two")
    if off and (cron is not None or every is not None or webhook is not None):
        raise PawlineError("--off removes the schedule and the webhook: give it alone")
    for option, value in given.items():
        if value and cron is None and (every is None or option == "--timezone"):
            raise PawlineError(
                f"{option} belongs to a schedule: add --cron{'' if option == '--timezone' else ' or --every'}"
            )


def _parameters(overlap: str | None, preset: str | None, set_: list[str] | None, *, here: Path) -> dict[str, Any]:
    """Return the flow's parameters, of which the settings would be accepted by params.yaml as it is now."""
    from flows import presets

    given = presets.parse_assignments(set_ or [], here=here)
    settings = presets.combine(preset, given)
    if settings:
        presets.changes(settings)
    parameters = {"overlap": overlap, "preset": preset, "overrides": presets.over_preset(settings, given)}
    return {key: value for key, value in parameters.items() if value}


def _set(
    client: "SyncPrefectClient", name: str, schedule: "CronSchedule | IntervalSchedule", parameters: dict[str, Any]
) -> None:
    """Deploy, set the schedule, and say when it fires."""
    from flows import deployments

    deployment = deployments.deploy(client, name)
    takes = (deployment.parameter_openapi_schema or {}).get("properties", {})
    for parameter in parameters:
        if parameter not in takes:
            raise PawlineError(
                f"{name} takes no {parameter} (it takes: {', '.join(takes) or 'nothing'}): leave the option out"
            )
    deployments.set_schedule(client, deployment, schedule, parameters)
    current = next(one for one in client.read_deployment_schedules(deployment.id) if one.active)
    times = ", ".join(map(_time, deployments.next_times(current, SHOWN)))
    typer.echo(f"{name} runs {_rhythm(current)}: next {times}")
    if not deployments.workers(client):
        typer.echo("no worker is at work: start one with `pawline worker` in another terminal")


def _switch_off(client: "SyncPrefectClient", name: str) -> None:
    from flows import deployments, notifications

    deployment = deployments.find(client, name)
    schedules = 0 if deployment is None else deployments.switch_off(client, deployment)
    told = notifications.stop(client, flow=name)
    removed = [*(["its schedule"] if schedules else []), *(["its webhook"] if told else [])]
    typer.echo(f"{name}: {' and '.join(removed)} removed" if removed else f"{name} had no schedule and no webhook")


def _show(client: "SyncPrefectClient", name: str | None) -> None:
    """Print a line a deployment, and what is missing."""
    from flows import deployments, notifications

    plans = {plan.name: plan for plan in deployments.plans(client)}
    shown = [name] if name is not None else sorted({*plans, *deployments.names()})
    width = max(map(len, shown), default=0)
    for one in shown:
        plan = plans.get(one)
        parts = [_rhythm(schedule) for schedule in plan.schedules] if plan else []
        parts = parts or ["no schedule"]
        if plan is not None and plan.coming:
            parts.append(f"next {_time(plan.coming[0])}")
        if plan is not None and plan.late:
            parts.append(f"{len(plan.late)} late, since {_time(plan.late[0])}")
        if notifications.is_on(client, flow=one):
            parts.append("webhook")
        typer.echo(f"{one:{width}}  {'; '.join(parts)}")
    at_work = deployments.workers(client)
    typer.echo(
        f"workers at work: {len(at_work)}" if at_work else "no worker is at work: start one with `pawline worker`"
    )


def _rhythm(schedule: "DeploymentSchedule") -> str:
    """Return a schedule in words, with the parameters it gives."""
    rule = schedule.schedule
    cron, interval = getattr(rule, "cron", None), getattr(rule, "interval", None)
    if cron is not None:
        words = f'at "{cron}" {getattr(rule, "timezone", None) or "UTC"}'
    else:
        words = f"every {_interval(interval)}" if interval is not None else str(getattr(rule, "rrule", rule))
    given = ", ".join(f"{key}={value}" for key, value in schedule.parameters.items())
    return f"{words} ({given})" if given else words


def _interval(length: timedelta) -> str:
    """Return an interval as --every takes it."""
    seconds = int(length.total_seconds())
    unit, name = next((unit, name) for unit, name in UNITS if seconds % unit == 0)
    return f"{seconds // unit}{name}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}"
