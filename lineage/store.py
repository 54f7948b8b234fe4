"""Where bytes are: the workspace, DVC's cache, and its remotes."""

import hashlib
import logging
import textwrap
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from lineage import lockfile
from lineage.lockfile import LockedPath
from tasks.object_store import store_errors
from tasks.stage import PawlineError
from tasks.store_urls import without_secrets

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 20
MOST_LETTERS = 200  # of a reason


class Store:
    """A project's bytes by their hash.

    Attributes:
        root: The project's folder, which holds dvc.yaml.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _repo(self) -> Any:  # noqa: ANN401 - DVC ships no types
        from dvc.repo import Repo  # half a second

        with dvc_errors():
            # without git, or it would insist on a repository, and git's files are read by git
            return Repo(str(self.root), config={"core": {"no_scm": True}})

    @cached_property
    def cache_dir(self) -> Path:
        """The folder of DVC's cache that holds objects by md5 (`ab/cdef...`)."""
        return Path(self._repo.cache.local.path)

    @cached_property
    def remotes(self) -> list[str]:
        """The names of the configured remotes, the default one first."""
        names = list(self._repo.config["remote"])
        default = self._repo.config["core"].get("remote")
        return sorted(names, key=lambda name: name != default)

    @cached_property
    def default_remote(self) -> str | None:
        """The name of the default remote, if one is configured."""
        name: str | None = self._repo.config["core"].get("remote")
        return name if name in self.remotes else None

    def object_path(self, md5: str) -> Path:
        """Return where the cache keeps an object, whether it is there or not."""
        return self.cache_dir / md5[:2] / md5[2:]

    def has(self, md5: str) -> bool:
        """Say whether the cache holds an object (and nothing about its bytes)."""
        return self.object_path(md5).is_file()

    def where(self, md5: str) -> str | None:
        """Return the name of the first remote that holds an object, or None.

        Raises:
            PawlineError: None of those that could be asked holds it, and one could not.
        """
        away: PawlineError | None = None
        for name in self.remotes:
            try:
                with dvc_errors():
                    if list(self._remote(name).list_oids_exists([md5])):  # `exists` takes an error for a no
                        return str(name)
            except PawlineError as error:
                away = away or error
        if away is not None:
            raise away
        return None

    def read(self, md5: str) -> bytes | None:
        """Return an object's bytes from the cache, fetched from a remote if need be; None if it is nowhere.

        Raises:
            PawlineError: The bytes are not those of that hash.
        """
        if not self.has(md5):
            self.fetch([md5])
        if not self.has(md5):
            return None
        content = self.object_path(md5).read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5.removesuffix(lockfile.FOLDER_SUFFIX):
            raise PawlineError(f"tampered: {self.object_path(md5)} does not hold what its name says; `pawline verify`")
        return content

    def fetch(self, md5s: list[str]) -> int:
        """Bring objects from the remotes into the cache and count them; what no remote has stays missing.

        Raises:
            PawlineError: Something stays missing, and a remote could not be asked.
        """
        fetched, away = 0, None
        for name in self.remotes:
            wanted = {md5 for md5 in md5s if not self.has(md5)}
            if not wanted:
                break
            try:
                fetched += self._fetch_from(name, wanted)
            except PawlineError as error:
                away = away or error
        if away is not None and not all(map(self.has, md5s)):
            raise away
        return fetched

    def _fetch_from(self, name: str, wanted: set[str]) -> int:
        from dvc_data.hashfile.hash_info import HashInfo

        with dvc_errors():
            remote = self._remote(name)
            there = {HashInfo("md5", md5) for md5 in remote.list_oids_exists(wanted)}
            done, failed, why = _transfer(remote, self._repo.cache.local, there) if there else (0, 0, "")
        if failed:
            logger.warning("%d files could not be fetched from the remote %s: %s", failed, name, why)
        return done

    def fetch_outputs(self, lock: lockfile.Lock, forgotten: Collection[str]) -> int:
        """Bring every output of a run into the cache, as far as a remote has it, and count the files.

        Args:
            lock: The run.
            forgotten: What was deleted on request and is not brought back (`lineage.verify_registry`), by md5.
        """
        outs = [out for stage in lock.values() for out in stage.outs if out.md5 not in forgotten]
        fetched = self.fetch([out.md5 for out in outs])
        folders = [out for out in outs if out.is_folder and self.has(out.md5)]
        inside = [md5 for each in folders for md5 in (self.list_folder(each) or {}).values()]
        return fetched + self.fetch([md5 for md5 in inside if md5 not in forgotten])

    def push_outputs(self, lock: lockfile.Lock, remote: str, forgotten: Collection[str]) -> int:
        """Copy every output of a run to a remote, the files of folders included; return how many were not there.

        Args:
            lock: The run.
            remote: The remote's name.
            forgotten: What was deleted on request and is not brought back (`lineage.verify_registry`), by md5.

        Raises:
            PawlineError: Something is neither in the remote nor in the cache, or the remote gave way.
        """
        from dvc_data.hashfile.hash_info import HashInfo

        outs = [out for stage in lock.values() for out in stage.outs if out.md5 not in forgotten]
        inside = [md5 for out in outs if out.is_folder for md5 in (self.list_folder(out) or {}).values()]
        wanted = {*inside, *(out.md5 for out in outs)}.difference(forgotten)
        with dvc_errors():
            odb = self._remote(remote)
            new = wanted.difference(odb.list_oids_exists(wanted))
        lost = sorted(md5 for md5 in new if not self.has(md5))
        if lost:
            raise PawlineError(
                f"{len(lost)} files are neither in the remote {remote} nor in the cache, such as {lost[0]}: `pawline "
                "verify VERSION` names them"
            )
        with dvc_errors():
            done, failed, why = _transfer(self._repo.cache.local, odb, {HashInfo("md5", md5) for md5 in new})
        if failed:
            raise PawlineError(
                f"{failed} files could not be copied to the remote {remote} ({why}): run this again for the rest"
            )
        return done

    def list_folder(self, folder: LockedPath) -> dict[str, str] | None:
        """Return a folder's files, path inside it to md5; None if the list is nowhere."""
        content = self.read(folder.md5)
        return None if content is None else lockfile.parse_folder(content)

    def read_path(self, lock: lockfile.Lock, path: str) -> bytes | None:
        """Return the bytes that a run wrote to a path, from the cache or a remote.

        Args:
            lock: The run.
            path: An output, or a file within an output folder.

        Returns:
            None if the run wrote no such file or its bytes are nowhere.
        """
        md5 = self.find_md5(lock, path)
        return None if md5 is None else self.read(md5)

    def may_have(self, lock: lockfile.Lock, path: str) -> bool:
        """Say whether a run wrote a file of that path, or may have: its folder's list of files is nowhere."""
        if lockfile.find_out(lock, path) is not None:
            return True
        folders = [out for parent in Path(path).parents if (out := lockfile.find_out(lock, str(parent))) is not None]
        return any(self.list_folder(out) is None for out in folders) or self.find_md5(lock, path) is not None

    def find_md5(self, lock: lockfile.Lock, path: str) -> str | None:
        """Return the md5 of an output file, or of a file within an output folder; None if there is none."""
        if (out := lockfile.find_out(lock, path)) is not None:
            return out.md5
        for parent in Path(path).parents:
            folder = lockfile.find_out(lock, str(parent))
            if folder is not None and (files := self.list_folder(folder)) is not None:
                return files.get(str(Path(path).relative_to(parent)))
        return None

    def _remote(self, name: str) -> Any:  # noqa: ANN401 - DVC ships no types
        return self._repo.cloud.get_remote_odb(name, hash_name="md5")


def _transfer(source: Any, target: Any, objects: set[Any]) -> tuple[int, int, str]:  # noqa: ANN401 - DVC ships no types
    """Copy objects; return how many were, how many could not be, and why the first of these could not.

    DVC would write a line for each of them, with a remote's address as it is configured, its password included.
    """
    from dvc_data.hashfile.transfer import logger as lines
    from dvc_data.hashfile.transfer import transfer

    reasons: list[str] = []

    def take_down(record: logging.LogRecord) -> bool:
        reasons.append(str(record.exc_info[1] if record.exc_info else record.getMessage()))
        return False

    lines.addFilter(take_down)
    try:
        done = transfer(source, target, objects, shallow=True, validate_status=lambda _: None)
    finally:
        lines.removeFilter(take_down)
    why = textwrap.shorten(without_secrets(reasons[0]), MOST_LETTERS, placeholder=" ...") if reasons else ""
    return len(done.transferred), len(done.failed), why


def check_there(fs: Any, folder: str) -> None:  # noqa: ANN401 - DVC ships no types
    """Ask whether a remote's folder is there; of an object store, the bucket suffices: it knows no empty folders.

    Args:
        fs: DVC's file system for the remote.
        folder: The path on it.

    Raises:
        FileNotFoundError: It is not.
    """
    from dvc_objects.fs.base import ObjectFileSystem

    try:
        fs.info(folder)
    except FileNotFoundError:
        if not isinstance(fs, ObjectFileSystem):
            raise
        fs.info(folder.partition("/")[0])  # nothing was pushed yet


def file_md5(path: Path) -> str:
    """Return the md5 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def dvc_errors() -> Iterator[None]:
    """Turn DVC's errors into one line, and keep its own words off the terminal."""
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level

    try:
        with set_loggers_level(logging.ERROR):
            yield
    except (DvcException, ImportError, *store_errors()) as error:  # ImportError: a plug-in is missing
        raise PawlineError(f"{without_secrets(' '.join(str(error).split()))}; `dvc status` says more") from error
