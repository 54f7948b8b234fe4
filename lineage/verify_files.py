"""The outputs of a run, file by file: DVC's cache and the workspace's copies against the hashes in dvc.lock."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from lineage import lockfile
from lineage.hashing import Digest, Hasher
from lineage.links import Link, Status
from lineage.lockfile import FOLDER_SUFFIX, Lock, LockedPath
from lineage.runs import Project
from tasks.stage import PawlineError

CACHE, WORKSPACE = "cache", "workspace"

Listing = dict[str, str]  # of a folder: path inside it to md5
Verdict = tuple[Status, str]  # and what to say about it


class Outputs:
    """Verifies the outputs of a run.

    Attributes:
        lock: The run.
        copies: Filled by `verify`: a file with the right bytes, for each of the run's that has one.
        digests: Filled by `verify`: their digests.
        is_whole: Set by `verify`: whether all bytes of the run are here and right.
    """

    def __init__(
        self, project: Project, lock: Lock, here: set[str], hasher: Hasher, forgotten: dict[str, str] | None = None
    ) -> None:
        """Prepare.

        Args:
            project: The checkout.
            lock: The run.
            here: The outputs whose copies in the workspace are meant to be this run's.
            hasher: Knows the digests.
            forgotten: What was deleted by a decision: md5 to the decision's name.
        """
        self.lock = lock
        self.copies: dict[str, Path] = {}
        self.digests: dict[str, Digest] = {}
        self.is_whole = False
        self._project, self._here, self._hasher, self._forgotten = project, here, hasher, forgotten or {}
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
        self.is_whole = all(link.status == "verified" for link in links)
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
            listing = lockfile.parse_folder(path.read_bytes())
        except (ValueError, KeyError, TypeError):
            return None
        return listing if all(isinstance(text, str) for text in (*listing, *listing.values())) else None

    def _work_listing(self, out: LockedPath) -> Listing:
        """Return the files of the workspace's copy of a folder, whatever was on record."""
        if out.path not in self._here:
            return {}
        folder = self._project.root / out.path
        digests = {path.relative_to(folder).as_posix(): self._hasher.digest(path) for path in files_below(folder)}
        return {name: digest.md5 for name, digest in digests.items() if digest is not None}

    def _folder(self, out: LockedPath, kept: Listing | None) -> list[Link]:
        work = self._work_listing(out)
        listing = work if kept is None and listing_md5(work) == out.md5 else kept
        if listing is None or not all(map(_stays_inside, listing)):
            return [self._listing_link(out, listing)]
        files = [self._file(out, f"{out.path}/{name}", md5) for name, md5 in listing.items()]
        extra = [
            Link(
                kind="workspace",
                name=f"{out.path}/{name}",
                status="tampered",
                detail="the run wrote no such file: rm it",
            )
            for name in work.keys() - listing.keys()
        ]
        return [self._listing_link(out, listing), *files, *extra]

    def _listing_link(self, out: LockedPath, listing: Listing | None) -> Link:
        """Return the link of a folder's list of files, which DVC keeps as an object of its own."""
        path = self._project.store.object_path(out.md5)
        digest = self._hasher.digest(path)
        status: Status = "tampered"
        if digest is not None and digest.md5 + FOLDER_SUFFIX != out.md5:
            repair = self._repair(out, {CACHE: path}, has_copy=listing is not None)
            detail = f"its list of files in the cache is not the one on record: {repair}"
        elif listing is None and digest is None:
            status, detail = self._nowhere(out, out.md5)
        elif listing is None or not all(map(_stays_inside, listing)):
            detail = f"its list of files is none, or names files outside of it: {self._shown(path)}"
        else:
            status, detail = self._check_total(out, listing)
        return Link(kind="output", name=out.path, status=status, detail=detail, bytes=self._count([path]))

    def _check_total(self, out: LockedPath, listing: Listing) -> Verdict:
        """Compare a folder's size and number of files with dvc.lock's, if all its files are here."""
        digests = [self.digests.get(f"{out.path}/{name}") for name in listing]
        sizes = [digest.size for digest in digests if digest is not None]
        if len(sizes) < len(digests) or (sum(sizes), len(sizes)) == (out.size, out.files):
            return "verified", ""
        return "tampered", f"dvc.lock says {out.files} files of {out.size} bytes; they are {len(sizes)} of {sum(sizes)}"

    def _single_file(self, out: LockedPath) -> Link:
        link = self._file(out, out.path, out.md5)
        if out.path not in self.digests or self.digests[out.path].size == out.size:
            return link
        wrong = f"dvc.lock says {out.size} bytes; they are {self.digests[out.path].size}"
        return link.model_copy(update={"status": "tampered", "detail": wrong})

    def _file(self, out: LockedPath, path: str, md5: str) -> Link:
        """Return the link of one file: right wherever it is, and somewhere."""
        places = {CACHE: self._project.store.object_path(md5)}
        if out.path in self._here:
            places[WORKSPACE] = self._project.root / path
        digests = {place: self._hasher.digest(file) for place, file in places.items()}
        there = {place: digest for place, digest in digests.items() if digest is not None}
        wrong = {place: places[place] for place, digest in there.items() if digest.md5 != md5}
        for place in there.keys() - wrong.keys():
            self.copies[path], self.digests[path] = places[place], there[place]
        if not there:
            status, detail = self._nowhere(out, md5)
        elif wrong:
            repair = self._repair(out, wrong, has_copy=path in self.copies)
            status, detail = "tampered", f"in the {' and the '.join(wrong)}: {repair}"
        else:
            status, detail = "verified", _remark(places, there)
        return Link(kind="output", name=path, status=status, detail=detail, bytes=self._count(places.values()))

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
        remove = f"`rm {' '.join(self._shown(path) for path in wrong.values())}`"
        if not has_copy:
            return f"{remove}, then {self._way_back(out)}"
        return f"{remove}, then `dvc {'commit --force' if CACHE in wrong else 'checkout'} {out.path}`"

    def _find_way_back(self, out: LockedPath) -> str:
        """Say where an output can be had from; DVC pushes a folder's list last, so it stands for the folder's files."""
        try:
            remote = self._project.store.where(out.md5)
        except PawlineError as error:
            return f"`dvc pull {out.path}`, if a remote has it ({error})"
        if remote is None:
            return "`dvc repro`, or `pawline verify --reproduce` (no remote has it)"
        return f"`dvc pull --remote {remote} {out.path}`"

    def _shown(self, path: Path) -> str:
        root = self._project.root.resolve()
        return str(path.relative_to(root) if path.is_relative_to(root) else path)


def listing_md5(listing: Listing) -> str:
    """Return the hash that DVC gives a folder: of the JSON list of its files, sorted by path, with `.dir` behind it."""
    entries = [{"md5": md5, "relpath": name} for name, md5 in sorted(listing.items())]
    text = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + FOLDER_SUFFIX


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders; nothing if there is no such folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _remark(places: dict[str, Path], there: dict[str, Digest]) -> str:
    if CACHE not in there:
        return "in the workspace only, not in the cache"
    return "not checked out" if len(there) < len(places) else ""


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _inode(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino
