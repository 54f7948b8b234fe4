"""Everything that holds a photo is found, whichever run made it, and what cannot hold it is left alone."""

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lineage import lockfile
from lineage.lockfile import LockedPath
from lineage.runs import WORKSPACE, Project
from registry import holders
from registry.holders import ROLES, Photos, Records
from tasks.image_table import ImageRow, read_images
from tasks.raw import read_shard


class Found:
    """A photo, and what there is of it."""

    def __init__(self, root: Path, image_id: str, records: Records | None = None) -> None:
        self.project = Project(root)
        self.records = records or holders.read_records(self.project)
        tables = self.records.all("data/images.parquet")
        read = {md5: holders.read_photos(self.project.store, md5, [image_id[:8]]) for md5 in tables}
        self.photos: dict[str, Photos] = {md5: photos for md5, photos in read.items() if photos}
        found = holders.find_holders(self.project.store, self.records, self.photos)
        self.holders = {holder.md5: holder.path for holder in found}
        self.certain = {holder.md5 for holder in found if holder.certain}

    def files(self) -> set[str]:
        return set(self.holders.values())

    def uses(self) -> dict[str, set[str]]:
        return {use.run.kind: set(use.roles) for use in holders.find_uses(self.records, self.photos)}


def a_photo(**wanted: str) -> ImageRow:
    rows = read_images(Path("data/images.parquet"))
    doubled = {row.id for row in rows if row.reason == "exact_duplicate"}
    return next(row for row in rows if row.id not in doubled and all(getattr(row, k) == v for k, v in wanted.items()))


def photo_bytes(row: ImageRow) -> bytes:
    return next(record.content for record in read_shard(Path("data/raw/raw-00000.parquet")) if record.path == row.path)


def objects_that_contain(root: Path, *needles: bytes) -> Iterator[str]:
    for path in (root / ".dvc/cache/files/md5").rglob("*"):
        if path.is_file() and any(needle in path.read_bytes() for needle in needles):
            yield path.parent.name + path.name


def features_of(found: Found, photo: ImageRow) -> set[str]:
    """The pooled vectors and boundary tensors of the shards that have a photo, of all runs."""
    object_path = found.project.store.object_path
    listed = [lockfile.parse_folder(object_path(md5).read_bytes()) for md5 in found.records.all("data/features")]
    return {
        md5
        for files in listed
        for ids in files
        if ids.endswith("-ids.npy") and photo.id.encode() in np.load(object_path(files[ids]))
        for name, md5 in files.items()
        if name.startswith(ids.removesuffix("ids.npy")) and not re.search("labels|ids|images", name)
    }


def is_a_shard(found: Found, md5: str) -> bool:
    """Whether an object is one of the TFRecords, of all runs."""
    folders = [found.project.store.object_path(folder) for folder in found.records.all("data/tfrecords")]
    return any(md5 in lockfile.parse_folder(path.read_bytes()).values() for path in folders)


def explained_in(found: Found, photo: ImageRow) -> set[str]:
    """The tables with an overlay of a photo, of all runs."""
    tables = {md5: found.project.store.object_path(md5) for md5 in found.records.all("data/explanations.parquet")}
    return {md5 for md5, path in tables.items() if photo.id in pq.read_table(path)["id"].to_pylist()}


def test_raw_bytes_pixels_and_features_of_kept_photos(three_runs: Path) -> None:
    records = holders.read_records(Project(three_runs))
    for split in ("train", "val", "test"):
        photo = a_photo(split=split)
        found = Found(three_runs, photo.id, records)
        pages = {md5 for md5, path in found.holders.items() if path == "reports/index.html"}
        expected = set(objects_that_contain(three_runs, photo_bytes(photo))) | features_of(found, photo)
        # The id is in the TFRecords, and in tables that hold no pixels.
        named = {md5 for md5 in objects_that_contain(three_runs, photo.id.encode()) if is_a_shard(found, md5)}
        assert set(found.holders) == expected | named | pages | explained_in(found, photo)
        assert len(named) > 0
        assert pages
        assert ROLES[split] in found.uses()["workspace"]


def test_an_overlay_of_a_photo_is_its_picture(three_runs: Path) -> None:
    records = holders.read_records(Project(three_runs))
    explained = pq.read_table("data/explanations.parquet")["id"].to_pylist()
    assert "data/explanations.parquet" in Found(three_runs, explained[0], records).files()
    assert "data/explanations.parquet" not in Found(three_runs, a_photo(split="train").id, records).files()


def test_quarantined_photos_and_duplicates(three_runs: Path) -> None:
    blank = Found(three_runs, a_photo(reason="blank").id)
    assert blank.files() == {"data/raw/raw-00000.parquet", "reports/index.html"}
    assert blank.uses() == {"workspace": {"quarantined"}, "commit": {"quarantined"}}
    rows = read_images(Path("data/images.parquet"))
    copy = next(row for row in rows if row.reason == "exact_duplicate")
    original = next(row for row in rows if row.path == copy.duplicate_of)
    assert Found(three_runs, copy.id, blank.records).uses()["workspace"] == {"quarantined", ROLES[original.split]}


def test_a_run_that_no_commit_has_is_found_by_the_run_cache(three_runs: Path) -> None:
    photo = a_photo(split="train")
    before = Found(three_runs, photo.id)
    subprocess.run(["git", "reset", "--quiet", "--hard", "HEAD~3"], check=True)
    after = Found(three_runs, photo.id)
    assert before.uses() != {} == after.uses()
    assert after.holders == before.holders


def test_a_shard_that_is_nowhere_must_be_the_one_that_held_it(three_runs: Path) -> None:
    photo = a_photo(split="train")
    before = Found(three_runs, photo.id)
    for md5 in before.holders:
        if not before.holders[md5].startswith("data/features"):
            before.project.store.object_path(md5).unlink()
    after = Found(three_runs, photo.id, before.records)
    assert after.holders == before.holders
    assert after.certain == before.certain == set(before.holders)


def test_a_raw_table_whose_run_stopped_there_is_looked_into(three_runs: Path) -> None:
    photo = a_photo(split="train")
    found = Found(three_runs, photo.id)
    raw = next(md5 for md5, path in found.holders.items() if path.startswith("data/raw"))
    folder = b'[{"md5": "%s", "relpath": "raw-00007.parquet"}]' % raw.encode()
    md5 = hashlib.md5(folder, usedforsecurity=False).hexdigest() + ".dir"
    listed = LockedPath("data/raw", md5, len(folder), 1)
    found.project.store.object_path(md5).parent.mkdir(exist_ok=True)
    found.project.store.object_path(md5).write_bytes(folder)
    steps = [step for step in found.records.steps if set(step) == {"data/images.parquet"}]
    records = Records([], [*steps, {listed.path: listed.md5}])
    only = holders.Holder(raw, "data/raw/raw-00007.parquet", certain=True)
    assert set(holders.find_holders(found.project.store, records, found.photos)) == {only}
    other = {table: Photos([row._replace(id="0" * 64) for row in p.rows], []) for table, p in found.photos.items()}
    assert holders.find_holders(found.project.store, records, other) == [], "another photo of the same path"


def test_of_several_shards_that_are_nowhere_none_is_known_to_have_held_it(one_run: Path) -> None:
    photo = a_photo(split="train")
    before = Found(one_run, photo.id)
    assert sorted(before.holders.values()) == [
        "data/features/train-00000-pooled.npy",
        "data/raw/raw-00000.parquet",
        "data/tfrecords/images-train.tfrecord-00000-of-00003",
    ]
    lose_shards(before.project)
    after = Found(one_run, photo.id)
    assert len(after.holders) == 9
    assert after.certain == set()


def lose_shards(project: Project) -> list[str]:
    """Empty the cache of the shards of folders, but not of their lists; return their md5s."""
    lists = [out.md5 for out in outputs(project) if out.is_folder]
    lost = [md5 for each in lists for md5 in lockfile.parse_folder(project.store.read(each) or b"").values()]
    for md5 in lost:
        project.store.object_path(md5).unlink()
    return lost


def outputs(project: Project) -> list[LockedPath]:
    return [out for stage in project.lock(WORKSPACE).values() for out in stage.outs]
