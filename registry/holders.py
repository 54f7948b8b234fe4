"""What a photo left behind: which runs used it, and which objects hold its bytes, its pixels or its features.

Runs are linked by what their stages read and wrote, as dvc.lock and DVC's run cache have it: an image table belongs to
the raw shards that it was made from, TFRecords to the image table, features to the TFRecords. So an object is found
whichever run named it, committed or not.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lineage import lockfile
from lineage.lockfile import Lock
from lineage.runs import Project, Run, all_runs
from lineage.store import Store
from lineage.tables import read_columns
from registry.places import as_dvc_writes, run_cache_entries
from tasks.raw import SHARD_SUFFIX

RAW, IMAGES, TFRECORDS, FEATURES, EXPLANATIONS, REPORT = (
    "data/raw",
    "data/images.parquet",
    "data/tfrecords",
    "data/features",
    "data/explanations.parquet",
    "reports/index.html",
)
PATHS = frozenset((RAW, IMAGES, TFRECORDS, FEATURES, EXPLANATIONS, REPORT))
TFRECORD_NAME = re.compile(r".*-(\w+)\.tfrecord-(\d+)-of-\d+")
FEATURES_NAME = re.compile(r"(\w+)-(\d+)-(?!labels|ids|images)\w+\.npy")  # which hold the class, the id and a digest

Role = Literal["trained on", "chose the epoch", "judged on", "quarantined"]
ROLES: dict[str, Role] = {"train": "trained on", "val": "chose the epoch", "test": "judged on", "": "quarantined"}


class Row(NamedTuple):
    """A row of an image table (tasks/image_table.py): `split` is empty if the photo was quarantined."""

    id: str
    path: str
    split: str
    group: str


class Photos(NamedTuple):
    """What one image table has of some photos: their rows, and the kept rows of their near-duplicates."""

    rows: list[Row]
    near: list[Row]


class Holder(NamedTuple):
    """An object that holds something of photos: its md5 and path; `certain`, or possible because its bytes are away."""

    md5: str
    path: str
    certain: bool


class Shard(NamedTuple):
    """A shard of TFRecords, and of the features computed from it."""

    split: str
    number: int


@dataclass(frozen=True)
class Records:
    """Every run on record.

    Attributes:
        runs: Versions, the workspace, experiments and commits, with what they read and wrote.
        steps: What a stage once read and wrote, path to md5, of `PATHS` only; DVC's run cache has more than the runs.
    """

    runs: list[tuple[Run, Lock]]
    steps: list[dict[str, str]]

    def all(self, path: str) -> set[str]:
        """Return everything that was ever written to a path."""
        return {step[path] for step in self.steps if path in step}

    def pairs(self, first: str, second: str) -> set[tuple[str, str]]:
        """Return what was at two paths at the same time."""
        return {(step[first], step[second]) for step in self.steps if first in step and second in step}


@dataclass(frozen=True)
class Use:
    """How a run used photos."""

    run: Run
    roles: frozenset[Role]


def read_records(project: Project) -> Records:
    """Read every dvc.lock that is known here, and DVC's run cache."""
    runs: list[tuple[Run, Lock]] = []
    parsed: dict[bytes, Lock] = {}  # many commits have the same dvc.lock
    for run in all_runs(project):
        content = project.read(run, "dvc.lock")
        if content is not None:
            parsed[content] = parsed.get(content) or lockfile.parse_lock(content, origin=f"dvc.lock of {run.name}")
            runs.append((run, parsed[content]))
    pairs = [[(p.path, p.md5) for p in (*s.deps, *s.outs)] for lock in parsed.values() for s in lock.values()]
    for entry in run_cache_entries(project.store):
        content = entry.read_bytes()
        if sum(path.encode() in content for path in PATHS) > 1:  # one path alone links nothing
            raw = lockfile.load_yaml(content, origin=str(entry))
            with as_dvc_writes(str(entry)):
                pairs.append([(path["path"], path.get("md5", "")) for path in (*raw.get("deps", []), *raw["outs"])])
    steps = {frozenset((path, md5) for path, md5 in step if path in PATHS) for step in pairs}
    return Records(runs, [dict(step) for step in sorted(steps, key=sorted) if step])


def read_photos(store: Store, table: str, beginnings: Iterable[str]) -> Photos | None:
    """Return what an image table has of photos whose ids begin like that; None if its bytes are nowhere."""
    content = store.read(table)
    if content is None:
        return None
    images = read_columns(content, Row._fields)
    rows: list[Row] = []
    for beginning in beginnings:
        rows += [Row(**row) for row in images.filter(pc.starts_with(images["id"], beginning)).to_pylist()]
    groups, ids = {row.group for row in rows if row.group}, {row.id for row in rows}
    similar = images.filter(pc.is_in(images["group"], pa.array(sorted(groups), pa.string()))).to_pylist()
    return Photos(rows, [Row(**row) for row in similar if row["id"] not in ids])


def find_uses(records: Records, photos: dict[str, Photos]) -> list[Use]:
    """Return the runs that used photos, and how."""
    uses = []
    for run, lock in records.runs:
        table = lockfile.find_out(lock, IMAGES)
        rows = photos[table.md5].rows if table is not None and table.md5 in photos else []
        if rows:
            uses.append(Use(run, frozenset(ROLES[row.split] for row in rows)))
    return uses


def find_holders(
    store: Store, records: Records, photos: dict[str, Photos], forgotten: Collection[str] = ()
) -> list[Holder]:
    """Return the objects that hold something of photos.

    A shard is looked into, and fetched for that if need be, but for those that were forgotten earlier. If none that can
    be looked into holds the photo, it must be in one of those that are nowhere, and all these are returned: what was
    computed from them may still be here. They are possible holders; one alone is certain.
    """
    search = _Search(store, forgotten)
    rows = {table: found.rows for table, found in photos.items() if found.rows}
    judged = records.pairs(RAW, IMAGES)
    holders: list[Holder] = []
    for folder, table in judged:
        holders += search.raw(folder, rows.get(table, []), is_there=True)
    for folder in records.all(RAW) - {folder for folder, _ in judged}:  # the run stopped before it knew its photos
        holders += search.raw(folder, [row for known in rows.values() for row in known], is_there=False)
    for table, folder in records.pairs(IMAGES, TFRECORDS):
        kept = {(row.split, row.id) for row in rows.get(table, []) if row.split}
        named, shards = search.tfrecords(folder, kept)
        holders += named
        for source, computed in records.pairs(TFRECORDS, FEATURES) if shards else ():
            holders += search.features(computed, shards) if source == folder else []
    ids = {row.id for known in rows.values() for row in known}
    holders += [holder for table in records.all(EXPLANATIONS) for holder in search.explanations(table, ids)]
    # A page shows quarantined photos, mistakes, suspicious labels; which ones, only their pixels would say. So each
    # counts as one that did.
    return holders + [Holder(page, REPORT, True) for table, page in records.pairs(IMAGES, REPORT) if table in rows]


def raw_shard_holds(shard: Path, rows: Iterable[Row]) -> bool:
    """Say whether a raw shard holds one of some photos, under one of their paths."""
    ids, paths = {row.id for row in rows}, pa.array(sorted({row.path for row in rows}), pa.string())
    if not pc.any(pc.is_in(pq.read_table(shard, columns=["path"], use_threads=False)["path"], paths)).as_py():
        return False
    table = pq.read_table(shard, columns=["content"], filters=pc.field("path").isin(paths), use_threads=False)
    return any(hashlib.sha256(content.as_buffer()).hexdigest() in ids for content in table["content"])


class _Search:
    """Looks into shards."""

    def __init__(self, store: Store, forgotten: Collection[str]) -> None:
        self._store, self._forgotten = store, forgotten

    def raw(self, folder: str, rows: list[Row], *, is_there: bool) -> list[Holder]:
        """Return the raw shards that hold photos; `is_there` says that the folder has them."""
        known = self._files(folder) if rows else {}
        files = {name: md5 for name, md5 in known.items() if name.endswith(SHARD_SUFFIX)}
        holders: list[Holder] = []
        for row in rows:
            answers = {name: self._raw_shard_holds(md5, row) for name, md5 in files.items()}
            names = _holding(answers) if is_there else {name: True for name, answer in answers.items() if answer}
            holders += [Holder(files[name], f"{RAW}/{name}", certain) for name, certain in names.items()]
        return holders

    def tfrecords(self, folder: str, photos: set[tuple[str, str]]) -> tuple[list[Holder], dict[Shard, bool]]:
        """Return the shards that hold photos, given as (split, id); by split and number, whether that is certain."""
        files = self._files(folder) if photos else {}
        named = {name: Shard(m[1], int(m[2])) for name in files if (m := TFRECORD_NAME.fullmatch(name))}
        found: dict[str, bool] = {}
        for split, image_id in photos:
            held = {name: self._contains(files[name], image_id) for name, at in named.items() if at.split == split}
            for name, certain in _holding(held).items():
                found[name] = certain or found.get(name, False)
        holders = [Holder(files[name], f"{TFRECORDS}/{name}", certain) for name, certain in found.items()]
        return holders, {named[name]: certain for name, certain in found.items()}

    def features(self, folder: str, shards: dict[Shard, bool]) -> list[Holder]:
        """Return the arrays that were computed from these shards."""
        files = self._files(folder)
        named = {name: Shard(m[1], int(m[2])) for name in files if (m := FEATURES_NAME.fullmatch(name))}
        return [
            Holder(files[name], f"{FEATURES}/{name}", shards[shard]) for name, shard in named.items() if shard in shards
        ]

    def explanations(self, table: str, ids: set[str]) -> list[Holder]:
        """Return a table of explanations if it pictures one of some photos, or may, its bytes being nowhere."""
        content = self._store.read(table)
        if content is None:
            return [Holder(table, EXPLANATIONS, False)]
        pictured = not ids.isdisjoint(read_columns(content, ["id"])["id"].to_pylist())
        return [Holder(table, EXPLANATIONS, True)] if pictured else []

    def _files(self, folder: str) -> dict[str, str]:
        content = self._store.read(folder)
        return {} if content is None else lockfile.parse_folder(content)

    def _raw_shard_holds(self, md5: str, row: Row) -> bool | None:
        here = self._bring(md5)
        return raw_shard_holds(self._store.object_path(md5), [row]) if here else None

    def _contains(self, md5: str, image_id: str) -> bool | None:
        """Say whether a shard of TFRecords holds an id (they are not compressed); None if it is nowhere."""
        return image_id.encode() in self._store.object_path(md5).read_bytes() if self._bring(md5) else None

    def _bring(self, md5: str) -> bool:
        if not self._store.has(md5) and md5 not in self._forgotten:
            self._store.fetch([md5])
        return self._store.has(md5)


def _holding(answers: dict[str, bool | None]) -> dict[str, bool]:
    """Return the shards that hold something, or else those that could not be asked; and whether that is certain."""
    found = {name: True for name, answer in answers.items() if answer}
    unasked = [name for name, answer in answers.items() if answer is None]
    return found or {name: len(unasked) == 1 for name in unasked}
