"""Stages in a work pool of their own, such as one with a GPU: `meta: {prefect: {work_pool: ...}}` in dvc.yaml.

A run hands such a stage over as a run of the deployment `stage/<pool>` (flows/stage.py) and waits for it. Whoever works
for the pool sees the project's folder under the same path, so DVC there writes the same outputs into the same dvc.lock.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State, WorkPool
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling, Crashed

from flows import deployments
from flows.dvc_graph import PlannedStage
from flows.stage import HOST_PATH, RESTORED, TEMPORARY
from flows.stage_process import StageProcesses
from tasks.stage import PawlineError, TemporaryError

PROCESS = "process"  # the type of pool that runs things on the worker's machine as it is
POLL_SECONDS = 1.0
LOST_SECONDS = (
    300.0  # without a worker in the pool: a stage is given up; a worker tells each half a minute that it is there
)
STOP_SECONDS = 60.0  # for a stage to end that was cancelled; a worker gives its process half of that
# What a stage gets, as job variables of the templates in deploy/ (and partly of Prefect's own).
VARIABLES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "cpus": lambda cpus: {"nano_cpus": round(cpus * 1e9), "cpu_request": f"{cpus:g}", "cpu_limit": f"{cpus:g}"},
    "memory_gb": lambda gb: {
        "mem_limit": f"{round(gb * 1e9)}b",
        **dict.fromkeys(("memory_request", "memory_limit"), f"{round(gb * 1e3)}M"),
    },
    "gpus": lambda gpus: {"device_requests": [{"Count": gpus, "Capabilities": [["gpu"]]}], "gpu_limit": f"{gpus}"},
}

logger = logging.getLogger(__name__)


def make(client: SyncPrefectClient, name: str) -> None:
    """Make a process pool, if there is no pool of that name yet, and the deployment by which it takes stages.

    Raises:
        PawlineError: It is a pool of another type.
    """
    deployments.make_pool(client, name)
    kind = client.read_work_pool(name).type
    if kind != PROCESS:
        raise PawlineError(f"work pool {name} is of type {kind}: `prefect worker start --pool {name}` works for it")
    deployments.run_deploy("flows.stage.stage", "--name", name, "--pool", name, "--job-variable", "working_dir=.")


def check_ready(stages: Sequence[PlannedStage]) -> None:
    """Find out before anything runs whether the work pools that stages ask for are there and at work.

    Raises:
        PawlineError: One is not, or cannot give what a stage asks for.
    """
    apart = [stage for stage in stages if stage.policy.work_pool]
    if not apart:
        return
    with get_client(sync_client=True) as client:
        for stage in apart:
            pool = _find_pool(client, stage)
            job_variables(stage, pool)
    HOST_PATH.parent.mkdir(parents=True, exist_ok=True)
    HOST_PATH.write_text(str(flow_run.id), encoding="utf-8")


def job_variables(stage: PlannedStage, pool: WorkPool) -> dict[str, Any]:
    """Return what a pool is told about the resources of a stage; a process pool has those of its machine.

    Raises:
        PawlineError: The pool's base job template has no place for them.
    """
    known = pool.base_job_template.get("variables", {}).get("properties", {})
    told: dict[str, Any] = {}
    for resource, amount in stage.resources.model_dump(exclude_none=True).items():
        fitting = {key: value for key, value in VARIABLES[resource](amount).items() if key in known}
        if not fitting and pool.type != PROCESS:
            raise PawlineError(
                f"work pool {pool.name} cannot give stage {stage.name} its {resource} (meta in dvc.yaml): "
                f"`prefect work-pool update {pool.name} --base-job-template deploy/{pool.type}/job-template.json`"
            )
        told |= fitting
    return told


def run_there(stage: PlannedStage, *, force: bool, processes: StageProcesses) -> bool:
    """Have a stage's work pool bring it up to date.

    Args:
        stage: It names a pool.
        force: Run the command even if DVC has its result.
        processes: Those of the run; once they are stopped, the stage is cancelled.

    Returns:
        Whether the command ran; if not, DVC took the outputs from its run cache.

    Raises:
        TemporaryError: The stage failed for a reason that may pass, or its process or machine was lost.
        PawlineError: It failed for another reason.
        StoppedError: The run was stopped, and the stage with it.
    """
    with get_client(sync_client=True) as client:
        run, name = _submit(client, stage, force=force)
        try:
            state = _wait(client, run, stage, processes)
        except BaseException:
            _cancel(client, run)
            raise
    if state.is_completed():
        return state.name != RESTORED
    if state.is_cancelled():
        raise PawlineError(f"stage {stage.name} was cancelled in Prefect (run {name} in {stage.policy.work_pool})")
    passes = state.is_crashed() or state.name == TEMPORARY
    text = f"{state.message or state.name}"
    raise (TemporaryError if passes else PawlineError)(
        text if text.startswith(f"stage {stage.name} failed") else f"stage {stage.name} failed: {text}"
    )


def _find_pool(client: SyncPrefectClient, stage: PlannedStage) -> WorkPool:
    """Return the pool that a stage names, if it takes stages and somebody works for it."""
    name = stage.policy.work_pool or ""
    asked = f"which stage {stage.name} asks for (work_pool in its meta in dvc.yaml)"
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        raise PawlineError(
            f"there is no work pool {name}, {asked}: `pawline worker --pool {name}` makes it, beside `pawline ui`"
        ) from None
    plain = pool.type == PROCESS
    try:
        client.read_deployment_by_name(f"stage/{name}")
    except ObjectNotFound:
        deploy = f"prefect deploy --prefect-file deploy/{pool.type}/prefect.yaml --all"
        makes = f"pawline worker --pool {name}" if plain else deploy
        raise PawlineError(f"work pool {name}, {asked}, takes no stages yet: `{makes}`") from None
    if not deployments.workers(client, name):
        starts = f"pawline worker --pool {name}" if plain else f"prefect worker start --pool {name}"
        raise PawlineError(f"no worker is at work for work pool {name}, {asked}: `{starts}`")
    return pool


def _submit(client: SyncPrefectClient, stage: PlannedStage, *, force: bool) -> tuple[UUID, str]:
    """Ask for a run of the stage, part of the current run; return its id and name."""
    pool = _find_pool(client, stage)  # again: it may have gone since the run began
    name = f"{stage.name}-{flow_run.name}"
    run: Any = run_deployment(  # a FlowRun: nothing is awaited here
        f"stage/{pool.name}",
        parameters={
            "name": stage.name,
            "folder": str(Path.cwd()),
            "run": str(flow_run.id),
            "force": force,
            "timeout_seconds": stage.policy.timeout_seconds,
        },
        flow_run_name=name,
        timeout=0,
        job_variables=job_variables(stage, pool),
    )
    log = logging.LoggerAdapter(logger, {"stage": stage.name})
    log.info("handed over to work pool %s as run %s", pool.name, name)
    return run.id, name


def _wait(client: SyncPrefectClient, run: UUID, stage: PlannedStage, processes: StageProcesses) -> State[Any]:
    """Return the state in which a run ended.

    Raises:
        StoppedError: The processes were stopped.
        TemporaryError: For minutes nobody has worked for its pool; the run is set to Crashed, and ends wherever it is.
    """
    pool = str(stage.policy.work_pool)
    seen = time.monotonic()
    while True:
        processes.check()
        try:
            state = client.read_flow_run(run).state
            if state is not None and state.is_final():
                return state
            seen = time.monotonic() if deployments.workers(client, pool) else seen
        except httpx.HTTPError:  # the server is away: it cannot know
            seen = time.monotonic()
        if time.monotonic() - seen > LOST_SECONDS:
            message = f"no worker of work pool {pool} has been there for {LOST_SECONDS:.0f} s"
            client.set_flow_run_state(run, Crashed(message=message), force=True)
            raise TemporaryError(f"stage {stage.name} failed: {message}")
        time.sleep(POLL_SECONDS)


def _cancel(client: SyncPrefectClient, run: UUID) -> None:
    """Have a run cancelled, and wait until it is over: as long as it is at work, it writes into the project."""
    deadline = time.monotonic() + STOP_SECONDS
    with suppress(
        httpx.HTTPError
    ):  # without the server it cannot be told; it asks for the state of the whole run itself
        state = client.read_flow_run(run).state
        if state is not None and not state.is_final():
            client.set_flow_run_state(run, Cancelling(message="the run that it is part of was stopped"))
        while state is not None and not state.is_final() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            state = client.read_flow_run(run).state
