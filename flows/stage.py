"""One stage as a Prefect flow: what a worker of another work pool carries out for a run (flows/pools.py)."""

import logging
import socket
from contextlib import chdir, suppress
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows import dvc_graph, liveness
from flows.cancelling import stoppable
from flows.stage_process import StoppedError
from tasks.stage import PawlineError, TemporaryError

RESTORED, TEMPORARY = "Restored", "TemporaryFailure"  # names of final states, for the run that waits
HOST_PATH = Path(".dvc/tmp/pawline-host")  # which run hands stages over; beside DVC's own locks, ignored by git

logger = logging.getLogger(__name__)


@flow
def stage(
    name: str, *, folder: str, run: str, force: bool = False, timeout_seconds: float | None = None
) -> State[None]:
    """Run one stage for a run that waits for it, in that run's folder.

    Args:
        name: The stage's.
        folder: Absolute; this machine must see it under the same path.
        run: Id of the flow run that waits.
        force: Run the command even if DVC has its result.
        timeout_seconds: How long it may take.

    Returns:
        A state: `Completed`, `Restored` from DVC's run cache, `Failed`, `TemporaryFailure` or `Cancelled`.
    """
    log = logging.LoggerAdapter(logger, {"stage": name})
    try:
        with liveness.noted(handed_over=True), suppress(StoppedError), stoppable() as processes:
            _check_folder(Path(folder), run)
            with chdir(folder), dvc_graph.hold_lock(dvc_graph.GUEST_LOCK_PATH, processes.check, shared=True) as lock_fd:
                log.info("for run %s", run)
                ran = dvc_graph.reproduce_stage(
                    name, force=force, lock_fd=lock_fd, timeout_seconds=timeout_seconds, processes=processes
                )
            return Completed() if ran else Completed(name=RESTORED)
    except TemporaryError as error:
        return Failed(name=TEMPORARY, message=str(error))
    except PawlineError as error:
        return Failed(message=str(error))
    return Cancelled(message="stopped")


def _check_folder(folder: Path, run: str) -> None:
    """Make sure that this is the folder in which the run waits, and not another of the same name."""
    mark = folder / HOST_PATH
    if not mark.is_file() or mark.read_text(encoding="utf-8") != run:
        raise PawlineError(
            f"{folder} on {socket.gethostname()} is not the folder of the run that waits: every machine must see the "
            "project, and the folder above it, under the same path"
        )
