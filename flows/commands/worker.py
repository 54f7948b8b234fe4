"""`pawline worker`: carries out what Prefect has planned for this project."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import psutil
import typer

from flows import heap, server
from flows.commands.shared import enter_project

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.workers.process import ProcessWorker

CHECK_SECONDS = 60.0  # between two looks for runs whose process died, and for memory to give back
GRACE_SECONDS = 30.0  # for a run to end, as Prefect's own worker gives it
POLL_SECONDS = 0.5
LEAP_SECONDS = 120.0  # after a smaller leap of the clock, a schedule finds its way by itself

logger = logging.getLogger(__name__)


def worker_command(
    pool: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A process pool for stages that ask for it in dvc.yaml. Default: the runs'."),
    ] = None,
) -> None:
    """Carry out scheduled and requested runs, until Ctrl-C.

    Works for the pool of prefect.yaml, on the server of `pawline ui`, in the project's folder, and shows what the runs
    say. When the server is away for a while, it goes on once it is back. Runs that were missed while nothing was
    running are made up for by one run; runs whose process died are set to Crashed. Ctrl-C ends its runs too: the
    next one carries on from there.

    With --pool it takes single stages instead: those with `work_pool: NAME` in their meta in dvc.yaml, such as on a
    machine with a GPU that sees the same folder.

    \b
    Examples:
      pawline ui                                  in one terminal
      pawline worker                              in another
      pawline schedule --cron "0 3 * * *"         in a third, once
      pawline worker --pool gpu                   for stages with `meta: {prefect: {work_pool: gpu}}`
    """  # noqa: D301 - \b keeps the lines of the examples apart
    enter_project()
    api = server.require()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    from prefect.client.orchestration import get_client

    from flows import deployments, liveness, pools

    liveness.end_dead_runs()
    with get_client(sync_client=True) as client:
        if pool is not None:
            pools.make(client, pool)
        else:
            deployments.make_pool(client)
            for line in deployments.make_up(client):
                logger.info("%s", line)
    what = "`pawline schedule` shows what is planned" if pool is None else f"takes the stages of work pool {pool}"
    typer.echo(f"at work for {api.removesuffix('/api')} (Ctrl-C ends it): {what}")
    anyio.run(_work, pool or liveness.POOL)
    typer.echo("the worker has ended; what is due waits for the next one")


async def _work(pool: str) -> None:
    """Start the runs that are due, until a signal comes; then end those that are at work, and leave with the last."""
    from prefect.settings import PREFECT_WORKER_HEARTBEAT_SECONDS, PREFECT_WORKER_QUERY_SECONDS
    from prefect.workers.process import ProcessWorker

    for name in ("prefect.FlowRunCancellingObserver", "asyncio"):
        logging.getLogger(name).addFilter(_in_one_line)
    polls = PREFECT_WORKER_QUERY_SECONDS.value()
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as ending:
            async with ProcessWorker(work_pool_name=pool) as worker:
                async with anyio.create_task_group() as loops:
                    loops.start_soon(partial(_repeat, tells=True), partial(_poll, worker, _Clock()), polls)
                    loops.start_soon(_repeat, worker.sync_with_backend, PREFECT_WORKER_HEARTBEAT_SECONDS.value())
                    loops.start_soon(_repeat, _end_dead_runs, CHECK_SECONDS)
                    loops.start_soon(_repeat, _give_back, CHECK_SECONDS)
                    await anext(signals)
                    loops.cancel_scope.cancel()
                ending.start_soon(_end_runs)
            ending.cancel_scope.cancel()


async def _poll(worker: "ProcessWorker", clock: "_Clock") -> None:
    await clock.look()
    await worker.get_and_submit_flow_runs()


async def _end_runs() -> None:
    """Terminate the processes of runs, each once, and kill those that stay."""
    deadline = anyio.current_time() + GRACE_SECONDS
    told: set[tuple[int, int]] = set()
    while True:
        firmness = signal.SIGTERM if anyio.current_time() < deadline else signal.SIGKILL
        for child in psutil.Process().children():  # one that was being started appears later
            if (child.pid, firmness) not in told:
                told.add((child.pid, firmness))
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, firmness)  # Prefect gives each run a process group
        await anyio.sleep(POLL_SECONDS)


class _Clock:
    """Sees that the clock was set, or that the machine slept.

    After a leap forward Prefect would start at once all that was planned in between, and after one back plan nothing
    until it is as late again as it was.
    """

    def __init__(self) -> None:
        self._shift = time.time() - time.monotonic()

    async def look(self) -> None:
        """Make up for what was missed, or have everything planned anew."""
        from prefect.client.orchestration import get_client

        from flows import deployments

        def mend(mended: "Callable[[SyncPrefectClient], list[str]]") -> list[str]:
            with get_client(sync_client=True) as client:
                return mended(client)

        shift = time.time() - time.monotonic()
        leap, what = shift - self._shift, deployments.make_up if shift > self._shift else deployments.plan_anew
        if abs(leap) > LEAP_SECONDS:
            logger.warning("the clock has leapt by %.0f s", leap)
            for line in await anyio.to_thread.run_sync(mend, what):
                logger.info("%s", line)
        self._shift = shift


async def _end_dead_runs() -> None:
    from flows import liveness

    await anyio.to_thread.run_sync(liveness.end_dead_runs)


async def _give_back() -> None:
    await anyio.to_thread.run_sync(heap.give_back)


async def _repeat(work: Callable[[], Awaitable[object]], seconds: float, *, tells: bool = False) -> None:
    """Do something again and again, whether the server is there or not: Prefect's own loop gives up after a while.

    Args:
        work: It asks the server.
        seconds: Between two times.
        tells: Say when the server is away, and when it is back.
    """
    import httpx

    away = False
    while True:
        try:
            await work()
            if away and tells:
                logger.info("the server is back")
            away = False
        except httpx.HTTPError as error:
            if not away and tells:
                logger.warning("the server is away (%s): trying again until it is back", str(error) or repr(error))
            away = True
        await anyio.sleep(seconds)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Leave out how a connection was lost, and what Prefect trips over later because of it: that it was is enough."""
    record.exc_info = None
    return "_handle_polling_task_done" not in record.getMessage()
