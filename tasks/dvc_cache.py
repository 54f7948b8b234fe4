"""Earlier outputs of a stage, from DVC's cache: DVC removes them from the workspace before the stage runs.

dvc.lock says what the outputs were when the stage last ran; DVC's cache has their bytes, each file under its md5. Both
are DVC's own formats (version 3). DVC itself takes most of a second to import.
"""

import configparser
import logging
from pathlib import Path

import platformdirs
from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.dvc_hash import FOLDER_SUFFIX

log = logging.getLogger(__name__)

FILES = Path("files/md5")  # below the cache's folder


class _Entry(BaseModel):
    """A file in a folder's list."""

    relpath: str
    md5: str


class _Out(BaseModel):
    """An output in dvc.lock."""

    path: str
    md5: str


_LISTING, _OUTS = TypeAdapter(list[_Entry]), TypeAdapter(list[_Out])


def find_output(root: Path, path: Path) -> dict[str, Path]:
    """Return where DVC's cache has the files of an output, as of the project's dvc.lock.

    Args:
        root: The project.
        path: The output's, inside the project.

    Returns:
        The cache's file for each name inside the output; for one that is a file itself, its own name. Nothing if the
        output is not in dvc.lock or its list of files not in the cache, or one of the two is damaged; what names a file
        that the cache has lost leads nowhere.
    """
    md5 = _md5_of(root, path.relative_to(root).as_posix())
    if md5 is None:
        return {}
    cache = cache_dir(root) / FILES
    if not md5.endswith(FOLDER_SUFFIX):
        return {path.name: _place(cache, md5)}
    listing = _place(cache, md5)
    try:
        entries = _LISTING.validate_json(listing.read_bytes() if listing.exists() else b"[]")
    except ValidationError:  # as if it were not there: `pawline verify` says so
        entries = []
    return {entry.relpath: _place(cache, entry.md5) for entry in entries}


def cache_dir(root: Path) -> Path:
    """Return the folder of a project's cache: `cache.dir` of DVC's configuration, or `.dvc/cache`."""
    folder = root / ".dvc" / "cache"
    for place in (platformdirs.site_config_path("dvc"), platformdirs.user_config_path("dvc"), root / ".dvc"):
        for config in (place / "config", place / "config.local"):
            parser = configparser.ConfigParser(interpolation=None)
            parser.read(config, encoding="utf-8")
            named = parser.get("cache", "dir", fallback=None)
            folder = folder if named is None else place / named
    return folder


def _md5_of(root: Path, name: str) -> str | None:
    lock_path = root / "dvc.lock"
    if not lock_path.exists():
        return None
    try:
        lock = YAML(typ="safe").load(lock_path)
        outs = _OUTS.validate_python([out for stage in lock["stages"].values() for out in stage.get("outs", [])])
    except (YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        log.warning("%s is damaged: nothing is taken over from DVC's cache; `git diff` shows what changed", lock_path)
        return None
    return next((out.md5 for out in outs if out.path == name), None)


def _place(cache: Path, md5: str) -> Path:
    return cache / md5[:2] / md5[2:]
