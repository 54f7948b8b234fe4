"""`pawline cancel`: ends a run that is at work."""

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from flows import server
from flows.commands.shared import enter_project
from flows.liveness import Note
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

WAIT_SECONDS = 120.0  # Prefect gives a process half a minute, a stage takes a few seconds to unwind
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class AtWork:
    """A run that is at work.

    Attributes:
        id: The flow run's.
        name: Its name.
        text: What else to say of it.
        note: Its process, if it has noted it on this machine.
        on_server: Whether the server that is running knows it.
    """

    id: str
    name: str
    text: str
    note: Note | None
    on_server: bool


def cancel_command(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Name or id of a run. Default: the one that is at work.")
    ] = None,
) -> None:
    """End a run that is at work.

    One of a worker or of another terminal; waits until it is over. Its stage is interrupted, and the next run carries
    on from there.

    \b
    Examples:
      pawline cancel                     the run that is at work
      pawline cancel wandering-otter     one of several; without a name they are listed
    """  # noqa: D301 - \b keeps the lines of the examples apart
    enter_project()
    server.prepare()
    chosen = _choose(_at_work(), run)
    typer.echo(f"cancelling {chosen.name}")
    state = _cancel_on_server(chosen) if chosen.on_server else _end_process(chosen)
    typer.echo(f"{chosen.name} is over: {state}")


def _at_work() -> list[AtWork]:
    """Return the runs that the server knows to be under way, and those of processes that it does not know."""
    from flows import liveness

    runs = _on_server()  # first: a run removes its note before it is over
    noted = {note.run: note for note in liveness.notes() if note.is_alive and note.part_of is None}
    known = [_described(run, noted.pop(str(run.id), None)) for run in runs]
    return [*known, *(AtWork(note.run, note.name, f"process {note.pid}", note, False) for note in noted.values())]


def _on_server() -> list["FlowRun"]:
    """Return the runs under way on the server, subflows aside; none if there is no server."""
    if server.API_VARIABLE not in os.environ and server.running() is None:
        return []
    server.require()
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType

    from flows import liveness

    liveness.end_dead_runs()
    types = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_run_filter=filters.FlowRunFilter(
                state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=types)),
                parent_task_run_id=filters.FlowRunFilterParentTaskRunId(is_null_=True),
            )
        )


def _described(run: "FlowRun", note: Note | None) -> AtWork:
    state = run.state.name if run.state else "unknown"
    since = f" since {run.start_time.astimezone():%H:%M:%S}" if run.start_time else ""
    return AtWork(str(run.id), run.name, f"{state}{since}", note, True)


def _choose(runs: list[AtWork], wanted: str | None) -> AtWork:
    """Return the run that is meant, or raise the one line that lists what there is."""
    listed = ", ".join(f"{run.name} ({run.text})" for run in runs) or "nothing"
    if wanted is None:
        if len(runs) != 1:
            problem = "no run is at work" if not runs else f"several runs are at work, name one of them: {listed}"
            raise PawlineError(problem)
        return runs[0]
    found = [run for run in runs if wanted in (run.id, run.name)]
    if not found:
        raise PawlineError(f"no run {wanted} is at work; at work: {listed}")
    return found[0]


def _cancel_on_server(run: AtWork) -> str:
    """Ask for the end through Prefect, as the button on its page does, and return the state it ended in."""
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run.id), Cancelling(message="by `pawline cancel`"))
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            state = client.read_flow_run(UUID(run.id)).state
            if state is not None and state.is_final() and not (run.note and run.note.is_alive):
                return state.name or "ended"
            time.sleep(POLL_SECONDS)
    how = f"`kill {run.note.pid}` ends its process" if run.note else "its worker has not answered; look at its terminal"
    raise PawlineError(f"{run.name} is still under way after {WAIT_SECONDS:.0f} s: {how}")


def _end_process(run: AtWork) -> str:
    """End a run that records on a temporary server, which only its own process can reach."""
    assert run.note is not None  # noqa: S101 - for the type checker
    os.kill(run.note.pid, signal.SIGTERM)
    deadline = time.monotonic() + WAIT_SECONDS
    while run.note.is_alive:
        if time.monotonic() > deadline:
            raise PawlineError(f"process {run.note.pid} has not ended: `kill -9 {run.note.pid}` ends it for good")
        time.sleep(POLL_SECONDS)
    return "its process has ended"
