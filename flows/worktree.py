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

from lineage import git
from lineage.rebuild import link_outside_files
from lineage.runs import Project, Run
from lineage.store import dvc_errors

LOCAL_CONFIG = Path(".dvc/config.local")
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
        PawlineError: git or DVC cannot make it.
    """
    root = project.root.resolve()
    folder = place(root)
    _check_out(root, folder, commit)
    _share_cache(project, root, folder)
    link_outside_files(root, folder)
    if lock is not None:
        (folder / "dvc.lock").write_bytes(lock)
    with dvc_errors(), Repo(str(folder)) as repo:
        repo.checkout(force=True, allow_missing=True)
    yield folder
    remove(root, folder)


def place(root: Path) -> Path:
    """Return where the worktree of a project is."""
    return root.parent / f".{root.name}-retrain"


def delete_pictures(root: Path) -> None:
    """Delete what retrainings left that may show a photo: the worktree of an interrupted one, and the pages."""
    remove(root.resolve(), place(root.resolve()))
    for page in (root / REPORTS_DIR).glob("*/*.html"):
        page.unlink()


def remove(root: Path, folder: Path) -> None:
    """Remove a worktree with everything in it."""
    shutil.rmtree(folder, ignore_errors=True)  # git alone would leave what DVC keeps there
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
    git.git(project.root, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    return Run(name, "experiment", commit)


def _check_out(root: Path, folder: Path, commit: str) -> None:
    """Check a commit out into a folder: a new one, or one that an interrupted run left, with its unfinished work."""
    git.git(root, "worktree", "prune")
    listed = git.git(root, "worktree", "list", "--porcelain").decode().splitlines()
    if f"worktree {folder}" in listed:
        logger.info("carrying on in %s, which an interrupted run left", folder)
        git.git(folder, "checkout", "--quiet", "--force", "--detach", commit)
        return
    shutil.rmtree(folder, ignore_errors=True)
    git.git(root, "worktree", "add", "--quiet", "--force", "--detach", str(folder), commit)


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
