"""What a run can take over from the one before: finished shards, known by what they were made from.

Beside its output a stage keeps a record (`data/tfrecords.json`, `data/features.json`): a key of all that its shards
depend on but the photos, and for each shard what it was made from and the BLAKE3 of its files. A shard that would be
made from the same under the same key is not made again but linked from the output of the run before, if its files are
still what the record says. New photos then cost what they add, and the bytes are those of a run from nothing.

The output of the run before is in its place, where a stage is run by itself, or else in DVC's cache.
"""

import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from tasks import dvc_cache, stage
from tasks.code import digest_closure
from tasks.environment import package_versions
from tasks.seals import Digests, digest_of

log = logging.getLogger(__name__)

Made = dict[str, Digests]  # by what a shard was made from


class Output(NamedTuple):
    """A stage's output folder, and its record."""

    folder: Path
    record: Path


class _Record(BaseModel):
    """What an output was made from."""

    key: str
    made: Made


class Finished:
    """The shards that the run before has made, and where their files are."""

    def __init__(self, made: Made, paths: Mapping[str, Path], key: str = "") -> None:
        """Nothing is read yet."""
        self.made, self.paths, self._key = made, paths, key
        self._sound: dict[str, bool] = {}

    def under(self, key: str) -> "Finished":
        """Return these if they were made under the key, or none."""
        return self if self._key == key else Finished({}, {})

    def check(self, shards: Iterable[str]) -> None:
        """Read shards to their ends, to see whether they are still what they were."""
        files = {name: digest for made_from in shards for name, digest in self.made.get(made_from, {}).items()}
        self._sound |= {name: self._is_sound(name, files[name]) for name in files if name not in self._sound}

    def files(self, made_from: str) -> Digests:
        """Return a shard's files, if they are all there and still what they were."""
        self.check([made_from])
        files = self.made.get(made_from, {})
        return files if all(self._sound[name] for name in files) else {}

    def is_sound(self, made_from: str, name: str) -> bool:
        """Say whether one of a shard's files is there and still what it was."""
        if name not in self._sound:
            self._sound[name] = self._is_sound(name, self.made[made_from][name])
        return self._sound[name]

    def _is_sound(self, name: str, digest: str) -> bool:
        path = self.paths.get(name)
        return path is not None and path.is_file() and digest_of(path) == digest

    def link(self, files: Digests, target: Callable[[str], Path]) -> Digests:
        """Link files under other names, or copy them where the file system has no links; return them under those."""
        for name in files:
            target(name).unlink(missing_ok=True)
            try:
                os.link(self.paths[name], target(name))
            except OSError:
                shutil.copyfile(self.paths[name], target(name))
        return {target(name).name: digest for name, digest in files.items()}


def make_key(stage_name: str, facts: object) -> str:
    """Return the key of what a stage makes with these facts (JSON values), such as parameters, and this code."""
    everything = [facts, digest_closure(f"tasks.{stage_name}"), platform.python_version(), package_versions()]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def finished_shards(output: Output, key: str, root: Path) -> Finished:
    """Return the shards that a run before has made under the key.

    Args:
        output: Where they would be, if DVC had not removed them.
        key: See `make_key`.
        root: The project, whose DVC cache has them otherwise.
    """
    return _read(output, root).under(key)


def check_output(output: Output, root: Path) -> Finished:
    """Return the shards that a run before has made under whatever key, all of them checked."""
    finished = _read(output, root)
    finished.check(finished.made)
    return finished


def _read(output: Output, root: Path) -> Finished:
    record, paths = _find(output, root)
    if record is None:
        return Finished({}, {})
    try:
        known = _Record.model_validate_json(record.read_bytes())
    except ValidationError:
        log.warning("%s is damaged: all is made anew", record)
        return Finished({}, {})
    return Finished(known.made, paths, known.key)


def record_digest(output: Output, root: Path) -> str:
    """Return which record `finished_shards` finds; empty if none."""
    record, _ = _find(output, root)
    return "" if record is None else stage.sha256_of(record)


def _find(output: Output, root: Path) -> tuple[Path | None, Mapping[str, Path]]:
    if output.record.exists() and output.folder.is_dir():
        return output.record, {path.name: path for path in output.folder.iterdir()}
    if not output.folder.absolute().is_relative_to(root):
        return None, {}
    [record] = dvc_cache.find_output(root, output.record.absolute()).values() or [None]
    if record is None or not record.exists():
        return None, {}
    return record, dvc_cache.find_output(root, output.folder.absolute())


def write_record(output: Output, key: str, made: Made) -> None:
    """Write the record of what an output was made from."""
    with stage.whole_file(output.record) as unfinished:
        stage.write_json(_Record(key=key, made=made).model_dump(), unfinished)
