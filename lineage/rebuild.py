"""Run all stages of a run again, in a fresh folder and fresh processes.

The folder lies beside the project, so that relative paths in params.yaml lead to the same photos. It has the files
that git keeps and nothing else: no output, no cache of DVC's, and not what Pawline remembers of photos it has seen.
"""

import fcntl
import glob
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs

from lineage import git, lockfile
from lineage.lockfile import Lock
from lineage.runs import Project, Run
from tasks.stage import PawlineError

PATHS = (("data", "path"), ("backbone", "path"))  # parameters that name files outside of git
CONFIG = Path(".dvc/config.local")
# No path of this machine: some characters, such as # and %, mean something there. `dir` is relative to the file.
DVC_CONFIG = "[core]\n    no_scm = true\n[cache]\n    dir = cache\n"
SITE_CACHE = Path(".dvc/site")  # what DVC remembers of files, for all users of the machine
LOCK = ".rebuild.lock"  # in the folder, and held as long as somebody is at work there
USER_CACHE = Path(".dvc/user-cache")
# Every stage runs; what it wrote is hashed where it is, and not copied into a cache first.
COMMAND = ("dvc", "repro", "--force", "--no-run-cache", "--no-commit")
RUNNING = re.compile(r"Running stage '(.+)':")
STAGE_ERROR = "error: "  # how a stage begins the line that says why it failed


@contextmanager
def fresh_copy(project: Project, run: Run, lock: Lock) -> Iterator[Path]:
    """Yield a folder with a run's files as git keeps them, and remove it whatever happens.

    Of the workspace, these are its files as they are now, and the code in `lock` that git does not know yet.

    Raises:
        PawlineError: No folder can be made beside the project.
    """
    root = project.root.resolve()
    remove_dead(root)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{root.name}-rebuild-", dir=root.parent))
    except OSError as error:
        raise PawlineError(
            f"the rebuild needs a folder beside the project, and {root.parent} refuses it ({error.strerror}): "
            "copy the project to where you may write"
        ) from error
    with _at_work(folder):
        try:
            if run.commit is None:
                _copy_workspace(root, lock, folder)
            else:
                _copy_commit(root, run.commit, folder)
            _isolate(folder)
            params = lockfile.load_yaml((folder / "params.yaml").read_bytes(), origin="params.yaml")
            link_outside_files(root, folder, params)
            yield folder
        finally:  # while the lock is held: another rebuild would take the folder for a dead one
            _remove(folder)


def remove_dead(root: Path) -> None:
    """Remove the folders that rebuilds of a project left when they were killed: photos are in them."""
    for lock_path in root.resolve().parent.glob(f".{glob.escape(root.resolve().name)}-rebuild-*/{LOCK}"):
        with suppress(OSError), lock_path.open("rb+") as lock:  # it is held, gone by now, or somebody else's
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock_path.parent)


def _remove(folder: Path) -> None:
    """Remove a rebuild's folder, the lock by which it is found last."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    shutil.rmtree(folder)


@contextmanager
def _at_work(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which has its name only once it is held: `remove_dead` never finds it free before."""
    with (folder / f"{LOCK}.new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / f"{LOCK}.new").rename(folder / LOCK)
        yield


@contextmanager
def started(module: Sequence[str], folder: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a Python module in a folder, in a process group of its own, and leave nothing of the group behind."""
    process = subprocess.Popen(  # noqa: S603 - an argument list of our own, no shell
        [sys.executable, "-m", *module],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=env,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Killed outright: nothing in the folder is worth an orderly end.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()  # until the last of the group has closed its output


def stages_run(process: subprocess.Popen[str], run: Run) -> Iterator[tuple[str, float]]:
    """Yield each stage as it ends, with the seconds it took.

    Raises:
        PawlineError: A stage failed; the message has the line in which it said why.
    """
    assert process.stdout is not None  # noqa: S101 - for the type checker
    stage, began, said = "", time.monotonic(), ["no output"]
    for line in map(str.rstrip, process.stdout):
        match = RUNNING.fullmatch(line)
        if match is None:
            said += [line] if line else []
            continue
        ended = time.monotonic()
        if stage:
            yield stage, ended - began
        stage, began, said = match[1], ended, ["no output"]
    if process.wait() != 0:
        errors = [line.removeprefix(STAGE_ERROR) for line in said if line.startswith(STAGE_ERROR)]
        raise PawlineError(f"rebuilding {run.name}: stage {stage or 'none'} failed: {(errors or said)[-1]}")
    yield stage, time.monotonic() - began


def _copy_commit(root: Path, commit: str, folder: Path) -> None:
    archive = git.git(root, "archive", "--format=tar", commit)  # of the project's folder, if git's is above it
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extraction_filter = lambda member, _: member  # git wrote it: links may lead where they like
        tar.extractall(folder)  # noqa: S202


def _copy_workspace(root: Path, lock: Lock, folder: Path) -> None:
    made_by = lockfile.producers(lock)
    code = sorted({dep.path for stage in lock.values() for dep in stage.deps if dep.path not in made_by})
    kept = git.git(root, "ls-files", "-z", "--cached")
    new = git.git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", "dvc.yaml", "params.yaml", *code)
    for name in {os.fsdecode(name) for name in (kept + new).split(b"\0") if name}:
        if (root / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name, follow_symlinks=False)


def _isolate(folder: Path) -> None:
    """Give DVC and Pawline empty memories, and leave no dvc.lock by which a stage could be found done."""
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / CONFIG).parent.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(DVC_CONFIG, encoding="utf-8")
    weights = platformdirs.user_cache_path("pawline") / "weights"
    if weights.is_dir():  # checked by their digest whenever they are read; the network is needed no more than before
        (folder / USER_CACHE / "pawline").mkdir(parents=True)
        (folder / USER_CACHE / "pawline/weights").symlink_to(weights)


def link_outside_files(root: Path, folder: Path, params: Mapping[str, Any]) -> None:
    """Link photos and weights that parameters name by a path within the project, where git does not keep them.

    Args:
        root: The project's folder.
        folder: The copy of it.
        params: What params.yaml holds, or a part of it.
    """
    for section, key in PATHS:
        named = params.get(section, {}).get(key)
        # Above the project, the copy beside it finds the same; an absolute path or a URL is no file of the project.
        if named and (root / named).exists() and not os.path.lexists(folder / named):
            (folder / named).parent.mkdir(parents=True, exist_ok=True)
            (folder / named).symlink_to(root / named)


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which `python` is this one and the folder's code comes first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    memories = {"XDG_CACHE_HOME": str(folder / USER_CACHE), "DVC_SITE_CACHE_DIR": str(folder / SITE_CACHE)}
    own = {"PATH": path, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}
    return {**inherited, **memories, **own}
