"""Runs whose process died without saying so: after a reboot or a kill they would stay Running for ever.

A run notes its process in Prefect's home while it is at work. Whoever comes next on this machine finds the notes of
processes that are no more, and sets their runs to Crashed. Prefect's own heartbeats would need an automation, a server
that is always on, and minutes of silence before they tell the same.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import psutil

from flows import server

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

POOL = "pawline"  # the work pool of prefect.yaml
FOLDER = "runs"
# From when a worker takes a run to when the run says that it is running: 5-20 s, most of it imports.
PENDING_SECONDS = 120.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Note:
    """A run at work, and its process.

    Attributes:
        run: The flow run's id.
        name: Its name.
        pid: The process.
        started: When the process started, in seconds since 1970.
        machine: Where: a folder may be shared by machines, and by containers, which have the same process ids.
        part_of: The flow run that handed a stage over, and with which it ends.
    """

    run: str
    name: str
    pid: int
    started: float
    machine: str = field(default_factory=server.machine)
    part_of: str | None = None

    @property
    def is_alive(self) -> bool:
        """Say whether the process is still at work."""
        return server.is_alive(self.pid, self.started)


@contextmanager
def noted(*, handed_over: bool = False) -> Iterator[None]:
    """Note that this process runs the current flow run, until the block ends.

    Args:
        handed_over: It is part of a run of another process.
    """
    from prefect.runtime import flow_run

    parent = flow_run.parent_flow_run_id
    if flow_run.id is None or (parent is not None and not handed_over):  # a subflow ends with the run it is part of
        yield
        return
    path = _folder() / f"{flow_run.id}.json"
    process = psutil.Process()
    note = Note(str(flow_run.id), str(flow_run.name), process.pid, process.create_time(), part_of=parent)
    server.write_json(path, asdict(note))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def notes() -> list[Note]:
    """Return the runs that were noted on this machine and have not ended in good order, dead or alive.

    A note that cannot be read is removed: a power cut has damaged it, or another version wrote it.
    """
    found = []
    for path in sorted(_folder().glob("*.json")):
        try:
            found.append(Note(**json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:  # it has just ended
            continue
        except (ValueError, TypeError):
            path.unlink(missing_ok=True)
    return [note for note in found if note.machine == server.machine()]


def end_dead_runs() -> list[str]:
    """Set the runs of dead processes to Crashed, and return their names.

    A run that the server does not know is left alone: it belongs to another one. So is a run that was handed to a
    worker less than two minutes ago: its process may still be coming up.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    ended = []
    with get_client(sync_client=True) as client:
        for note in (note for note in notes() if not note.is_alive):
            try:
                run = client.read_flow_run(UUID(note.run))
            except ObjectNotFound:
                continue
            if _end(client, run, f"its process ({note.pid}) ended without a word: killed, or the machine restarted"):
                ended.append(note.name)
            (_folder() / f"{note.run}.json").unlink(missing_ok=True)
        for run in _stuck(client):
            _end(client, run, "its process never came up: the worker that took it ended, or the machine restarted")
            ended.append(run.name)
    for name in ended:
        logger.info("run %s is set to Crashed: its process is no more", name)
    return ended


def _end(client: "SyncPrefectClient", run: "FlowRun", why: str) -> bool:
    """End a run with its subflows and tasks, and say whether it was still under way itself."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
    from prefect.states import Cancelled, Crashed

    if run.state is not None and run.state.is_cancelling():
        state: State = Cancelled(message=f"cancelled: {why}")
    else:
        state = Crashed(message=why)
    for subflow in client.read_flow_runs(
        flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
    ):
        _end(client, subflow, why)
    for task in client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))):
        if task.state is not None and not task.state.is_final():
            client.set_task_run_state(task.id, state, force=True)
    if run.state is None or run.state.is_final():
        return False
    client.set_flow_run_state(run.id, state, force=True)
    return True


def _stuck(client: "SyncPrefectClient") -> list["FlowRun"]:
    """Return the runs that a worker of a process pool took and never started; containers may wait for their machine."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    pools = [pool.name for pool in client.read_work_pools() if pool.type == "process"]
    taken = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING]))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=pools)),
    )
    before = datetime.now(UTC) - timedelta(seconds=PENDING_SECONDS)
    return [run for run in taken if run.state is not None and run.state.timestamp < before]


def _folder() -> Path:
    return server.home() / FOLDER
