"""The outputs of a run, file by file: DVC's cache and the workspace's copies against the hashes in dvc.lock."""

import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from lineage import lockfile
from lineage.hashing import Digest, Hasher, unreadable
from lineage.links import Link, Status
from lineage.lockfile import FOLDER_SUFFIX, Lock, LockedPath
from lineage.runs import WORKSPACE as WORKSPACE_RUN
from lineage.runs import Project, Run
from tasks.dvc_hash import hash_listing
from tasks.stage import PawlineError

CACHE, WORKSPACE = "cache", "workspace"

Listing = dict[str, str]  # of a folder: path inside it to md5
Verdict = tuple[Status, str]  # and what to say about it


class Outputs:
    """Verifies the outputs of a run.

    Attributes:
        lock: The run.
        copies: Filled by `verify`: a file with the right bytes, for each of the run's that has one.
        digests: Filled by `verify`: of each such path, the digests of all files with the right md5, by place.
        is_whole: Set by `verify`: whether all bytes of the run are right wherever they should be, the cache included.
    """

    def __init__(
        self, project: Project, run: Run, lock: Lock, hasher: Hasher, forgotten: dict[str, str] | None = None
    ) -> None:
        """Prepare.

        Args:
            project: The checkout.
            run: The run. Of the workspace, everything must be checked out; of others it may be.
            lock: Its dvc.lock.
            hasher: Knows the digests, SHA-256 included.
            forgotten: What was deleted by a decision: md5 to the decision's name.
        """
        self.lock = lock
        self.copies: dict[str, Path] = {}
        self.digests: dict[str, dict[str, Digest]] = {}
        self.is_whole = False
        self._project, self._hasher, self._forgotten = project, hasher, forgotten or {}
        self._run, self._is_workspace = run, run.commit is None
        self._here = _here(project, run, lock)
        self._way_back = cache(self._find_way_back)  # each question to a remote is asked once
        self._counted: set[tuple[int, int]] = set()

    def verify(self) -> list[Link]:
        """Return a link for each file and each folder's list of files, and one for each file that does not belong."""
        outs = [(stage.name, out) for stage in self.lock.values() for out in stage.outs]
        listings = {out: self._kept_listing(out) for _, out in outs if out.is_folder}
        self._hasher.add(self._all_paths([out for _, out in outs], listings))
        links: list[Link] = []
        for stage, out in outs:
            found = self._folder(out, listings[out]) if out.is_folder else [self._single_file(out)]
            links += [link.model_copy(update={"stage": stage}) for link in found]
        in_cache = all(CACHE in places for places in self.digests.values())
        self.is_whole = in_cache and all(link.status == "verified" for link in links)
        return links

    def _all_paths(self, outs: list[LockedPath], listings: dict[LockedPath, Listing | None]) -> Iterator[Path]:
        for out in outs:
            md5s = (listings[out] or {}).values() if out.is_folder else [out.md5]
            yield from map(self._project.store.object_path, md5s)
            if out.path in self._here:
                work = self._project.root / out.path
                yield from files_below(work) if out.is_folder else [work]

    def _kept_listing(self, out: LockedPath) -> Listing | None:
        """Return a folder's files by the list in the cache, if it is the list on record."""
        path = self._project.store.object_path(out.md5)
        digest = self._hasher.digest(path)
        if digest is None or digest.md5 + FOLDER_SUFFIX != out.md5:
            return None
        try:
            return lockfile.parse_folder(path.read_bytes())
        except PawlineError:
            return None

    def _work(self, out: LockedPath) -> dict[str, Path]:
        """Return what is in the workspace's copy of a folder, by path inside it, whatever was on record."""
        folder = self._project.root / out.path
        paths = entries_below(folder) if out.path in self._here else []
        return {path.relative_to(folder).as_posix(): path for path in paths}

    def _folder(self, out: LockedPath, kept: Listing | None) -> list[Link]:
        work = self._work(out)
        digests = {name: self._hasher.digest(path) for name, path in work.items()}
        found = {name: digest.md5 for name, digest in digests.items() if digest is not None}
        listing = found if kept is None and hash_listing(found) == out.md5 else kept
        if listing is None:
            return [self._listing_link(out, listing)]
        files = [self._file(out, f"{out.path}/{name}", md5) for name, md5 in listing.items()]
        extra = [
            Link(
                kind="workspace",
                name=f"{out.path}/{name}",
                status="tampered",
                detail=f"the run wrote nothing of this name: {self._remove([work[name]])}",
            )
            for name in sorted(work.keys() - listing.keys())
        ]
        return [self._listing_link(out, listing), *files, *extra]

    def _listing_link(self, out: LockedPath, listing: Listing | None) -> Link:
        """Return the link of a folder's list of files, which DVC keeps as an object of its own."""
        path, work = self._project.store.object_path(out.md5), self._project.root / out.path
        digest = self._hasher.digest(path)
        status: Status = "tampered"
        if os.path.lexists(path) and (digest is None or digest.md5 + FOLDER_SUFFIX != out.md5):
            repair = self._repair(out, {CACHE: path}, has_copy=listing is not None)
            detail = f"its list of files in the cache is not the one on record: {repair}"
        elif out.path in self._here and os.path.lexists(work) and not work.is_dir():
            detail = f"no folder is in its place: {self._repair(out, {WORKSPACE: work}, has_copy=listing is not None)}"
        elif listing is None and digest is None:
            status, detail = self._nowhere(out, out.md5)
        elif listing is None:
            detail = f"its list of files is none, or names files outside of it: {self._shown(path)}"
        elif self._is_workspace and not os.path.lexists(work):
            status, detail = "missing", _checkout(out)
        else:
            status, detail = self._check_total(out, listing)
        return Link(kind="output", name=out.path, status=status, detail=detail, bytes=self._count([path]))

    def _check_total(self, out: LockedPath, listing: Listing) -> Verdict:
        """Compare a folder's size and number of files with dvc.lock's, if all its files are here."""
        found = [self._size(f"{out.path}/{name}") for name in listing]
        sizes = [size for size in found if size is not None]
        if len(sizes) < len(found) or (sum(sizes), len(sizes)) == (out.size, out.files):
            return "verified", ""
        return "tampered", f"dvc.lock says {out.files} files of {out.size} bytes; they are {len(sizes)} of {sum(sizes)}"

    def _single_file(self, out: LockedPath) -> Link:
        link = self._file(out, out.path, out.md5)
        size = self._size(out.path)
        if size in (None, out.size):
            return link
        wrong = f"dvc.lock says {out.size} bytes; they are {size}"
        return link.model_copy(update={"status": "tampered", "detail": wrong})

    def _size(self, path: str) -> int | None:
        return next((digest.size for digest in self.digests.get(path, {}).values()), None)

    def _file(self, out: LockedPath, path: str, md5: str) -> Link:
        """Return the link of one file: right wherever it is, and somewhere."""
        places = {CACHE: self._project.store.object_path(md5)}
        if out.path in self._here:
            places[WORKSPACE] = self._project.root / path
        there = {place: file for place, file in places.items() if os.path.lexists(file)}  # whatever it is
        digests = {place: self._hasher.digest(file) for place, file in there.items()}
        right = {place: digest for place, digest in digests.items() if digest is not None and digest.md5 == md5}
        if right:
            self.copies[path], self.digests[path] = places[next(iter(right))], right
        if there.keys() != right.keys():
            wrong = {place: file for place, file in there.items() if place not in right}
            status, detail = self._wrong(out, wrong, has_copy=bool(right))
        elif not there:
            status, detail = self._nowhere(out, md5)
        elif len({digest.sha256 for digest in right.values()}) > 1:
            status, detail = "tampered", _twins(right)
        elif self._is_workspace and WORKSPACE not in there:
            status, detail = "missing", _checkout(out)
        else:
            status, detail = "verified", "" if CACHE in there else "in the workspace only, not in the cache"
        return Link(kind="output", name=path, status=status, detail=detail, bytes=self._count(places.values()))

    def _wrong(self, out: LockedPath, wrong: dict[str, Path], *, has_copy: bool) -> Verdict:
        """Say what to do about wrong bytes, and about what is no file: a folder, a link that leads nowhere."""
        kinds = {place: "" if file.is_file() else " (no file)" for place, file in wrong.items()}
        named = " and the ".join(f"{place}{kind}" for place, kind in kinds.items())
        return "tampered", f"in the {named}: {self._repair(out, wrong, has_copy=has_copy)}"

    def _count(self, paths: Iterable[Path]) -> int:
        """Return how many bytes were read of these files, each file counted for one link only."""
        read = 0
        for path in paths:
            digest = self._hasher.digest(path)
            if digest is not None and (inode := _inode(path)) not in self._counted:
                self._counted.add(inode)
                read += digest.size
        return read

    def _nowhere(self, out: LockedPath, md5: str) -> Verdict:
        if md5 in self._forgotten:
            return "forgotten", f"deleted by {self._forgotten[md5]}"
        return "missing", self._way_back(out)

    def _repair(self, out: LockedPath, wrong: dict[str, Path], *, has_copy: bool) -> str:
        """Say how to have the right bytes again; DVC believes that its cache is right, so the wrong ones go first."""
        remove = self._remove(list(wrong.values()))
        if not has_copy:
            return f"{remove}, then {self._way_back(out)}"
        return f"{remove}, then `dvc {'commit --force' if CACHE in wrong else 'checkout'} {out.path}`"

    def _remove(self, paths: list[Path]) -> str:
        folders = any(path.is_dir() and not path.is_symlink() for path in paths)
        return f"`rm {'-r ' if folders else ''}{' '.join(map(self._shown, paths))}`"

    def _find_way_back(self, out: LockedPath) -> str:
        """Say where an output can be had from; DVC pushes a folder's list last, so it stands for the folder's files."""
        # `dvc pull` and `dvc repro` are about what is checked out.
        commit = self._run.commit
        fetch = f"`dvc pull {out.path}`" if commit is None else f"`pawline verify {self._run.name} --fetch`"
        try:
            remote = self._project.store.where(out.md5)
        except PawlineError as error:
            return f"{fetch}, if a remote has it ({error})"
        if remote is not None:
            return f"`dvc pull --remote {remote} {out.path}`" if commit is None else fetch
        again = "" if commit is None else f"check {commit[:10]} out and "
        return f"{again}`dvc repro` (no remote has it)"

    def _shown(self, path: Path) -> str:
        root = self._project.root.resolve()
        return str(path.relative_to(root) if path.is_relative_to(root) else path)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders; nothing if there is no such folder."""
    return (path for path in entries_below(folder) if path.is_file())


def entries_below(folder: Path) -> list[Path]:
    """Return all that is in a folder and its subfolders: files, links, pipes, and folders with nothing in them.

    A link to a folder is an entry of its own; nothing is followed.

    Raises:
        PawlineError: A folder cannot be read.
    """
    found = []
    for base, folders, files in os.walk(folder, onerror=_refuse) if folder.is_dir() else ():
        above = Path(base)
        found += [above / name for name in files]
        found += [above / name for name in folders if (above / name).is_symlink()]
        if not folders and not files and above != folder:
            found.append(above)
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise unreadable(Path(error.filename), error) from error


def _here(project: Project, run: Run, lock: Lock) -> set[str]:
    """Return the outputs whose copies in the workspace are meant to be this run's: dvc.lock there names their hash."""
    paths = {out.path: out for stage in lock.values() for out in stage.outs}
    if run.commit is None:
        return set(paths)
    try:
        here = project.lock(WORKSPACE_RUN)
    except (PawlineError, ValueError):  # the workspace's is not what is verified here
        return set()
    return {path for path, out in paths.items() if lockfile.find_out(here, path) == out}


def _checkout(out: LockedPath) -> str:
    return f"not in the workspace: `dvc checkout {out.path}`"


def _twins(digests: dict[str, Digest]) -> str:
    found = " and ".join(f"in the {place} {digest.sha256}" for place, digest in digests.items())
    return f"files of one md5 and different SHA-256, so that one was made to be taken for the other: {found}"


def _inode(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino
