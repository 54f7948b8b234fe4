"""What changed since a stage's last run, down to the parameter, the line of code and the photo."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from lineage import git, lockfile
from lineage.differences import IMAGES_PATH, compare, line_changes
from lineage.lockfile import Lock, LockedPath, LockedStage
from lineage.photo_changes import PhotoChanges, photo_changes, raw_changes
from lineage.records import Record
from lineage.runs import WORKSPACE, Project
from tasks.raw import SHARD_SUFFIX

RAW_PATH = "data/raw"
MOST_VERSIONS = 200  # of a code file, to look at for the one that a stage read
SHOWN_LINES = 6  # of a changed code file
LONGEST_LINE = 160  # characters
SHOWN_PHOTOS = 3  # of each list of photos
Kind = Literal["always", "never_ran", "command", "parameter", "code", "input", "output", "upstream"]


class Reason(Record):
    """One thing that makes a stage run.

    Attributes:
        kind: What it is; `upstream` is an input that another stage makes anew first.
        about: The parameter, path or stage.
        text: In one line.
        details: Such as the lines of code, or the photos.
    """

    kind: Kind
    about: str
    text: str
    details: tuple[str, ...] = ()


class Reasons:
    """Finds the reasons behind DVC's status of a project's stages.

    Attributes:
        lock: The last run of every stage.
    """

    def __init__(self, project: Project, lock: Lock) -> None:
        self.lock = lock
        self._project = project
        self._made_by = lockfile.producers(lock)
        self._code: dict[LockedPath, Reason] = {}  # many stages read the same file

    def find(self, stage: LockedStage, status: list[Any], command: str) -> list[Reason]:
        """Return what changed in a stage.

        Args:
            stage: Its last run.
            status: What `dvc status` says of it.
            command: Its command in dvc.yaml.
        """
        reasons: list[Reason] = []
        for entry in status:
            if entry == "always changed":
                text = "it always looks, in a second: only then is known whether photos were added or changed"
                reasons.append(Reason(kind="always", about=stage.name, text=text))
            elif isinstance(entry, str):
                text = f"command changed: {stage.command} -> {command}"
                reasons.append(Reason(kind="command", about=stage.name, text=text))
            else:
                for path, state in entry.get("changed deps", {}).items():
                    reasons += self._dependency(stage, path, state)
                reasons += [self._output(stage, *item) for item in entry.get("changed outs", {}).items()]
        return reasons

    def _dependency(self, stage: LockedStage, path: str, state: Any) -> Iterator[Reason]:  # noqa: ANN401 - DVC's
        locked = next((dep for dep in stage.deps if dep.path == path), None)
        if isinstance(state, dict):
            for key in state:
                yield from self._parameters(stage, path, key)
        elif locked is None or state != "modified":
            text = f"{path} was deleted" if state == "deleted" else f"{path} is new to it in dvc.yaml"
            yield Reason(kind="input" if path in self._made_by else "code", about=path, text=text)
        elif path in self._made_by:
            yield self._input(locked)
        else:
            if locked not in self._code:
                self._code[locked] = _code(self._project, locked)
            yield self._code[locked]

    def _parameters(self, stage: LockedStage, path: str, section: str) -> Iterator[Reason]:
        """Yield the leaves that differ below a key that DVC found changed."""
        content = self._project.read(WORKSPACE, path) or b"{}"
        now = dict(lockfile.flatten(lockfile.load_yaml(content, origin=path)))
        sides = ({k: v for k, v in side.items() if f"{k}.".startswith(f"{section}.")} for side in (stage.params, now))
        for change in compare(*sides):
            yield Reason(kind="parameter", about=change.key, text=change.line().replace(":", "", 1))

    def _input(self, read: LockedPath) -> Reason:
        """Compare what the stage read with what its maker, which will not run, has written since."""
        written = lockfile.find_out(self.lock, read.path)
        text = f"input {read.path} is another one since {self._made_by[read.path]} ran again"
        if written is None:
            return Reason(kind="input", about=read.path, text=text)
        if read.path.endswith(".json"):
            details = _json_changes(self._project, read, written)
            return Reason(kind="input", about=read.path, text=text, details=details)
        photos = _photos(self._project, read, written)
        if photos is None:
            return Reason(kind="input", about=read.path, text=text)
        details = tuple(photos.lines(SHOWN_PHOTOS))
        return Reason(kind="input", about=read.path, text=f"{text}: {photos.summary()}", details=details)

    def _output(self, stage: LockedStage, path: str, state: str) -> Reason:
        locked = next((out for out in stage.outs if out.path == path), None)
        says = {
            "deleted": "was deleted",
            "modified": f"is not what {stage.name} wrote",
            "not in cache": "is not in DVC's cache",
        }
        hints = []
        if state == "modified":
            hints.append("changed by hand, or `git checkout` went without `dvc checkout`")
        if locked is not None and state != "not in cache" and self._project.store.has(locked.md5):
            force = "" if state == "deleted" else "--force "
            hints.append(f"`dvc checkout {force}{path}` brings it back")
        text = f"output {path} {says.get(state, 'is new in dvc.yaml')}"
        return Reason(kind="output", about=path, text=text, details=tuple(hints))


def _code(project: Project, read: LockedPath) -> Reason:
    if read.is_folder:
        text = f"{read.path} changed (`git log -p -- {read.path}` has its history)"
        return Reason(kind="code", about=read.path, text=text)
    before, now = _find_version(project, read), project.read(WORKSPACE, read.path)
    if before is None or now is None:
        text = f"{read.path} changed; its earlier content is not in git's history"
        return Reason(kind="code", about=read.path, text=text)
    changes = line_changes(before, now)
    signs = [sign for _, sign, _ in changes]
    place = f"{read.path}:{changes[0][0]}" if changes else read.path  # only line ends differ
    return Reason(
        kind="code",
        about=read.path,
        text=f"{place} changed (+{signs.count('+')} -{signs.count('-')} lines)",
        details=(
            *(f"{read.path}:{number} {sign} {line[:LONGEST_LINE]}" for number, sign, line in changes[:SHOWN_LINES]),
            *([f"... and {len(changes) - SHOWN_LINES} more lines"] if len(changes) > SHOWN_LINES else []),
        ),
    )


def _find_version(project: Project, file: LockedPath) -> bytes | None:
    """Return a code file's content by its md5 from any commit that git knows, DVC's experiments included."""
    if not project.has_history:
        return None
    form = ("--format=", "--raw", "--no-abbrev", "-m", "--full-history")
    log = git.git(project.root, "log", "--all", *form, "--", file.path).decode(errors="replace")
    # :100644 100644 <blob before> <blob after> M<tab>path
    blobs = [blob for line in log.splitlines() if line.startswith(":") for blob in reversed(line.split()[2:4])]
    for blob in [blob for blob in dict.fromkeys(blobs) if set(blob) != {"0"}][:MOST_VERSIONS]:
        content = git.git(project.root, "cat-file", "blob", blob)
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == file.md5:
            return content
    return None


def _json_changes(project: Project, read: LockedPath, written: LockedPath) -> tuple[str, ...]:
    contents = [project.store.read(path.md5) for path in (read, written)]
    values = [dict(lockfile.flatten(json.loads(content))) for content in contents if content is not None]
    return tuple(change.line() for change in compare(*values)) if len(values) == 2 else ()


def _photos(project: Project, read: LockedPath, written: LockedPath) -> PhotoChanges | None:
    """Compare two image tables or raw tables; None if it is another input, or the earlier bytes are nowhere."""
    if read.path == IMAGES_PATH:
        tables = [project.store.read(path.md5) for path in (read, written)]
        return None if tables[0] is None or tables[1] is None else photo_changes(tables[0], tables[1])
    if read.path == RAW_PATH:
        folders = [project.store.list_folder(path) or {} for path in (read, written)]
        shards = [{md5 for name, md5 in folder.items() if name.endswith(SHARD_SUFFIX)} for folder in folders]
        if not all(shards) or not all(map(project.store.has, shards[0] ^ shards[1])):
            return None
        return raw_changes(
            *(map(project.store.object_path, sorted(side - other)) for side, other in (shards, shards[::-1]))
        )
    return None
