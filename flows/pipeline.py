"""The pipeline as a Prefect flow: every stage that DVC would look at is one task run, named after it."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run, task_run
from prefect.states import Cancelled, Completed
from prefect.tasks import exponential_backoff

from flows import artifacts, cancelling, dvc_graph, liveness, pools, presets
from flows.cancelling import stoppable
from flows.dvc_graph import PlannedStage
from flows.stage_process import StageProcesses, StoppedError
from lineage import prefect_runs
from lineage.records import RunRecord
from lineage.runs import WORKSPACE, Project
from tasks.stage import TemporaryError

CACHED, COMPLETED = "Cached", "Completed"  # names of a task run's final state
LONGEST_DELAY_SECONDS = 10.0  # between two tries: Prefect sleeps through it, and a cancelled run waits for its end
JITTER = 0.2  # a pause is up to this share longer, or shorter

logger = logging.getLogger(__name__)


@flow  # on Prefect's default task runner, a thread a stage; how many processes run is limited by `StageProcesses`
def pipeline(
    targets: Sequence[str] = (),
    *,
    force: bool = False,
    preset: str | None = None,
    overrides: dict[str, Any] | None = None,
) -> dict[str, str]:
    """Bring the project in the current folder up to date, like `dvc repro`.

    Args:
        targets: Stages wanted, with everything they need; none means all.
        force: Run every command even if DVC has its result.
        preset: A recipe of presets/, written into params.yaml first.
        overrides: Single settings over that, by dotted key, such as `train_head.epochs`.

    Returns:
        The stages in DVC's order, each with the name of its state, `Completed` or `Cached`.

    Raises:
        PawlineError: A stage failed, and those that need it were not run; or a target or setting is wrong, or a work
            pool that a stage asks for is not there.
        prefect.exceptions.CancelledRun: The run, or the one that it is part of, was cancelled in Prefect.
    """
    settings = presets.combine(preset, overrides or {})
    with liveness.noted(), suppress(StoppedError), stoppable() as processes, dvc_graph.only_run(processes) as lock_fd:
        dvc_graph.wait_for_dvc(processes)
        plan = dvc_graph.plan(targets)
        pools.check_ready(plan)
        presets.apply(settings)
        before = artifacts.read_metrics()
        states = _run_stages(plan, force=force, lock_fd=lock_fd, processes=processes)
        if not targets:
            artifacts.publish_run(before)
        return {stage: str(state.name) for stage, state in states.items()}
    return Cancelled(message="stopped; the next run carries on from here")  # type: ignore[return-value]  # to Prefect


# DVC decides what to redo, so Prefect caches nothing.
@task(task_run_name="{stage.name}", cache_policy=NO_CACHE)
def run_stage(stage: PlannedStage, *, force: bool, lock_fd: int, processes: StageProcesses) -> State[None]:
    """Bring one stage up to date: `Completed` when its command ran, `Cached` when DVC had its result."""
    log = logging.LoggerAdapter(logger, {"stage": stage.name})
    try:
        if not force and dvc_graph.is_unchanged(stage.name, processes):
            log.info("unchanged")
            return Completed(name=CACHED, message="unchanged")
        if stage.desc:
            log.info(stage.desc)
        started, began = time.monotonic(), datetime.now(UTC)
        if stage.policy.work_pool:
            ran = pools.run_there(stage, force=force, processes=processes)
        else:
            timeout = stage.policy.timeout_seconds
            ran = dvc_graph.reproduce_stage(
                stage.name, force=force, lock_fd=lock_fd, timeout_seconds=timeout, processes=processes
            )
        if not ran:
            return Completed(name=CACHED, message="restored from DVC's run cache")
        message = f"done in {time.monotonic() - started:.1f} s"
        log.info(message)
        _note_run(stage.name, began, processes)
        return Completed(name=COMPLETED, message=message)
    except StoppedError:
        return Cancelled(message="stopped")


def _run_stages(
    plan: Sequence[PlannedStage], *, force: bool, lock_fd: int, processes: StageProcesses
) -> dict[str, State[Any]]:
    """Run stages, those that do not need each other at the same time, and return how each ended.

    Raises:
        PawlineError: That of the stage that failed first.
        StoppedError: The processes were stopped.
    """
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage in plan:
        futures[stage.name] = _as_task(stage).submit(
            stage, force=force, lock_fd=lock_fd, processes=processes, wait_for=[futures[name] for name in stage.needs]
        )
    for future in futures.values():
        future.wait()
    processes.check()
    states = {name: future.state for name, future in futures.items()}
    failed = [state for state in states.values() if state.is_failed()]
    if failed:
        cancelling.check()  # a stage in another pool may have heard of it before this run has
        min(failed, key=lambda state: state.timestamp).result()  # raises what went wrong
    return states


def _as_task(stage: PlannedStage) -> Task[..., State[None]]:
    """Return the task that runs a stage, with the stage's name, purpose and policy."""
    delays = exponential_backoff(stage.policy.retry_delay_seconds)(stage.policy.retries)
    return run_stage.with_options(
        name=stage.name,
        description=stage.desc,
        retries=stage.policy.retries,
        retry_delay_seconds=[min(delay, LONGEST_DELAY_SECONDS) for delay in delays],
        retry_jitter_factor=JITTER,
        retry_condition_fn=_is_worth_another_try,
    )


def _is_worth_another_try(stage: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Say whether a stage failed for a reason that may pass; Prefect asks as long as there are tries left."""
    if not isinstance(state.data, TemporaryError):
        return False
    log = logging.LoggerAdapter(logger, {"stage": stage.name})
    log.warning("%s; try %d of %d follows", state.data, run.run_count + 1, stage.retries + 1)
    return True


def _note_run(stage: str, began: datetime, processes: StageProcesses) -> None:
    """Keep which Prefect run ran the stage, for `pawline lineage`; not in the outputs, which hold no times."""
    project = Project(Path.cwd())
    record = RunRecord(
        flow_run_id=str(flow_run.id),
        flow_run_name=str(flow_run.name),
        task_run_id=str(task_run.id),
        started=began.isoformat(timespec="milliseconds"),
        ended=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    with dvc_graph.at_rest(processes):
        locked = project.lock(WORKSPACE)[stage]
    prefect_runs.write_record(project, locked, record)
