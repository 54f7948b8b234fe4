"""A small project with one run on record: real shards, tables, DVC and git; no stage runs, so that it takes seconds."""

from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo

from tasks import raw
from tasks.image_table import ImageRow, write_images
from tasks.raw import RawRecord
from tests.conftest import ROOT
from tests.plumbing import git_in

PHOTOS = 6
STAGES = {
    "ingest": ([], "data/raw"),
    "validate": (["data/raw"], "data/images.parquet"),
    "preprocess": (["data/images.parquet"], "data/tfrecords"),
    "features": (["data/tfrecords"], "data/features"),
}


def photo(number: int) -> bytes:
    """The bytes of a photo, of which nothing here asks what they show."""
    return b"photo %d " % number * 100


def make_project(folder: Path) -> None:
    """Make the project, with two photos in each of three shards; everything is committed."""
    (folder / "data").mkdir(parents=True)
    records = [RawRecord(f"cat/{number}.jpg", "cat", "", photo(number)) for number in range(PHOTOS)]
    _write_outputs(folder, records)
    lines = ["stages:"]
    for stage, (deps, out) in STAGES.items():
        lines += [f"  {stage}:", f"    cmd: python -m tasks.{stage}", f"    deps: {deps}", f"    outs: [{out}]"]
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / ".gitignore").write_text("/data/\n")
    git_in(folder, "init", "--quiet", "--initial-branch", "main")
    for key in ("name", "email"):
        git_in(folder, "config", f"user.{key}", "tests@localhost")
    Repo.init(str(folder)).close()
    with chdir(folder), Repo() as repo:
        repo.commit(force=True)
    git_in(folder, "add", "--all")
    git_in(folder, "commit", "--quiet", "--message", "A run")


def _write_outputs(folder: Path, records: list[RawRecord]) -> None:
    for name in ("raw", "tfrecords", "features"):
        (folder / "data" / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw, "ROW_GROUP_RECORDS", 2)
        patch.setattr(raw, "SHARD_BYTES", 1)
        raw.write_shards(records, folder / "data/raw")
    candidates = [one for chunk in raw.list_chunks(folder / "data/raw") for one in raw.read_candidates(chunk)]
    rows = [ImageRow(id=one.id, path=one.path, label=one.label, group=one.id, split="train") for one in candidates]
    write_images(rows, folder / "data/images.parquet")
    for shard in range(PHOTOS // 2):
        ids = "".join(row.id for row in rows[2 * shard : 2 * shard + 2])
        name = f"images-train.tfrecord-{shard:05}-of-{PHOTOS // 2:05}"
        (folder / "data/tfrecords" / name).write_text(f"two records: {ids}")
        (folder / f"data/features/train-{shard:05}-pooled.npy").write_text(f"pooled {shard}")
