"""The graph as DVC sees it: its stages and what they need, whether one changed, and running one.

`dvc.yaml` is the only description of the graph and DVC alone decides what to redo: nothing here knows a stage by name.
Everything works on the project in the current folder.
"""

import fcntl
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

from flows import mending, policy
from flows.policy import Policy, Resources
from flows.stage_process import StageProcesses
from lineage import busy
from tasks.stage import TEMPORARY_FAILURE, PawlineError, TemporaryError

LOCK_PATH = Path(".dvc/tmp/pawline.lock")  # beside DVC's own locks, ignored by git
GUEST_LOCK_PATH = Path(".dvc/tmp/pawline-guests.lock")  # of the stages that were handed over to a work pool
SECONDS_BETWEEN_LOOKS = 0.2  # at a lock that another run holds
STAGE_ERROR, DVC_ERROR = "error: ", "ERROR: "  # how a stage and DVC begin the line that says why they failed
# A run in the background of a shell script ignores the interrupt signal, and so would DVC; stopping begins with it.
START_DVC = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from dvc.cli import main; sys.exit(main(sys.argv[1:]))"
)
COMMAND = "> "  # how DVC shows the command
EXITED = re.compile(r"ERROR: failed to reproduce .*, exited with (-?\d+)")
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

_in_this_process = threading.Lock()  # between two threads, DVC's own lock would cost half a second
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the graph: its name, what it is for, the stages it needs, how it is run, and what it gets for that."""

    name: str
    desc: str
    needs: tuple[str, ...]
    policy: Policy
    resources: Resources


def plan(targets: Sequence[str] = ()) -> list[PlannedStage]:
    """Return the stages that `dvc repro` would look at, in its order.

    Args:
        targets: Stages wanted, with everything they need; none means the whole of dvc.yaml.

    Raises:
        PawlineError: A target is no stage, DVC cannot read dvc.yaml, or a stage's `meta` is wrong.
    """
    mending.mend(Path.cwd())
    with _dvc_errors_in_one_line(), Repo() as repo:
        graph = get_active_graph(repo.index.graph)
        known = [stage.addressing for stage in plan_repro(graph)]
        for target in targets:
            if target not in known:
                raise PawlineError(f"unknown stage {target}: dvc.yaml has {', '.join(known)}")
        wanted = collect_stages(repo, targets or ["dvc.yaml"])
        return [
            PlannedStage(
                stage.addressing,
                stage.desc or "",
                tuple(sorted(needed.addressing for needed in graph.successors(stage))),
                *policy.read(stage.addressing, stage.meta),
            )
            for stage in plan_repro(graph, wanted)
        ]


def plan_stages(targets: Sequence[str] = ()) -> list[str]:
    """Return the names of the stages that `plan` returns."""
    return [stage.name for stage in plan(targets)]


def always_run() -> list[str]:
    """Return the stages that look at the outside, and so run each time (`always_changed` in dvc.yaml)."""
    with _dvc_errors_in_one_line(), Repo() as repo:
        return [stage.addressing for stage in repo.index.stages if stage.always_changed]


def is_unchanged(stage: str, processes: StageProcesses | None = None) -> bool:
    """Say whether DVC finds the stage's command, dependencies, parameters and outputs as its last run left them.

    Args:
        stage: The stage.
        processes: Those of the run; once they are stopped, a wait for DVC ends in a StoppedError.
    """
    with at_rest(processes) as repo:
        return not repo.status([stage])


@contextmanager
def at_rest(processes: StageProcesses | None = None) -> Iterator[Repo]:
    """Yield DVC's view of the project while no DVC command changes it: dvc.lock is whole and stays as it is."""
    with _dvc_errors_in_one_line(), _in_this_process, ExitStack() as stack:
        repo = stack.enter_context(Repo())
        while True:
            try:
                stack.enter_context(lock_repo(repo))
                break
            except LockError:  # after three seconds: a long command, such as `dvc push`
                if processes is not None:
                    processes.check()
        yield repo


@contextmanager
def only_run(processes: StageProcesses | None = None) -> Iterator[int]:
    """Wait until no other pawline run works on this project, and keep others waiting.

    DVC itself lets a second `dvc repro` fail at once, or both run one stage.

    Args:
        processes: Those of the run; once they are stopped, the wait ends in a StoppedError.

    Yields:
        The lock's file descriptor. A process that inherits it holds the lock too, so that a `dvc repro` whose parent
        was killed keeps others waiting until it ends.
    """
    check = processes.check if processes else lambda: None
    with hold_lock(LOCK_PATH, check) as lock_fd:
        with hold_lock(GUEST_LOCK_PATH, check):  # a stage in a work pool may outlive its run for a moment
            pass
        yield lock_fd


def wait_for_dvc(processes: StageProcesses) -> None:
    """Wait until no DVC command is at work on the project: a stage of ours between two of its own would end it.

    Raises:
        StoppedError: The processes were stopped.
    """
    waiting = False
    while (command := busy.dvc_at_work(Path.cwd())) is not None:
        if not waiting:
            logger.info("%s is at work in this project: waiting for it to end", command)
        waiting = True
        processes.check()
        time.sleep(SECONDS_BETWEEN_LOOKS)


@contextmanager
def hold_lock(path: Path, check: Callable[[], None] = lambda: None, *, shared: bool = False) -> Iterator[int]:
    """Hold a lock file, after whoever holds it now; yield its file descriptor.

    Args:
        path: The file.
        check: Is called while it waits, and may raise to end that.
        shared: Hold it together with others who do so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w+") as lock:  # NFS gives a shared lock on what can be read only
        waiting = False
        while not _try_lock(lock.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if not waiting:
                logger.info("another pawline run is at work in this project: waiting for it to end")
            waiting = True
            check()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        yield lock.fileno()


def reproduce_stage(
    stage: str,
    *,
    force: bool,
    lock_fd: int,
    timeout_seconds: float | None = None,
    processes: StageProcesses | None = None,
) -> bool:
    """Let DVC bring one stage up to date; its output is logged line by line.

    Stages that do not need each other may be run at the same time, by several threads.

    Args:
        stage: The stage; what it depends on is not looked at.
        force: Run the command even if DVC has its result.
        lock_fd: What `only_run` yielded.
        timeout_seconds: How long it may take.
        processes: Those of the run, if another thread may stop them.

    Returns:
        Whether the command ran; if not, DVC took the outputs from its run cache.

    Raises:
        TemporaryError: The stage failed for a reason that may pass, or was killed.
        PawlineError: It failed for another reason; the message ends with the line in which it said why.
        StoppedError: The processes were stopped.
    """
    log = logging.LoggerAdapter(logger, {"stage": stage})
    lines: list[str] = []

    def take(line: str) -> None:
        lines.append(line)
        if line and not line.startswith(HOUSEKEEPING):
            log.info("%s", line)

    # Waiting for the lock: another stage's `dvc repro` holds it while it looks at files and writes dvc.lock.
    command = [sys.executable, "-c", START_DVC, "--wait-for-lock", "repro", "--single-item"]
    command += [*(["--force"] if force else []), stage]
    try:
        exit_code = (processes or StageProcesses()).run(command, take, lock_fd=lock_fd, timeout_seconds=timeout_seconds)
    except TimeoutError:
        raise PawlineError(
            f"stage {stage} failed: it took longer than {timeout_seconds:g} s (timeout_seconds in its meta in dvc.yaml)"
        ) from None
    if exit_code != 0:
        raise _error(stage, lines, exit_code)
    return f"Running stage '{stage}':" in lines


def reason(lines: list[str]) -> str:
    """Return what the stage said was wrong, or else DVC's error and the stage's last words."""
    said = [line for line in lines if line and not line.startswith(HOUSEKEEPING)]
    if killer := _killer(_exit_code(said)):
        return _killed(killer)
    for line in reversed(said):
        if line.startswith(STAGE_ERROR):
            return line.removeprefix(STAGE_ERROR)
    errors = [
        re.sub(r"^ERROR: (failed to reproduce '.*?': )?", "", line) for line in said if line.startswith(DVC_ERROR)
    ]
    last_words = [line for line in said if not line.startswith((COMMAND, DVC_ERROR))][-1:]
    return "; ".join([*last_words, *errors[-1:]]) or "no output"


def _error(stage: str, lines: list[str], dvc_exit_code: int) -> PawlineError:
    """Return why a stage failed."""
    if killer := _killer(dvc_exit_code):  # DVC itself, which could not say so
        return TemporaryError(f"stage {stage} failed: {_killed(killer)}")
    exit_code = _exit_code(lines)
    kind = TemporaryError if exit_code == TEMPORARY_FAILURE or _killer(exit_code) else PawlineError
    return kind(f"stage {stage} failed: {reason(lines)}")


def _exit_code(lines: list[str]) -> int:
    """Return the exit code of the stage's command as DVC tells it, or 0 if it does not."""
    told = [found for line in lines if (found := EXITED.fullmatch(line))]
    return int(told[-1][1]) if told else 0


def _killer(exit_code: int) -> signal.Signals | None:
    """Return the signal that ended a process; a shell around it says 128 + N instead of -N."""
    number = -exit_code if exit_code < 0 else exit_code - 128
    return next((known for known in signal.Signals if known == number), None)


def _killed(killer: signal.Signals) -> str:
    why = "out of memory? Close other programs, or lower batch sizes; " if killer is signal.SIGKILL else ""
    return f"killed by signal {killer:d} ({killer.name}); {why}the next run carries on from here"


def _try_lock(file_descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(file_descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _dvc_errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except DvcException as error:
        raise PawlineError(f"{' '.join(str(error).split())}; `dvc status` says more") from error
