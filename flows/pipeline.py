"""The pipeline as a Prefect flow: every stage that DVC would look at is one task run, named after it."""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run, task_run
from prefect.states import Completed

from flows import dvc_graph
from lineage import prefect_runs
from lineage.records import RunRecord
from lineage.runs import WORKSPACE, Project

CACHED, COMPLETED = "Cached", "Completed"  # names of a task run's final state

logger = logging.getLogger(__name__)


# DVC decides what to redo, so Prefect caches nothing.
@task(task_run_name="{stage}", cache_policy=NO_CACHE)
def run_stage(stage: str, *, force: bool, lock_fd: int) -> State[None]:
    """Bring one stage up to date: `Completed` when its command ran, `Cached` when DVC had its result."""
    log = logging.LoggerAdapter(logger, {"stage": stage})
    if not force and dvc_graph.is_unchanged(stage):
        log.info("unchanged")
        return Completed(name=CACHED, message="unchanged")
    started, began = time.monotonic(), datetime.now(UTC)
    if not dvc_graph.reproduce_stage(stage, force=force, lock_fd=lock_fd):
        return Completed(name=CACHED, message="restored from DVC's run cache")
    log.info("done in %.1f s", time.monotonic() - started)
    _note_run(stage, began)
    return Completed(name=COMPLETED)


@flow
def pipeline(targets: Sequence[str] = (), *, force: bool = False) -> dict[str, str]:
    """Bring the project in the current folder up to date, like `dvc repro`.

    Args:
        targets: Stages wanted, with everything they need; none means all.
        force: Run every command even if DVC has its result.

    Returns:
        The stages in the order they were looked at, each with the name of its state, `Completed` or `Cached`.

    Raises:
        PawlineError: A stage failed, and those after it were not run; or a target is no stage.
    """
    with dvc_graph.only_run() as lock_fd:
        # Called directly, not submitted: cancelling then reaches the stage's processes.
        states = {stage: run_stage(stage, force=force, lock_fd=lock_fd) for stage in dvc_graph.plan_stages(targets)}
    return {stage: str(state.name) for stage, state in states.items()}


def _note_run(stage: str, began: datetime) -> None:
    """Keep which Prefect run ran the stage, for `pawline lineage`; not in the outputs, which hold no times."""
    project = Project(Path.cwd())
    record = RunRecord(
        flow_run_id=str(flow_run.id),
        flow_run_name=str(flow_run.name),
        task_run_id=str(task_run.id),
        started=began.isoformat(timespec="seconds"),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    prefect_runs.write_record(project, project.lock(WORKSPACE)[stage], record)
