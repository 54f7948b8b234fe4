"""What happened to one photo: its verdict and split, where its data lies, and which models saw it, and how."""

import json
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lineage import lockfile
from lineage.differences import IMAGES_PATH
from lineage.lockfile import Lock
from lineage.photo_records import Encounter, Judgement, PhotoFile, PhotoStory, Role, StoredPhoto
from lineage.runs import MODEL_PATH, Project, Run, all_runs, find_file, is_file
from lineage.tables import read_columns
from registry import ledger
from tasks.feature_store import shard_name
from tasks.raw import SHARD_SUFFIX
from tasks.stage import PawlineError

PREDICTIONS_PATH = "data/predictions.parquet"
RAW_PATH, TFRECORDS_PATH, FEATURES_PATH = "data/raw", "data/tfrecords", "data/features"
LEAST_DIGITS = 6  # of an id: fewer are rarely unique
ROLES: dict[str, Role] = {"train": "trained", "val": "chose", "test": "judged"}


def photo_story(project: Project, run: Run, image_id: str) -> PhotoStory:
    """Tell what happened to a photo.

    Args:
        project: The checkout.
        run: Whose data describes it; if that does not have it, another one that does.
        image_id: SHA-256 of its bytes in hex, or the beginning of it, at least 6 digits.

    Raises:
        PawlineError: No run known here has such a photo, or several are meant.
    """
    tables = _Tables(project)
    others = [other for other in all_runs(project) if other.commit != run.commit]
    seen = [each for other in (run, *others) if (each := tables.of_run(other)) is not None]
    known = [each for each in seen if each.images is not None]
    full_id = _full_id(image_id, known)
    holder, files = next((each, files) for each in known if (files := _files(each.images, full_id)))
    return PhotoStory(
        id=full_id,
        run=holder.run.name,
        asked=None if holder.run == run else run.name,
        files=files,
        group=_group(holder.images, files),
        stored=_stored(project, holder, files, full_id),
        encounters=_merge(_encounter(each, full_id) for each in known if each.is_finished),
        unfinished=[each.run.name for each in known if not each.is_finished],
        unknown=[each.run.name for each in seen if each.images is None],
        forgotten=_forgotten(project, full_id),
    )


def _forgotten(project: Project, photo: str) -> str | None:
    if not project.has_history:
        return None
    for decision in ledger.load(project.root).decisions:
        if decision.action == "forget" and photo in decision.details["ids"]:
            return f"its bytes and features were deleted by decision {decision.number} of {decision.time[:10]}"
    return None


def find_prediction(project: Project, what: str) -> tuple[Run, str]:
    """Return the run that made a prediction, and the id of its photo.

    Args:
        project: The checkout.
        what: `PATH#ROW` or `PATH#ID`: a predictions.parquet, wherever it lies, and the row (counted from 0) or the
            beginning of the photo's id.

    Raises:
        PawlineError: No such file, run, row or id.
    """
    path, _, which = what.rpartition("#")
    if not is_file(path):
        raise PawlineError(f"{what}: there is no file {path or what}; a prediction is PATH#ROW or PATH#ID")
    run = find_file(project, Path(path))
    if run.found != PREDICTIONS_PATH:
        raise PawlineError(f"{path} is {run.found} of {run.name}: predictions are in {PREDICTIONS_PATH}")
    ids: list[str] = read_columns(Path(path).read_bytes(), ["id"])["id"].to_pylist()
    if which.isdecimal() and int(which) < len(ids):
        return run, ids[int(which)]
    if which.isdecimal() and len(which) < LEAST_DIGITS:
        raise PawlineError(f"{path} has no row {which}: they are 0 to {len(ids) - 1}")
    return run, _only_id(which, set(ids), f"in {path}")


@dataclass(frozen=True)
class _SeenRun:
    """A run with its tables; None for one whose bytes are nowhere."""

    run: Run
    lock: Lock
    images: Any  # pa.Table: pyarrow ships no types
    predictions: Any

    @property
    def is_finished(self) -> bool:
        """Whether its classifier is made of its photos: each stage read what the one before it wrote last."""
        return _fits(self.lock, MODEL_PATH)

    @property
    def was_evaluated(self) -> bool:
        """Whether its predictions are those of its classifier."""
        return _fits(self.lock, PREDICTIONS_PATH)


class _Tables:
    """Reads the tables of runs; many runs share a lock or a table."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._locks: dict[bytes, Lock] = {}
        self._tables: dict[str, pa.Table | None] = {}

    def of_run(self, run: Run) -> _SeenRun | None:
        """Return a run with its tables; None if it has no photos."""
        content = self._project.read(run, "dvc.lock")
        if content is None:
            return None
        if content not in self._locks:
            self._locks[content] = lockfile.parse_lock(content, origin=f"dvc.lock of {run.name}")
        lock = self._locks[content]
        if lockfile.find_out(lock, IMAGES_PATH) is None:
            return None
        images = self._table(lock, IMAGES_PATH, ["id", *PhotoFile.model_fields])
        return _SeenRun(run, lock, images, self._table(lock, PREDICTIONS_PATH, ["id", *Judgement.model_fields]))

    def _table(self, lock: Lock, path: str, columns: list[str]) -> pa.Table | None:
        out = lockfile.find_out(lock, path)
        if out is None:
            return None
        if out.md5 not in self._tables:
            content = self._project.store.read(out.md5)
            self._tables[out.md5] = None if content is None else read_columns(content, columns)
        return self._tables[out.md5]


def _fits(lock: Lock, path: str) -> bool:
    written = {out.path: out.md5 for stage in lock.values() for out in stage.outs}
    if path not in written:
        return False
    read = (dep for name in lockfile.upstream(lock, path) for dep in lock[name].deps)
    return all(written.get(dep.path, dep.md5) == dep.md5 for dep in read)


def _full_id(prefix: str, runs: list[_SeenRun]) -> str:
    matches: set[str] = set()
    if len(prefix) >= LEAST_DIGITS:
        for table in {id(run.images): run.images for run in runs}.values():
            matches |= set(table["id"].filter(pc.starts_with(table["id"], prefix.lower())).to_pylist())
    return _only_id(prefix, matches, "in any run known here")


def _only_id(prefix: str, ids: set[str], where: str) -> str:
    """Return the one id that begins like that."""
    if not re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", prefix.lower()):
        raise PawlineError(
            f"{prefix} is no photo's id: that is the SHA-256 of its bytes, or its first 6 or more digits"
        )
    matches = [each for each in ids if each.startswith(prefix.lower())]
    if not matches:
        raise PawlineError(f"there is no photo {prefix} {where}: `sha256sum FILE` gives a photo's id")
    if len(matches) > 1:
        raise PawlineError(f"{prefix} is the beginning of {len(matches)} photos' ids: give more digits")
    return matches[0]


def _rows(table: pa.Table, column: str, value: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.filter(pc.equal(table[column], value)).to_pylist()
    return rows


def _files(images: pa.Table, image_id: str) -> list[PhotoFile]:
    rows = _rows(images, "id", image_id)
    return [PhotoFile(**{name: row[name] for name in PhotoFile.model_fields}) for row in rows]


def _group(images: pa.Table, files: list[PhotoFile]) -> list[str]:
    """Return the paths of the other photos in the group of near-duplicates."""
    own = {file.path for file in files}
    groups = {file.group for file in files if file.group}
    return sorted(row["path"] for group in groups for row in _rows(images, "group", group) if row["path"] not in own)


def _encounter(seen: _SeenRun, image_id: str) -> Encounter:
    files = _files(seen.images, image_id)
    kept = next((file for file in files if file.status == "kept"), None)
    if kept is None:
        reasons = ", ".join(dict.fromkeys(file.reason for file in files))
        return Encounter(runs=[seen.run.name], role="quarantined" if files else "absent", reason=reasons or None)
    said = [] if seen.predictions is None or not seen.was_evaluated else _rows(seen.predictions, "id", image_id)
    return Encounter(
        runs=[seen.run.name],
        role=ROLES[kept.split],
        views=_views(seen.lock) if kept.split == "train" else None,
        judgements=tuple(Judgement(**{name: row[name] for name in Judgement.model_fields}) for row in said),
        predictions_missing=kept.split == "test" and seen.predictions is None,
    )


def _merge(encounters: Iterable[Encounter]) -> list[Encounter]:
    """Put runs to which the photo was the same into one."""
    merged: dict[str, Encounter] = {}
    for encounter in encounters:
        key = encounter.model_dump_json(exclude={"runs"})
        runs = [*merged[key].runs, *encounter.runs] if key in merged else encounter.runs
        merged[key] = encounter.model_copy(update={"runs": runs})
    return list(merged.values())


def _views(lock: Lock) -> int:
    return next((int(s.params["features.views"]) for s in lock.values() if "features.views" in s.params), 1)


def _stored(project: Project, seen: _SeenRun, files: list[PhotoFile], image_id: str) -> StoredPhoto | None:
    """Find a kept photo in the TFRecords: they hold a split's photos in the order of the raw table."""
    kept = next((file for file in files if file.status == "kept"), None)
    if kept is None or not _fits(seen.lock, FEATURES_PATH):
        return None
    shards = _local_files(project, seen.lock, TFRECORDS_PATH)
    position = _position(project, seen, kept)
    if not shards or position is None:
        return None
    lengths = _shard_lengths(shards["dataset_info.json"], kept.split)
    number = next(n for n in range(len(lengths)) if position < sum(lengths[: n + 1]))
    row = position - sum(lengths[:number])
    names = sorted(name for name in shards if re.search(rf"-{kept.split}\.tfrecord-", name))
    if image_id.encode() not in _record(shards[names[number]], row):
        return None
    features = shard_name(kept.split, number, "pooled")
    return StoredPhoto(
        tfrecord=f"{TFRECORDS_PATH}/{names[number]}",
        row=row,
        features=f"{FEATURES_PATH}/{features}",
        views=_views(seen.lock) if kept.split == "train" else 1,
        augmented=kept.split == "train",
    )


def _local_files(project: Project, lock: Lock, path: str) -> dict[str, Path]:
    """Return an output folder's files in the cache; none if they are not all there, since they are large."""
    folder = lockfile.find_out(lock, path)
    if folder is None or not project.store.has(folder.md5):
        return {}
    files = {name: project.store.object_path(md5) for name, md5 in (project.store.list_folder(folder) or {}).items()}
    return files if all(file.is_file() for file in files.values()) else {}


def _position(project: Project, seen: _SeenRun, photo: PhotoFile) -> int | None:
    """Return the photo's place among the kept photos of its split."""
    images = seen.images
    of_split = pc.and_(pc.equal(images["status"], "kept"), pc.equal(images["split"], photo.split))
    paths = set(images["path"].filter(of_split).to_pylist())
    shards = _local_files(project, seen.lock, RAW_PATH)
    names = sorted(name for name in shards if name.endswith(SHARD_SUFFIX))
    in_order = (path for name in names for path in _paths(shards[name]) if path in paths)
    return next((place for place, path in enumerate(in_order) if path == photo.path), None)


def _paths(raw_shard: Path) -> Iterator[str]:
    with pq.ParquetFile(raw_shard) as file:
        yield from file.read(columns=["path"], use_threads=False)["path"].to_pylist()


def _shard_lengths(dataset_info: Path, split: str) -> list[int]:
    info = json.loads(dataset_info.read_text(encoding="utf-8"))
    return next([int(length) for length in each["shardLengths"]] for each in info["splits"] if each["name"] == split)


def _record(tfrecord: Path, row: int) -> bytes:
    """Return a record of a TFRecord file: each is its length (uint64), a checksum, its bytes and a checksum."""
    with tfrecord.open("rb") as file:
        for _ in range(row):
            (length,) = struct.unpack("<Q", file.read(8))
            file.seek(4 + length + 4, 1)
        (length,) = struct.unpack("<Q", file.read(8))
        return file.read(4 + length)[4:]
