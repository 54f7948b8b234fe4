"""A git worktree for retraining: a commit in a folder of its own, which shares DVC's cache with the project.

So nobody's working tree is touched, and what was trained there is in the cache when the folder is gone.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.config import Config
from dvc.repo import Repo

from flows import mending
from flows.dvc_graph import GUEST_LOCK_PATH, LOCK_PATH, hold_lock
from lineage import git, lockfile
from lineage.rebuild import link_outside_files
from lineage.runs import Project, Run
from lineage.store import dvc_errors
from tasks.stage import PawlineError

LOCAL_CONFIG = Path(".dvc/config.local")
GIT_POINTER = ".git"  # the file by which a worktree knows its repository
NO_HOOKS = ("-c", "core.hooksPath=/dev/null")  # they are about the user's own tree; DVC's would check out too early
REPORTS_DIR = Path("reports/retrain")  # a folder a run
# Hardlinks spare a second copy of the data. Stages replace their outputs and never write into them.
LINK_TYPES = ["reflink", "hardlink", "copy"]
RUN_FILES = ("params.yaml", "dvc.lock")  # what a run adds to the commit it started from

logger = logging.getLogger(__name__)


@contextmanager
def opened(project: Project, commit: str, lock: bytes | None) -> Iterator[Path]:
    """Yield a worktree of a commit, and remove it when the block ends well; left behind, it is carried on with.

    It lies beside the project, so that relative paths in params.yaml lead to the same photos.

    Args:
        project: The checkout.
        commit: Full id.
        lock: The dvc.lock to start from instead of the commit's; its outputs are checked out as far as they are here.

    Raises:
        PawlineError: git or DVC cannot make it, or somebody else's folder is where it would be.
    """
    root = project.root.resolve()
    folder = place(root)
    _wait_until_idle(root, folder)
    _check_out(root, folder, commit)
    _share_cache(project, root, folder)
    link_outside_files(root, folder, lockfile.load_yaml((folder / "params.yaml").read_bytes(), origin="params.yaml"))
    if lock is not None:
        (folder / "dvc.lock").write_bytes(lock)
    mending.mend(folder)
    _check_lists(project, folder / "dvc.lock")
    with dvc_errors(), Repo(str(folder)) as repo:
        repo.checkout(force=True, allow_missing=True)
    yield folder
    remove(root, folder)


def _check_lists(project: Project, lock_path: Path) -> None:
    """Make sure that no list of files leads out of the worktree: DVC would write there."""
    content = lock_path.read_bytes() if lock_path.exists() else b"{}"
    for out in (out for stage in lockfile.parse_lock(content).values() for out in stage.outs if out.is_folder):
        listed = project.store.object_path(out.md5)
        if listed.is_file():
            lockfile.parse_folder(listed.read_bytes())


def place(root: Path) -> Path:
    """Return where the worktree of a project is."""
    return root.parent / f".{root.name}-retrain"


def delete_pictures(root: Path) -> None:
    """Delete what retrainings left that may show a photo: the worktree of an interrupted one, and the pages."""
    folder = place(root.resolve())
    _wait_until_idle(root.resolve(), folder)
    remove(root.resolve(), folder)
    for page in (root / REPORTS_DIR).glob("*/*.html"):
        page.unlink()


def remove(root: Path, folder: Path) -> None:
    """Remove a worktree with everything in it."""
    # git alone would leave what DVC keeps there. What says whose folder it is goes last.
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != GIT_POINTER:
            path.unlink()
    if folder.is_dir():
        shutil.rmtree(folder)
    git.git(root, "worktree", "prune")


def keep_run(project: Project, folder: Path, *, base: str, name: str, message: str) -> Run:
    """Keep the run of a worktree as a DVC experiment, which git and `pawline gc` leave alone.

    Args:
        project: The checkout.
        folder: The worktree; its params.yaml and dvc.lock become a commit.
        base: The commit it started from.
        name: The experiment's.
        message: The commit's.
    """
    git.git(folder, "add", "--", *RUN_FILES)
    tree = git.git(folder, "write-tree").decode().strip()
    commit = git.git(folder, "commit-tree", tree, "-p", base, stdin=f"{message}\n".encode()).decode().strip()
    git.point(project.root, f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    return Run(name, "experiment", commit)


def _check_out(root: Path, folder: Path, commit: str) -> None:
    """Check a commit out into a folder: a new one, or one that an interrupted run left, with its unfinished work."""
    if (folder / GIT_POINTER).exists():
        try:
            git.git(folder, *NO_HOOKS, "checkout", "--quiet", "--force", "--detach", commit)
            logger.info("carrying on in %s, which an interrupted run left", folder)
            return
        except PawlineError as error:  # such as a lock file that a killed git left
            logger.info("%s is of no more use (%s): making it anew", folder, error)
    remove(root, folder)
    add = ("worktree", "add", "--quiet", "--force", "--force", "--detach")  # twice: even if it was locked
    git.git(root, *NO_HOOKS, *add, str(folder), commit)


def _wait_until_idle(root: Path, folder: Path) -> None:
    """Make sure that a folder may be changed: it is ours, and no stage that outlived its run is at work in it.

    Raises:
        PawlineError: Somebody else made it.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    pointer = folder / GIT_POINTER
    ours = git.git(root, "rev-parse", "--path-format=absolute", "--git-common-dir").decode().strip() + "/worktrees/"
    if not pointer.is_file() or not pointer.read_text(encoding="utf-8").removeprefix("gitdir: ").startswith(ours):
        raise PawlineError(f"{folder} is in the way, and not Pawline's: a retraining works there; move it")
    # A stage's DVC holds one of the two to its end.
    with hold_lock(folder / LOCK_PATH), hold_lock(folder / GUEST_LOCK_PATH):
        return


def _share_cache(project: Project, root: Path, folder: Path) -> None:
    """Let DVC keep in the project's cache what is made in the worktree."""
    if (root / LOCAL_CONFIG).is_file():
        shutil.copyfile(root / LOCAL_CONFIG, folder / LOCAL_CONFIG)
    config = Config(str(folder / ".dvc"))
    chosen = config["cache"].get("type")
    with config.edit("local") as local:
        settings = local.setdefault("cache", {})
        settings["dir"] = str(project.store.cache_dir.parents[1].resolve())
        settings["type"] = chosen or LINK_TYPES
