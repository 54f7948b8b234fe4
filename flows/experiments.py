"""Runs that are kept as DVC experiments: names, keeping what is in the workspace, and one command at a time.

Everything works on the project in the current folder.
"""

import logging
import re
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.logger import set_loggers_level
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.repo.experiments.utils import exp_refs, remove_exp_refs
from dvc.scm import NoSCM
from scmrepo.exceptions import SCMError

from flows.dvc_graph import hold_lock
from tasks.stage import PawlineError

COMMAND_LOCK_PATH = Path(".dvc/tmp/pawline-command.lock")
STATE_PATHS = ("params.yaml", "dvc.lock")  # they say what a run was made of: dvc.lock has the digests of all inputs
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # git takes it in a ref, and a file system as a file's name


@contextmanager
def only_command() -> Iterator[None]:
    """Wait until no other command changes params.yaml or experiments here, and keep others waiting.

    `dvc_graph.only_run` is held while stages run; this one from before settings are written until a run is kept.
    """
    with hold_lock(COMMAND_LOCK_PATH):
        yield


def are_possible() -> bool:
    """Say whether there is what experiments need: a git repository with a commit."""
    with open_repo() as repo:
        return not isinstance(repo.scm, NoSCM) and not repo.scm.no_commits


def free_name(prefix: str, *, also_taken: Collection[str] = ()) -> str:
    """Return the first of `prefix-1`, `prefix-2`, ... that no experiment has, and nothing else that is named here."""
    taken, number = experiment_names().union(also_taken), 1
    while f"{prefix}-{number}" in taken:
        number += 1
    return f"{prefix}-{number}"


def free_prefix(word: str) -> str:
    """Return the first of `word1`, `word2`, ... that begins no experiment's name."""
    taken, number = experiment_names(), 1
    while any(name.startswith(f"{word}{number}-") for name in taken):
        number += 1
    return f"{word}{number}"


def experiment_names() -> set[str]:
    """Return the names of all experiments that are kept, whatever commit they started from."""
    with open_repo() as repo:
        return {ref.name for ref in exp_refs(repo.scm)}


def check_name(name: str) -> None:
    """Refuse what cannot be part of an experiment's name."""
    if not NAME.fullmatch(name) or ".." in name or name.endswith((".", ".lock")):
        raise PawlineError(f"--name {name}: use letters, digits, - and _, such as wide-head")


def keep_workspace(stages: Sequence[str], *, name: str) -> None:
    """Keep the workspace, in which the stages are up to date, as a DVC experiment.

    DVC looks at the stages once more, finds them done and commits. `dvc exp save` would do it too, but it puts files
    that belong to DVC (those of top-level `metrics` and `plots`) into git, and a branch made from that experiment
    refuses to be reproduced.

    Raises:
        PawlineError: Git is told to look away from params.yaml or dvc.lock, and what DVC then commits is another run
            (and it puts the committed settings into the workspace): nothing is kept, and both files are as before.
    """
    here = [Path(path).read_bytes() for path in STATE_PATHS]
    with uninterrupted(), open_repo() as repo:
        always = {stage.addressing for stage in repo.index.stages if stage.always_changed}  # they would run once more
        repo.experiments.run(targets=[stage for stage in stages if stage not in always], single_item=True, name=name)
        ref = ExpRefInfo(repo.scm.get_rev(), name)
        if not _is_same(_files(repo, ref), here):
            remove_exp_refs(repo.scm, [ref])
            for path, content in zip(STATE_PATHS, here, strict=True):
                Path(path).write_bytes(content)
            raise PawlineError(
                f"not kept as {name}: git leaves out changes of {' or '.join(STATE_PATHS)}; see that neither is in "
                ".gitignore, assume-unchanged or skip-worktree (`git ls-files -v`), then run again"
            )


def find_kept() -> str | None:
    """Return the name of an experiment, from the same commit, with the workspace's params.yaml and dvc.lock."""
    with open_repo() as repo:
        here = [Path(path).read_bytes() for path in STATE_PATHS]
        for ref in exp_refs(repo.scm):
            if ref.baseline_sha == repo.scm.get_rev() and _is_same(_files(repo, ref), here):
                return str(ref.name)
    return None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put signals off: DVC moves the workspace's changes aside and back when it makes an experiment."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def open_repo() -> Iterator[Repo]:
    """Yield DVC's view of the project, its own words off the terminal; its errors and git's become one line."""
    try:
        with set_loggers_level(logging.ERROR), Repo() as repo:
            yield repo
    except (DvcException, SCMError) as error:
        raise PawlineError(" ".join(str(error).split())) from error


def _files(repo: Repo, ref: ExpRefInfo) -> list[bytes]:
    root = Path(repo.root_dir).relative_to(repo.scm.root_dir)
    fs = repo.scm.get_fs(repo.scm.get_ref(str(ref)))
    paths = [str(root / path) for path in STATE_PATHS]
    return [fs.cat_file(path) if fs.exists(path) else b"" for path in paths]


def _is_same(files: list[bytes], others: list[bytes]) -> bool:
    """Compare contents by line: git may be set to convert the ends of lines."""
    return [content.splitlines() for content in files] == [content.splitlines() for content in others]
