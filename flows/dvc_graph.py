"""The graph as DVC sees it: the order of its stages, whether one changed, and running one.

`dvc.yaml` is the only description of the graph and DVC alone decides what to redo: nothing here knows a stage by name.
Everything works on the project in the current folder.
"""

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

from tasks.stage import PawlineError

LOCK_PATH = Path(".dvc/tmp/pawline.lock")  # beside DVC's own locks, ignored by git
GRACE_SECONDS = 5.0  # for a stage to end after each signal, before the next and firmer one
STAGE_ERROR, DVC_ERROR = "error: ", "ERROR: "  # how a stage and DVC begin the line that says why they failed
COMMAND = "> "  # how DVC shows the command
# What DVC says around a stage, about itself: of no interest in the log of a run.
HOUSEKEEPING = (
    "Running stage ",
    "Generating lock file",
    "Updating lock file",
    "To track the changes with git, run:",
    "\tgit add ",
    "To enable auto staging, run:",
    "\tdvc config core.autostage",
    "Use `dvc push`",
)

logger = logging.getLogger(__name__)


def plan_stages(targets: Sequence[str] = ()) -> list[str]:
    """Return the stages that `dvc repro` would look at, in its order.

    Args:
        targets: Stages wanted, with everything they need; none means the whole of dvc.yaml.

    Raises:
        PawlineError: A target is no stage, or DVC cannot read dvc.yaml.
    """
    with _dvc_errors_in_one_line(), Repo() as repo:
        graph = get_active_graph(repo.index.graph)
        known = [stage.addressing for stage in plan_repro(graph)]
        for target in targets:
            if target not in known:
                raise PawlineError(f"unknown stage {target}: dvc.yaml has {', '.join(known)}")
        wanted = collect_stages(repo, targets or ["dvc.yaml"])
        return [stage.addressing for stage in plan_repro(graph, wanted)]


def is_unchanged(stage: str) -> bool:
    """Say whether DVC finds the stage's command, dependencies, parameters and outputs as its last run left them."""
    with _dvc_errors_in_one_line(), Repo() as repo:
        return not repo.status([stage])


@contextmanager
def only_run() -> Iterator[int]:
    """Wait until no other pawline run works on this project, and keep others waiting.

    DVC itself lets a second `dvc repro` fail at once, or both run one stage.

    Yields:
        The lock's file descriptor. A process that inherits it holds the lock too, so that a `dvc repro` whose parent
        was killed keeps others waiting until it ends.
    """
    with hold_lock(LOCK_PATH) as lock_fd:
        yield lock_fd


@contextmanager
def hold_lock(path: Path) -> Iterator[int]:
    """Hold a lock file, after whoever holds it now; yield its file descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another pawline run is at work in this project: waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def reproduce_stage(stage: str, *, force: bool, lock_fd: int) -> bool:
    """Let DVC bring one stage up to date; its output is logged line by line.

    Args:
        stage: The stage; what it depends on is not looked at.
        force: Run the command even if DVC has its result.
        lock_fd: What `only_run` yielded.

    Returns:
        Whether the command ran; if not, DVC took the outputs from its run cache.

    Raises:
        PawlineError: The stage failed; the message ends with the line in which it said why.
    """
    log = logging.LoggerAdapter(logger, {"stage": stage})
    lines: list[str] = []
    command = ["dvc", "repro", "--single-item", *(["--force"] if force else []), stage]
    with _started([sys.executable, "-m", *command], lock_fd) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        for line in map(str.rstrip, process.stdout):
            lines.append(line)
            if line and not line.startswith(HOUSEKEEPING):
                log.info("%s", line)
    if process.returncode != 0:
        raise PawlineError(f"stage {stage} failed: {reason(lines)}")
    return f"Running stage '{stage}':" in lines


@contextmanager
def _started(command: list[str], lock_fd: int) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a process group of its own, and leave nothing of the group behind."""
    process = subprocess.Popen(  # noqa: S603 - an argument list of our own, no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=_environment(),
        pass_fds=(lock_fd,),
        start_new_session=True,
    )
    try:
        yield process
        process.wait()
    except BaseException:
        _stop(process)
        raise


def _stop(process: subprocess.Popen[str]) -> None:
    """Interrupt the group, wait until the last of it has closed its output, and kill what will not go.

    Interrupted, as by Ctrl-C, DVC outlives its stage and clears its locks away; a plain kill would leave them.
    """
    try:
        for ever_firmer in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                os.killpg(process.pid, ever_firmer)
                process.communicate(timeout=GRACE_SECONDS)
                return
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment() -> dict[str, str]:
    """Return an environment in which `python` is this one, output comes line by line, and DVC tells nobody."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


def reason(lines: list[str]) -> str:
    """Return what the stage said was wrong, or else DVC's error and the stage's last words."""
    said = [line for line in lines if line and not line.startswith(HOUSEKEEPING)]
    for line in reversed(said):
        if line.startswith(STAGE_ERROR):
            return line.removeprefix(STAGE_ERROR)
    errors = [
        re.sub(r"^ERROR: (failed to reproduce '.*?': )?", "", line) for line in said if line.startswith(DVC_ERROR)
    ]
    last_words = [line for line in said if not line.startswith((COMMAND, DVC_ERROR))][-1:]
    return "; ".join([*last_words, *errors[-1:]]) or "no output"


@contextmanager
def _dvc_errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except DvcException as error:
        raise PawlineError(f"{' '.join(str(error).split())}; `dvc status` says more") from error
