"""The files that git keeps, as a run has them: at its commit, and in the workspace if it is the workspace."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lineage.git_objects import CommitFiles
from lineage.links import Link
from lineage.verify_files import entries_below

NOT_CODE = "__pycache__"  # in .dvcignore, so that DVC leaves it out of a folder's hash
Files = dict[str, bytes]  # by path relative to the project; of a folder, all files below it


@dataclass(frozen=True)
class Kept:
    """The files that git keeps, as a run has them.

    The workspace may have a file otherwise than the commit it stands on. It then has two states, and a fact of dvc.lock
    holds if it is true of one; the difference itself is reported as uncommitted.

    Attributes:
        root: The project's folder.
        commit: The files of the run's commit, or of the one that the workspace stands on; None without git.
        workspace: Whether the run is the workspace.
    """

    root: Path
    commit: CommitFiles | None
    workspace: bool

    def states(self, path: str) -> list[Files]:
        """Return the different states of a file or folder: the workspace's, then the commit's."""
        states = ([self._here(path)] if self.workspace else []) + [self.committed(path)]
        return [state for number, state in enumerate(states) if state and state not in states[:number]]

    def contents(self, path: str) -> list[bytes]:
        """Return the different contents of a file: the workspace's, then the commit's."""
        return [state[path] for state in self.states(path) if path in state]

    def committed(self, path: str) -> Files:
        """Return a file or folder as the commit has it; nothing without git."""
        if self.commit is None:
            return {}
        contents = {name: self.commit.read(name) for name in self.commit.list(path) or [path]}
        return {name: content for name, content in contents.items() if content is not None}

    def is_broken(self, path: str) -> bool:
        """Say whether git could not give the file, or one of the folder; there is a link that says why."""
        broken = self.commit.broken if self.commit is not None else set()
        return any(Path(one).is_relative_to(path) for one in broken)

    def uncommitted(self, paths: Iterable[str]) -> list[Link]:
        """Return a link for each file that the workspace has otherwise than the commit."""
        links: list[Link] = []
        for path in paths if self.workspace and self.commit is not None else ():
            here, there = self._here(path), self.committed(path)
            for name in sorted(here.keys() | there.keys()):
                if here.get(name) != there.get(name) and not self.is_broken(name):
                    detail = _advice(name, here.get(name), there.get(name))
                    links.append(Link(kind="git", name=name, status="uncommitted", detail=detail))
        return links

    def _here(self, path: str) -> Files:
        full = self.root / path
        if full.is_file():
            return {path: full.read_bytes()}
        paths = [path for path in entries_below(full) if NOT_CODE not in path.parts]
        contents = {path.relative_to(self.root).as_posix(): _content(path) for path in paths}
        return {name: content for name, content in contents.items() if content is not None}


def _content(path: Path) -> bytes | None:
    """Return what git would keep of a file, or of a link that leads to none: where it leads; None of a folder."""
    if path.is_file():
        return path.read_bytes()
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return None if path.is_dir() else b""


def _advice(path: str, here: bytes | None, there: bytes | None) -> str:
    if there is None:
        return f"not in git: `git add {path}` and commit it"
    if here is None:
        return f"removed, but not from git: `git checkout {path}`, or commit that it is gone"
    if here.replace(b"\r\n", b"\n") == there:
        return (
            "differs from the commit in its line endings only, which core.autocrlf changes: "
            f"`git config core.autocrlf false`, `rm {path}`, then `git checkout {path}`"
        )
    return f"differs from the commit (`git diff {path}`): commit it, or `git checkout {path}`"
