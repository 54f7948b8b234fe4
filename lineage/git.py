"""What lineage needs of git, by git's own command; paths are relative to the project's folder."""

import logging
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.stage import PawlineError

SEPARATOR = "\0"  # between fields of a commit: the one character that none can hold
NO_FILE = f"{os.devnull}/none"  # can never be there; git comments on a file of grafts that is, even if it is empty


NO_NAME = "error: inflate: "  # zlib's word on what is damaged, which is not its name; that is in the next line
SETTINGS = {"core.fsync": "all", "log.showSignature": "false"}  # whatever the user's configuration says
DEAD_LOCK_SECONDS = 10.0
SECONDS_BETWEEN_LOOKS = 0.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Commit:
    """Who committed what, and when (ISO 8601, as the author's clock had it)."""

    id: str
    author: str
    email: str
    time: str
    subject: str


def git(root: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Run git in a folder and return what it printed.

    Raises:
        PawlineError: Git failed; the message is the line that says why.
    """
    done = _run(root, *arguments, stdin=stdin)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        told = [line for line in said if line.startswith(("fatal: ", "error: ")) and not line.startswith(NO_NAME)]
        line = told[0] if told else said[-1]
        command = next(argument for argument in arguments if not argument.startswith("-") and "=" not in argument)
        raise PawlineError(f"git {command}: {line.removeprefix('fatal: ')}")
    return done.stdout


def point(root: Path, ref: str, new: str, old: str | None = None) -> None:
    """Let a ref that Pawline alone writes point to an object.

    A git that is killed leaves the ref's lock file behind, with which every later one fails. Git holds it for
    milliseconds: one that stays as it is for seconds is dead, and is removed.

    Args:
        root: The project's folder.
        ref: The ref.
        new: The object's id.
        old: What it must have pointed to; empty: there must be none; None: whatever.

    Raises:
        PawlineError: It points elsewhere, or git refuses.
    """
    arguments = ["update-ref", "-m", "pawline", ref, new, *([] if old is None else [old])]
    lock = root / git(root, "rev-parse", "--git-path", f"{ref}.lock").decode().strip()
    try:
        git(root, *arguments)
    except PawlineError:
        if not _outlasted(lock):
            raise
        git(root, *arguments)


def _outlasted(lock: Path) -> bool:
    """Say whether there was a lock file, which is gone by now: by itself, or because nobody had it any more."""
    seen = _identity(lock)
    if seen is None:
        return False
    deadline = time.monotonic() + DEAD_LOCK_SECONDS
    while _identity(lock) == seen:
        if time.monotonic() > deadline:
            logger.warning("%s was left behind by a git that was killed: removed", lock)
            lock.unlink(missing_ok=True)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def is_repository(root: Path) -> bool:
    """Say whether a folder is part of a git repository that has a commit."""
    return _run(root, "rev-parse", "--verify", "--quiet", "HEAD").returncode == 0


def is_shallow(root: Path) -> bool:
    """Say whether this clone lacks a part of the history."""
    return git(root, "rev-parse", "--is-shallow-repository").strip() == b"true"


def find_commit(root: Path, revision: str) -> str | None:
    """Return the full id of the commit a revision names, or None."""
    done = _run(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return done.stdout.decode().strip() if done.returncode == 0 else None


def check_refs(root: Path, *patterns: str) -> None:
    """Read what branches and tags lead to: git itself passes over one that it cannot read, as if it were not there.

    Raises:
        PawlineError: One of them is damaged, or what it leads to.
    """
    done = _run(root, "for-each-ref", "--format=%(refname)", *patterns)
    refs, said = os.fsdecode(done.stdout).split("\n")[:-1], done.stderr.decode(errors="replace")
    if refs and "broken ref" not in said:
        done = _run(root, "rev-list", "--no-walk", *refs)
        said = done.stderr.decode(errors="replace")
    if done.returncode != 0 or "broken ref" in said:
        line = (said.strip().splitlines() or ["no output"])[-1]
        raise PawlineError(f"git cannot read a branch or tag ({line}): `git fsck` says more, `git fetch` may have it")


def read_commit(root: Path, commit: str) -> Commit:
    """Return who made a commit, when, and why."""
    form = "%x00".join(("%H", "%an", "%ae", "%aI", "%s"))
    text = git(root, "show", "--no-patch", f"--format={form}", commit).decode(errors="replace")
    return Commit(*text.rstrip("\n").split(SEPARATOR))


def read_file(root: Path, commit: str, path: str) -> bytes | None:
    """Return a file's bytes as they were at a commit; None if the commit has no such file."""
    done = _run(root, "cat-file", "blob", f"{commit}:./{path}")
    return done.stdout if done.returncode == 0 else None


def list_files(root: Path, commit: str, folder: str) -> list[str]:
    """Return the files below a folder at a commit, relative to the project."""
    listed = git(root, "ls-tree", "-r", "-z", "--name-only", commit, "--", folder)
    return [os.fsdecode(name) for name in listed.split(b"\0") if name]


def tags(root: Path, pattern: str) -> list[str]:
    """Return the tags that match a pattern such as `classifier@*`."""
    return os.fsdecode(git(root, "tag", "--no-column", "--list", pattern)).split("\n")[:-1]


def _run(root: Path, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 - an argument list, no shell
            ["git", *arguments],  # noqa: S607 - the user's git
            cwd=root,
            input=stdin,
            capture_output=True,
            check=False,
            env=environment(),
        )
    except FileNotFoundError as error:
        if error.filename != "git":
            raise PawlineError(f"{error.filename} is not there") from error
        raise PawlineError("git is not installed, and the history is read with it: install git") from error


def environment() -> dict[str, str]:
    """Return the environment in which git shows the history as it is, and writes it to the disk.

    A replacement (`git replace`) would be shown under the id of what it hides, and a graft gives a commit other
    parents. What git wrote must not wait in a buffer: a power cut would lose a decision. And what it says is looked at
    here: in English, and with no word on signatures between what was asked for.
    """
    first = int(os.environ.get("GIT_CONFIG_COUNT", "0"))
    history = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": NO_FILE}
    english = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}
    numbered: dict[str, str] = {}
    for number, (key, value) in enumerate(SETTINGS.items(), start=first):
        numbered |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {**os.environ, **history, **english, **numbered, "GIT_CONFIG_COUNT": str(first + len(SETTINGS))}
