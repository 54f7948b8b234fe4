"""The places that hold a project's objects, DVC's cache and its remotes: what is in them, and taking it out."""

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineage import lockfile
from lineage.store import Store, dvc_errors
from tasks.stage import PawlineError

CACHE = "cache"
OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")


@dataclass(frozen=True)
class Place:
    """One place.

    Attributes:
        name: `cache`, or the remote's name.
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
        remotes, unreachable = [], {}
        for name in store.remotes:
            try:
                remotes.append(_open_remote(repo, name))
            except PawlineError as error:
                unreachable[name] = str(error).removesuffix("; `dvc status` says more")
        store.remotes = [remote.name for remote in remotes]
        yield Places(Place(CACHE, repo.cache.local), remotes, unreachable)


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


def run_cache_entries(store: Store) -> list[Path]:
    """Return the entries of DVC's run cache: a stage's command, inputs and outputs each, as dvc.lock has them."""
    return sorted(path for path in (store.cache_dir.parents[1] / "runs").glob("*/*/*") if path.is_file())


def named_objects(content: bytes, *, origin: str) -> dict[str, str]:
    """Return what a dvc.lock, a .dvc file or an entry of the run cache says was written: md5 to path."""
    raw = lockfile.load_yaml(content, origin=origin)
    written = [
        *raw.get("outs", []),
        *(out for stage in raw.get("stages", {}).values() for out in stage.get("outs", [])),
    ]
    return {out["md5"]: out["path"] for out in written if "md5" in out}


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
            odb.fs.info(odb.path.removesuffix("/files/md5"))  # the folder itself: an empty remote has no more
        except FileNotFoundError:
            raise PawlineError(f"{where} is not there") from None
    return Place(name, odb)
