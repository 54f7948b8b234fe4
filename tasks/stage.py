"""The shell around every stage: command line, log, exit code, and outputs that appear whole or not at all."""

import argparse
import ctypes
import errno
import hashlib
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

SECONDS_TO_UNWIND = 3.0
TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h
FACTS_DIGEST = "facts_sha256"  # in a JSON file that leaves the project: of all that it says beside
SEAL = "digests.json"  # in an output folder: see tasks/seals.py
DAMAGE_ERRNOS = (None, errno.EIO, errno.EINVAL)  # of an OSError about a file that is not what it was
SCRATCH = Path(".pawline")  # unfinished work, so that an interrupted stage carries on; never an input of a stage
# What can give way below a program: how it is called, and what cures it.
GIVES_WAY = {
    errno.ENOSPC: ("no space left on the disk", "make room"),
    errno.EDQUOT: ("no space left on the disk", "make room"),
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EIO: ("the disk failed", "look after it"),
    errno.EMFILE: ("too many open files", "allow more (`ulimit -n`)"),
    errno.ENFILE: ("too many open files in the system", "close other programs"),
    errno.ENOMEM: ("out of memory", "close other programs, or lower batch sizes,"),
}
# How NumPy, C++, OpenVINO, TensorFlow, Python and the loader of libraries say it without the system's number and words.
OTHER_WORDS = {
    errno.ENOSPC: r"\d+ requested and \d+ written|iostream error",
    errno.ENOMEM: r"bad_alloc|OOM when allocating|can't start new thread|Resource temporarily unavailable|"
    r"failed to map segment",
}


class PawlineError(Exception):
    """Something the user can put right: the message is the one line they read, and says what to do next."""

    def __str__(self) -> str:
        """Spell out what would break the line, or steer a terminal: names of others' files are in it."""
        return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in super().__str__())


class TemporaryError(PawlineError):
    """Something that may be right again by itself, such as a network that is down: another try is worth while."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a stage's argument parser: its help is the module's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_path(stage_parser: argparse.ArgumentParser, flag: str, default: str, text: str) -> None:
    """Add a path option whose help ends with its default."""
    stage_parser.add_argument(flag, type=Path, default=Path(default), help=f"{text} (default: %(default)s)")


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`: log lines to stdout, a `PawlineError` as one line on stderr, and an exit code.

    Exit codes: 0 done, 1 a `PawlineError`, 75 (`EX_TEMPFAIL` of sysexits.h) a `TemporaryError`, 130 interrupted from
    the keyboard.
    """
    _die_with_parent()
    _allow_many_files()
    signal.signal(signal.SIGTERM, _end)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        main()
    except PawlineError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(TEMPORARY_FAILURE if isinstance(error, TemporaryError) else 1)
    except FileNotFoundError as error:
        sys.stderr.write(f"error: {error.filename or error} is missing: run `dvc repro` for what a stage reads\n")
        sys.exit(1)
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        sys.stderr.write(f"error: {error.filename}: {error.strerror}: make it accessible and run again\n")
        sys.exit(1)
    except Exception as error:
        line = gave_way(error)
        if line is None:
            raise
        sys.stderr.write(f"error: {line}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the next run carries on from here\n")
        sys.exit(130)


def gave_way(error: BaseException) -> str | None:
    """Return the one line for a disk, memory or the like that gave way below the program; None for anything else.

    Libraries pass the system's error number on, or put its words into an error of their own, or into one that follows.
    """
    seen: BaseException | None = error
    while seen is not None:
        number = _number_of(seen)
        if number is not None:
            what, cure = GIVES_WAY[number]
            named = getattr(seen, "filename2", None) or getattr(seen, "filename", None)
            return f"{what}{f' ({named})' if named else ''}: {cure} and run again"
        seen = seen.__cause__ or seen.__context__
    return None


def tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Tell in one line what gave way, and of anything else the traceback: a `sys.excepthook`."""
    line = gave_way(error)
    if line is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        sys.stderr.write(f"error: {line}\n")


def _number_of(error: BaseException) -> int | None:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    number = getattr(error, "errno", None)
    if number in GIVES_WAY:
        return int(number)
    words = str(error)
    for known in GIVES_WAY:
        if os.strerror(known) in words or re.search(OTHER_WORDS.get(known, "$^"), words):
            return known
    return None


def _end(*_: object) -> None:
    """Answer a polite kill: unwind like Ctrl-C, so that temporary files go, but only once and not for long."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Raised inside a callback of the garbage collector, the exit below would be swallowed.
    deadline = threading.Timer(SECONDS_TO_UNWIND, os._exit, [143])
    deadline.daemon = True
    deadline.start()
    sys.exit(143)


def _die_with_parent() -> None:
    """Ask Linux to end this process when DVC is killed: an orphan would write outputs under the next run's feet.

    Killed outright, as DVC was: outputs appear whole or not at all, and worker processes end by themselves.
    """
    if sys.platform == "linux" and "DVC_STAGE" in os.environ:
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _allow_many_files() -> None:
    """Let this process open as many files as the system lets it: a training split is mapped from its many shards."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def whole_dir(out_dir: Path) -> Iterator[Path]:
    """Yield a fresh folder that replaces `out_dir` when the block ends well, and vanishes when it does not."""
    unfinished = out_dir.with_name(f".{out_dir.name}.unfinished")
    _remove(unfinished)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _remove(out_dir)
        unfinished.replace(out_dir)
    finally:
        _remove(unfinished)


@contextmanager
def whole_file(out_path: Path) -> Iterator[Path]:
    """Yield a temporary path (same suffix) that replaces `out_path` when the block ends well."""
    out_path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out_path.with_name(f".unfinished.{out_path.name}")
    try:
        yield unfinished
        unfinished.replace(out_path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def scratch_dir(stage_name: str, key: str) -> Iterator[Path]:
    """Yield a folder that outlives an interrupted run of a stage and goes when the stage ends well.

    Args:
        stage_name: The stage; unfinished work of its other keys is removed.
        key: A digest of everything the work depends on, so that only the same work is carried on.
    """
    stage_scratch = SCRATCH / stage_name
    for other in stage_scratch.glob("*"):
        if other.name != key:
            _remove(other)
    folder = stage_scratch / key
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    _remove(stage_scratch)
    made_by_a_person = SCRATCH.is_symlink() or SCRATCH.is_mount()  # to have it on another disk
    if SCRATCH.is_dir() and not made_by_a_person and not any(SCRATCH.iterdir()):
        SCRATCH.rmdir()


def digest_inputs(facts: object, *folders: Path) -> str:
    """Digest what a stage's unfinished work depends on, for `scratch_dir`.

    Args:
        facts: Parameters, the environment and the like, as JSON values.
        folders: Their files are digested, and so are the project's modules imported so far. Of a folder with a seal,
            which the stage has checked, that stands for the files.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    specs = [getattr(module, "__spec__", None) for module in sys.modules.values()]
    code = sorted(Path(spec.origin) for spec in specs if spec and spec.origin and spec.name.startswith("tasks."))
    sealed = ([folder / SEAL] if (folder / SEAL).exists() else sorted(folder.iterdir()) for folder in folders)
    for path in [*code, *(path for paths in sealed for path in paths)]:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in one line that a file of ours is damaged, whatever library found that out in the block, and how.

    Raises:
        PawlineError: It cannot be read for what it is.
    """
    try:
        yield
    except (PawlineError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in DAMAGE_ERRNOS:
            raise
        said = (str(error).strip().splitlines() or [""])[0]
        raise damaged(path, f"{type(error).__name__}: {said[:200]}") from error


def damaged(path: Path, why: str) -> PawlineError:
    """Return the error about a file of ours that is not what it was."""
    return PawlineError(f"{path} is damaged ({why}): `pawline verify` says what else is, and how to get it back")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    with reading(path):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise TypeError("it is no JSON object")
    return found


def facts_digest(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of some facts, but for the one that says what it is."""
    said = {name: fact for name, fact in facts.items() if name != FACTS_DIGEST}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def write_json(value: object, path: Path) -> None:
    """Write JSON with sorted keys, for people and for diffs."""
    path.write_text(as_json(value), encoding="utf-8")


def as_json(value: object) -> str:
    """Return the text that `write_json` writes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
