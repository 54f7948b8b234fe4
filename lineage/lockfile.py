"""`dvc.lock` and `dvc.yaml` as data: what every stage read and wrote, by hash, when it last ran."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.stage import PawlineError

FOLDER_SUFFIX = ".dir"  # DVC's hash of a folder: of the JSON list of its files
MD5 = re.compile(r"[0-9a-f]+(\.dir)?")  # the cache's and the remotes' files are called by it: nothing else may be in it


@dataclass(frozen=True)
class LockedPath:
    """A file or folder by its content: `md5` as DVC writes it, `size` in bytes, `files` in a folder."""

    path: str
    md5: str
    size: int
    files: int | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.md5.endswith(FOLDER_SUFFIX)


@dataclass(frozen=True)
class LockedStage:
    """A stage's last run: the command, the parameters it read (dotted key to value), and what it read and wrote."""

    name: str
    command: str
    params: dict[str, Any] = field(default_factory=dict)
    deps: tuple[LockedPath, ...] = ()
    outs: tuple[LockedPath, ...] = ()


Lock = dict[str, LockedStage]  # by name, in the order of the file


@lru_cache(maxsize=64)  # a command asks for the same few files again and again
def parse_lock(content: bytes, *, origin: str = "dvc.lock") -> Lock:
    """Parse a `dvc.lock`.

    Args:
        content: The file's bytes.
        origin: What to call it in an error.

    Raises:
        PawlineError: It is not what DVC writes.
    """
    raw = load_yaml(content, origin=origin)
    try:
        return {name: _stage(name, value) for name, value in raw.get("stages", {}).items()}
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise PawlineError(
            f"{origin} is not what DVC writes ({error!r}): `git log -p dvc.lock` shows changes"
        ) from error


def load_yaml(content: bytes, *, origin: str) -> dict[str, Any]:
    """Return the mapping that a YAML file holds."""
    try:
        value = YAML(typ="safe").load(content.decode("utf-8"))
    except (YAMLError, ValueError, RecursionError) as error:
        first_line = (str(error).splitlines() or [repr(error)])[0]
        raise PawlineError(f"{origin} cannot be read: {first_line}; `git diff` shows what changed") from error
    if not isinstance(value, dict):
        raise PawlineError(f"{origin} holds no mapping; `git diff` shows what changed")
    return value


def producers(lock: Lock) -> dict[str, str]:
    """Return which stage wrote each output: path to stage."""
    return {out.path: stage.name for stage in lock.values() for out in stage.outs}


def upstream(lock: Lock, path: str) -> list[str]:
    """Return the stages that an output comes from, the one that wrote it included, in the order of the file.

    Raises:
        PawlineError: No stage wrote it.
    """
    made_by = producers(lock)
    if path not in made_by:
        raise PawlineError(f"{path} is no output of a stage: dvc.lock has {', '.join(made_by)}")
    found, waiting = set(), [made_by[path]]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [made_by[dep.path] for dep in lock[name].deps if dep.path in made_by]
    return [name for name in lock if name in found]


def find_out(lock: Lock, path: str) -> LockedPath | None:
    """Return the output of that very path, or None."""
    return next((out for stage in lock.values() for out in stage.outs if out.path == path), None)


def parse_folder(content: bytes) -> dict[str, str]:
    """Return the files of a folder object of DVC's cache: path inside the folder to md5.

    Raises:
        PawlineError: It is no such list, or names what lies outside of the folder.
    """
    try:
        files = {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
        if not all(_leads_inside(path) and MD5.fullmatch(md5) for path, md5 in files.items()):
            raise ValueError
        return files
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PawlineError(
            "tampered: a list of files in DVC's cache is not what DVC writes; `pawline verify`"
        ) from error


def _leads_inside(path: str) -> bool:
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))  # an absolute path has an empty part, too


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf of nested parameters with its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _stage(name: str, raw: dict[str, Any]) -> LockedStage:
    params = {key: value for section in raw.get("params", {}).values() for key, value in flatten(section)}
    return LockedStage(name, str(raw["cmd"]), params, _paths(raw.get("deps", [])), _paths(raw.get("outs", [])))


def _paths(raw: list[dict[str, Any]]) -> tuple[LockedPath, ...]:
    paths = tuple(LockedPath(str(e["path"]), str(e["md5"]), int(e["size"]), e.get("nfiles")) for e in raw)
    if not all(MD5.fullmatch(path.md5) for path in paths):
        raise ValueError("an md5 is none")
    return paths
