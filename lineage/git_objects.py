"""Git's objects, without trusting git: every object that is read is hashed again, from the commit to the file.

An object's id is the hash of `type size NUL content`: SHA-1, or SHA-256 in repositories that were made so.
"""

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, NamedTuple, Self, cast

from lineage import git
from lineage.links import Link, Status

HASHES = {40: "sha1", 64: "sha256"}  # by the length of an id in hex
FOLDER_MODE = b"40000"
OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SHORT = 10


class GitObject(NamedTuple):
    """An object whose content has the hash that its id says: `commit`, `tree`, `blob` or `tag`."""

    kind: str
    content: bytes


class ObjectError(Exception):
    """An object that is not there (`missing`), or not what its id says (`tampered`)."""

    def __init__(self, object_id: str, status: Status, what: str) -> None:
        super().__init__(what)
        self.object_id, self.status = object_id, status


class GitObjects:
    """Reads a repository's objects through one `git cat-file`; use as a context manager."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__; a pipe could fill up and block git
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[str, GitObject] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._said.close()

    def read(self, object_id: str) -> GitObject:
        """Return an object after hashing it.

        Raises:
            ObjectError: It is not in the repository, git cannot read it, or its content has another hash.
        """
        if object_id not in self._known:
            if not OBJECT_ID.fullmatch(object_id):
                raise ObjectError(object_id, "tampered", f"{object_id!r} is no id of a git object")
            found = self._ask(object_id)
            header = f"{found.kind} {len(found.content)}".encode() + b"\0"
            digest = hashlib.new(HASHES[len(object_id)], header + found.content, usedforsecurity=False).hexdigest()
            if digest != object_id:
                raise ObjectError(
                    object_id, "tampered", f"git's object {object_id[:SHORT]} has the content of {digest}"
                )
            self._known[object_id] = found
        return self._known[object_id]

    def _ask(self, object_id: str) -> GitObject:
        process = self._process = self._process or self._start()
        questions, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        before = self._said.seek(0, 2)
        questions.write(object_id.encode() + b"\n")
        questions.flush()
        header = answers.readline().split()
        if len(header) == 3 and header[2].isdigit():
            size = int(header[2])
            content = answers.read(size + 1)
            if len(content) == size + 1:
                return GitObject(header[1].decode(), content[:-1])
        self._stop()  # what is left in its pipe belongs to this object
        raise self._failure(object_id, before)

    def _failure(self, object_id: str, before: int) -> ObjectError:
        """Return the error: git says nothing about an object that is not there, and a lot about one it cannot read."""
        self._said.seek(before)
        words = self._said.read().decode(errors="replace").strip().splitlines()
        if words:
            said = words[0].removeprefix("error: ").removeprefix("fatal: ")
            return ObjectError(object_id, "tampered", f"git cannot read object {object_id[:SHORT]}: {said}")
        return ObjectError(object_id, "missing", f"git has no object {object_id[:SHORT]}")

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["git", "cat-file", "--batch"],  # noqa: S607 - the user's git
            cwd=self._root,
            env=git.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class CommitFiles:
    """The files of one commit, each reached from the commit through trees that were hashed on the way.

    Attributes:
        commit: Full id.
        links: What was read so far: the commit, trees and files, each once.
        broken: The paths that could not be read because an object on the way is missing or tampered.
    """

    def __init__(self, objects: GitObjects, commit: str, prefix: str = "") -> None:
        """Begin at a commit.

        Args:
            objects: The repository.
            commit: Full id.
            prefix: The project's folder within the repository; paths are relative to it.
        """
        self.commit = commit
        self.links: list[Link] = []
        self.broken: set[str] = set()
        self._objects, self._prefix = objects, PurePosixPath(prefix)
        self._folders: dict[PurePosixPath, dict[str, tuple[bytes, str]] | None] = {}
        self._files: dict[str, bytes | None] = {}

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes; None if the commit has no such file or it is `broken`."""
        if path not in self._files:
            self._files[path] = self._read(path)
        return self._files[path]

    def list(self, folder: str) -> list[str]:
        """Return the files below a folder, as paths; empty if there is no such folder or it is `broken`."""
        found = []
        for name, (mode, _) in sorted((self._folder(self._prefix / folder) or {}).items()):
            path = str(PurePosixPath(folder) / name)
            found += self.list(path) if mode == FOLDER_MODE else [path]
        return found

    def _read(self, path: str) -> bytes | None:
        full = self._prefix / path
        entries = self._folder(full.parent)
        if entries is None:
            self.broken.add(path)
            return None
        mode, object_id = entries.get(full.name, (FOLDER_MODE, ""))
        if mode == FOLDER_MODE:
            return None
        content = self._check(object_id, path)
        if content is None:
            self.broken.add(path)
        return content

    def _folder(self, full: PurePosixPath) -> dict[str, tuple[bytes, str]] | None:
        """Return the mode and id of what a folder of the repository holds; None if it cannot be known."""
        if full not in self._folders:
            self._folders[full] = self._read_folder(full)
        return self._folders[full]

    def _read_folder(self, full: PurePosixPath) -> dict[str, tuple[bytes, str]] | None:
        if full == PurePosixPath():
            commit = self._check(self.commit, f"commit {self.commit[:SHORT]}")
            object_id = None if commit is None else commit.partition(b"\n")[0].removeprefix(b"tree ").decode()
        else:
            above = self._folder(full.parent)
            mode, object_id = (b"", None) if above is None else above.get(full.name, (b"", ""))
            if object_id is not None and mode != FOLDER_MODE:
                return {}
        name = f"folder {full}"
        content = None if object_id is None else self._check(object_id, name)
        try:
            return None if content is None else parse_tree(content, id_bytes=len(self.commit) // 2)
        except ValueError:
            self.links.append(Link(kind="git", name=name, status="tampered", detail="what git has is no folder"))
            return None

    def _check(self, object_id: str, name: str) -> bytes | None:
        try:
            content = self._objects.read(object_id).content
        except ObjectError as error:
            self.links.append(failed_link(error, name))
            return None
        self.links.append(Link(kind="git", name=name, status="verified", bytes=len(content)))
        return content


def failed_link(error: ObjectError, name: str) -> Link:
    """Return the link of an object that could not be verified, with what to do about it."""
    advice = (
        "`git fetch --unshallow`, or fetch it from another clone"
        if error.status == "missing"
        else "`git fsck` names every damaged object; clone the repository again"
    )
    return Link(kind="git", name=name, status=error.status, detail=f"{error}: {advice}")


def parse_tree(content: bytes, *, id_bytes: int) -> dict[str, tuple[bytes, str]]:
    """Return the entries of a tree object: name to mode (octal digits) and id.

    Raises:
        ValueError: It is no tree.
    """
    entries, position = {}, 0
    while position < len(content):
        end = content.index(b"\0", position)
        mode, _, name = content[position:end].partition(b" ")
        position = end + 1 + id_bytes
        entries[name.decode(errors="surrogateescape")] = (mode, content[end + 1 : position].hex())
    return entries


def project_prefix(root: Path) -> str:
    """Return the project's folder within its repository, empty if it is the repository's own."""
    return git.git(root, "rev-parse", "--show-prefix").decode().rstrip("\n")
