"""Runs that somebody ends in Prefect while no worker watches over them: they ask for their own state."""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from flows.stage_process import StageProcesses, StoppedError

SECONDS_BETWEEN_LOOKS = 2.0


@contextmanager
def stoppable() -> Iterator[StageProcesses]:
    """Yield the processes of the flow run: they are stopped when the block ends, or the run is ended in Prefect.

    Raises:
        StoppedError: It was cancelled, or set to another final state because it was thought dead.
    """
    processes, over, runs = StageProcesses(), threading.Event(), _own_runs()

    def watch() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            if _is_ended(runs):
                processes.stop()

    # In a copy of the context, which knows the server.
    watcher = threading.Thread(target=contextvars.copy_context().run, args=(watch,), daemon=True)
    watcher.start()
    try:
        yield processes
        if _is_ended(runs):  # since the last look
            raise StoppedError
    finally:
        over.set()
        processes.stop()


def check() -> None:
    """Raise a StoppedError if the flow run was ended in Prefect."""
    if _is_ended(_own_runs()):
        raise StoppedError


def check_now_and_then() -> Callable[[], None]:
    """Return what may be called often, and does as `check` every few seconds."""
    looked = time.monotonic()

    def look() -> None:
        nonlocal looked
        if time.monotonic() - looked > SECONDS_BETWEEN_LOOKS:
            check()
            looked = time.monotonic()

    return look


def _own_runs() -> set[UUID]:
    """Return the flow run and the one that it is part of, with which it ends."""
    return {UUID(str(run)) for run in (flow_run.id, flow_run.root_flow_run_id)}


def _is_ended(runs: set[UUID]) -> bool:
    """Ask the server whether somebody ended one of the flow runs; a server that is away says nothing."""
    own_client = get_client(sync_client=True, httpx_settings={"timeout": 5.0})  # not the flow's, in use elsewhere
    with suppress(httpx.HTTPError, ObjectNotFound), own_client as client:
        states = [client.read_flow_run(run).state for run in runs]
        return any(state is not None and (state.is_cancelling() or state.is_final()) for state in states)
    return False
