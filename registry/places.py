"""The places that hold a project's objects, DVC's cache and its remotes: what is in them, and taking it out."""

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineage import lockfile
from lineage.busy import living
from lineage.store import Store, check_there, dvc_errors
from tasks.stage import PawlineError
from tasks.store_urls import without_secrets

CACHE = "DVC's cache"  # no remote can have that name: DVC spells them all in lower case
OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
DVC_TMP = Path(".dvc/tmp")
EXPERIMENTS = DVC_TMP / "exps"  # DVC runs experiments outside of the workspace below it
WRITING_SECONDS = 1.0  # DVC writes these files anew in place, and a reader may find one half written


@dataclass(frozen=True)
class Place:
    """One place.

    Attributes:
        name: `CACHE`, or the remote's name.
        odb: DVC's object database there.
    """

    name: str
    odb: Any

    def sizes(self, md5s: Iterable[str]) -> dict[str, int]:
        """Return those of some objects that are here, with their bytes.

        Raises:
            PawlineError: The place cannot be reached. (DVC's own `exists` answers no in that case.)
        """
        asked = sorted(md5s)
        with dvc_errors():
            # A list is asked for in parallel; an error is an answer as well, because most are not there.
            answers = self.odb.fs.info([self.odb.oid_to_path(md5) for md5 in asked], return_exceptions=True)
            for answer in answers:
                if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                    raise answer
        pairs = zip(asked, answers, strict=True)
        return {md5: int(answer["size"]) for md5, answer in pairs if not isinstance(answer, Exception)}

    def objects(self) -> set[str]:
        """Return every object that is here."""
        with dvc_errors():
            # Unfinished files of DVC lie beside the objects, under other names.
            return {md5 for md5 in self.odb.all() if OBJECT.fullmatch(md5)}

    def delete(self, md5s: Iterable[str]) -> None:
        """Delete objects that are here; a folder's list of files before its files, as DVC does."""
        from dvc_data.hashfile.db import get_index

        ordered = sorted(md5s, key=lambda md5: not md5.endswith(lockfile.FOLDER_SUFFIX))
        if not ordered:
            return
        with dvc_errors():
            self.odb.fs.remove([self.odb.oid_to_path(md5) for md5 in ordered])
            get_index(self.odb).clear()  # DVC remembers what a remote has, and would not push it again


@dataclass(frozen=True)
class Places:
    """All of them.

    Attributes:
        cache: DVC's cache.
        remotes: The remotes that can be reached and written to.
        unreachable: Those that cannot, by name, and why.
    """

    cache: Place
    remotes: list[Place]
    unreachable: dict[str, str]

    @property
    def all(self) -> list[Place]:
        """The cache and the remotes that can be reached."""
        return [self.cache, *self.remotes]


@contextmanager
def opened(store: Store) -> Iterator[Places]:
    """Open the places, and keep every DVC command of this project waiting until the block ends.

    The store fetches from the remotes that can be reached, from here on.

    Raises:
        PawlineError: DVC is at work in this project, or cannot open it.
    """
    from dvc.repo import Repo

    with ExitStack() as stack:
        with dvc_errors():
            repo = stack.enter_context(Repo(str(store.root)))
            stack.enter_context(repo.lock)
        check_idle(store.root)
        remotes, unreachable = [], {}
        for name in store.remotes:
            try:
                remotes.append(_open_remote(repo, name))
            except PawlineError as error:
                unreachable[name] = str(error).removesuffix("; `dvc status` says more")
        store.remotes = [remote.name for remote in remotes]
        yield Places(Place(CACHE, repo.cache.local), remotes, unreachable)


def check_idle(root: Path) -> None:
    """Make sure that no DVC command is in the middle of something in this project.

    DVC lets its lock go while a stage's command runs, and an experiment outside of the workspace does not hold it.

    Raises:
        PawlineError: One is; it is named.
    """
    for pid, since in _workers(root):
        command = living(pid, since)
        if command is not None:
            raise PawlineError(f"{command} is at work here (pid {pid}): wait for it to end and run this again")


def temporary_workspaces(root: Path) -> list[Path]:
    """Return the folders in which DVC runs experiments outside of the workspace, or was when it was killed."""
    return sorted(Path(folder) for folder, _, names in os.walk(root / EXPERIMENTS) if "dvc.yaml" in names)


def is_shared(store: Store) -> bool:
    """Say whether the cache lies outside of the project, where other projects may keep objects too."""
    return not store.cache_dir.resolve().is_relative_to(store.root.resolve())


def drop_run_cache(store: Store, gone: set[str]) -> int:
    """Delete the entries of DVC's run cache that would bring objects back which are to go; return how many.

    Call it before the objects go: an entry names folders, and their lists of files are objects themselves.
    """
    dropped = 0
    for entry in run_cache_entries(store):
        named = named_objects(entry.read_bytes(), origin=str(entry))
        if any(md5 in gone or not gone.isdisjoint(files_within(store, md5)) for md5 in named):
            entry.unlink()
            dropped += 1
            if not any(entry.parent.iterdir()):
                entry.parent.rmdir()
    return dropped


def unfinished_objects(store: Store, *, at_rest_seconds: float = 0.0) -> dict[Path, int]:
    """Return what DVC left in the cache when it was killed in the middle of an object, with its bytes.

    Where other projects write to the cache, whose commands are not kept waiting here, it may be at work on it: none.

    Args:
        store: The project's.
        at_rest_seconds: Nothing was written to it for so long. `pawline verify --fetch` and `predict` fetch without
            waiting for anybody.
    """
    found: dict[Path, int] = {}
    for path in [] if is_shared(store) else sorted(store.cache_dir.glob("*/*.tmp")):
        with suppress(FileNotFoundError):  # by now it has its name
            seen = path.stat()
            if time.time() - seen.st_mtime >= at_rest_seconds:
                found[path] = seen.st_size
    return found


def run_cache_entries(store: Store) -> list[Path]:
    """Return the entries of DVC's run cache: a stage's command, inputs and outputs each, as dvc.lock has them."""
    return sorted(path for path in (store.cache_dir.parents[1] / "runs").glob("*/*/*") if path.is_file())


def named_objects(content: bytes, *, origin: str) -> dict[str, str]:
    """Return what a dvc.lock, a .dvc file or an entry of the run cache says was written: md5 to path."""
    raw = lockfile.load_yaml(content, origin=origin)
    with as_dvc_writes(origin):
        written = [
            *raw.get("outs", []),
            *(out for stage in raw.get("stages", {}).values() for out in stage.get("outs", [])),
        ]
        objects = {out["md5"]: str(out["path"]) for out in written if "md5" in out}
        strange = [md5 for md5 in objects if not OBJECT.fullmatch(md5)]
        if strange:
            raise ValueError(strange[0])
    return objects


@contextmanager
def as_dvc_writes(origin: str) -> Iterator[None]:
    """Turn the errors of taking a file of DVC's apart into one line that names it."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PawlineError(
            f"{origin} is not what DVC writes ({error!r}): bring it back from git, or delete it if git has it not"
        ) from error


def files_within(store: Store, md5: str) -> list[str]:
    """Return the objects of a folder's files, if it is a folder whose list is in the cache."""
    path = store.object_path(md5)
    if not md5.endswith(lockfile.FOLDER_SUFFIX) or not path.is_file():
        return []
    return list(lockfile.parse_folder(path.read_bytes()).values())


def _open_remote(repo: Any, name: str) -> Place:  # noqa: ANN401 - DVC ships no types
    with dvc_errors():
        odb = repo.cloud.get_remote_odb(name, hash_name="md5")
        if not odb.fs.CAN_TRAVERSE:
            raise PawlineError("it is read over http(s), where nothing can be deleted: ask who keeps it")
        where = repo.config["remote"][name]["url"]
        try:
            check_there(odb.fs, odb.path.removesuffix("/files/md5"))  # an empty remote has no more
        except FileNotFoundError:
            raise PawlineError(f"{without_secrets(where)} is not there") from None
    return Place(name, odb)


def _workers(root: Path) -> Iterator[tuple[int, float]]:
    """Yield the processes that DVC's files name, and when the file last changed; most of them ended long ago."""
    experiments = root / EXPERIMENTS
    files = [Path(folder, name) for folder, _, names in os.walk(experiments) for name in names]
    for path in [root / DVC_TMP / "rwlock", *files]:
        # Who locked a temporary workspace works on it until it is gone, between and after its stages too.
        is_lock = path.name == "rwlock" or path.parts[-3:] == (*DVC_TMP.parts, "lock")
        # Runs in the workspace, queued runs, and who works through the queue.
        is_command = path.suffix == ".json" and path.relative_to(experiments).parts[0] in ("run", "celery")
        if is_lock or is_command:
            yield from _read_pids(path)


def _read_pids(path: Path) -> list[tuple[int, float]]:
    """Return the processes that one of DVC's files names: a lock, who reads and writes what, or a started command."""
    latest = time.monotonic() + WRITING_SECONDS
    while True:
        try:
            content, changed = json.loads(path.read_bytes()), path.stat().st_mtime
            break
        except FileNotFoundError:
            return []
        except ValueError as error:
            if time.monotonic() > latest:
                raise PawlineError(f"{path} is not what DVC writes: delete it if no DVC command is at work") from error
            time.sleep(WRITING_SECONDS / 20)
    with as_dvc_writes(str(path)):
        if isinstance(content, int):
            return [(content, changed)]
        if "pid" in content:
            return [(content["pid"], changed)] if content["returncode"] is None else []
        readers = [info for each in content.get("read", {}).values() for info in each]
        return [(info["pid"], changed) for info in (*content.get("write", {}).values(), *readers)]
