"""Forgetting is complete, says only what happened, and can be interrupted anywhere."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lineage.runs import Project
from registry import decisions, forget, ledger, places
from registry.forget import Plan
from tasks.image_table import read_images
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.lineage.test_rebuild import leave_behind
from tests.one_run import photo
from tests.registry.test_holders import a_photo, lose_shards, objects_that_contain, photo_bytes
from tests.registry.test_places import add_remote, at_work, writing


def plan_for(root: Path, *ids: str) -> Plan:
    project = Project(root)
    with places.opened(project.store) as opened:
        return forget.make_plan(project, opened, ledger.load(root), ids)


def delete(root: Path, plan: Plan) -> dict[str, str]:
    project = Project(root)
    with places.opened(project.store) as opened:
        return forget.delete(project, opened, plan)


def record(root: Path, plan: Plan, unreachable: dict[str, str]) -> dict[str, list[str]]:
    project = Project(root)
    with decisions.deciding(project), places.opened(project.store) as opened:
        book = ledger.load(root)
        key = decisions.load_key(book)
        return forget.record(plan, opened, unreachable, "a request", book=book, key=key).details


def test_interrupted_before_the_record_it_is_finished_by_the_same_request(three_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(".dvc/cache/files", tmp_path / "backup/files")
    add_remote(three_runs, "backup", tmp_path / "backup")
    photo = a_photo(split="train")
    content = photo_bytes(photo)
    (three_runs / ".pawline/features/key").mkdir(parents=True)
    first = plan_for(three_runs, photo.id)
    assert [path.relative_to(three_runs).parts[1] for path in first.copies] == [
        "features",
        "raw",
        "tfrecords",
        "index.html",
    ]
    assert first.held[places.CACHE] == first.held["backup"] != {}
    with at_work() as pid, places.opened(Project(three_runs).store) as opened:
        Path(".dvc/tmp/rwlock").write_text(writing("data/raw", pid))
        with pytest.raises(PawlineError, match=rf"^sleep 60 is at work here \(pid {pid}\)"):
            forget.delete(Project(three_runs), opened, first)
        assert {place.name: place.sizes(first.holders) for place in opened.all} == first.held
    Path(".dvc/tmp/rwlock").unlink()
    assert delete(three_runs, first) == {}
    assert list(objects_that_contain(three_runs, content)) == []
    assert not [path for path in [*Path("data").rglob("*"), *tmp_path.glob("backup/**/*")] if holds(path, content)]
    assert not Path(".pawline/features").exists()
    again = plan_for(three_runs, photo.id[:8])
    assert again.is_gone
    assert not again.is_forgotten
    assert again.holders == first.holders
    details = record(three_runs, again, {})
    assert details["objects"] == sorted(first.holders)
    assert set(details["runs"]) == {"workspace", *(use.run.name for use in first.trained)}
    assert plan_for(three_runs, photo.id).is_forgotten


def holds(path: Path, content: bytes) -> bool:
    return path.is_file() and content in path.read_bytes()


def test_the_record_does_not_claim_what_did_not_happen(three_runs: Path) -> None:
    plan = plan_for(three_runs, a_photo(split="val").id)
    kept = next(iter(plan.holders))
    held = {places.CACHE: {md5: size for md5, size in plan.held[places.CACHE].items() if md5 != kept}}
    delete(three_runs, Plan(**{**vars(plan), "held": held}))
    assert record(three_runs, plan, {"backup": "unplugged"}) == {
        "ids": list(plan.ids),
        "versions": [],
        "runs": [use.run.name for use in plan.uses],
        "objects": sorted(plan.holders.keys() - {kept}),
        "unreachable": ["backup"],
    }


def test_which_photo_is_meant(three_runs: Path) -> None:
    photo = a_photo(split="train")
    Path("photo.jpg").write_bytes(photo_bytes(photo))
    assert forget.digest_or_beginning("photo.jpg", three_runs) == photo.id
    assert forget.digest_or_beginning(photo.id[:6].upper(), three_runs) == photo.id[:6]
    for text in ("nowhere.jpg", photo.id[:5], photo.id + "0", "x" * 300):
        with pytest.raises(PawlineError, match="is no file and no id: give a photo, or 6 or more"):
            forget.digest_or_beginning(text, three_runs)
    unknown = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(PawlineError, match=f"no run on record has a photo {unknown[:12]}: nothing to forget"):
        plan_for(three_runs, photo.id, unknown)
    with pytest.raises(PawlineError, match=r"photos begin with 0: \w+, "):
        plan_for(three_runs, "0")


def test_near_duplicates_are_named_and_stay(three_runs: Path) -> None:
    like = next(row for row in read_images(Path("data/images.parquet")) if row.group not in ("", row.id))
    plan = plan_for(three_runs, like.group)
    assert [(row.id, row.path) for row in plan.near] == [(like.id, like.path)]
    assert plan_for(three_runs, like.group, like.id).near == []


def id_of(number: int) -> str:
    return hashlib.sha256(photo(number)).hexdigest()


def test_a_remote_called_cache_does_not_stand_for_the_cache(one_run: Path, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    add_remote(one_run, "cache", tmp_path / "backup")
    plan = plan_for(one_run, id_of(0))
    assert (plan.held["cache"], plan.is_gone) == ({}, False)
    delete(one_run, plan)
    assert list(objects_that_contain(one_run, photo(0))) == []


def test_what_nobody_looked_into_is_not_recorded_as_forgotten(one_run: Path, tmp_path: Path) -> None:
    add_remote(one_run, "backup", tmp_path / "backup")
    shutil.copytree(".dvc/cache/files", tmp_path / "unplugged/files")
    shutil.rmtree("data")
    lose_shards(Project(one_run))
    plan = plan_for(one_run, id_of(0))
    assert plan.is_gone
    assert record(one_run, plan, delete(one_run, plan))["objects"] == []
    (tmp_path / "unplugged").rename(tmp_path / "backup")
    plan = plan_for(one_run, id_of(0))
    assert len(plan.held["backup"]) == 3
    assert record(one_run, plan, delete(one_run, plan))["objects"] == sorted(plan.held["backup"])


def test_the_only_shard_that_can_have_held_it_is_not_known_to_be_gone_while_a_remote_is_away(
    one_run: Path, tmp_path: Path
) -> None:
    add_remote(one_run, "backup", tmp_path / "backup")
    first = plan_for(one_run, id_of(0))
    delete(one_run, first)
    again = plan_for(one_run, id_of(0))
    assert again.certain == first.holders.keys()
    assert record(one_run, again, {"backup": "unplugged"})["objects"] == []
    (tmp_path / "backup").mkdir()
    again = plan_for(one_run, id_of(0))
    assert record(one_run, again, {})["objects"] == sorted(first.holders)


KILLED = """\
import os
from pathlib import Path
from tasks.stage import whole_dir, whole_file

folder = Path("data").resolve()
with whole_dir(folder / "raw") as raw, whole_file(folder / "explanations.parquet") as overlays:
    (raw / "raw-00000.parquet").write_bytes(b"{photo}")
    overlays.write_bytes(b"{photo}")
    os._exit(9)
"""


def test_each_photo_has_remotes_of_its_own_that_were_away(one_run: Path, tmp_path: Path) -> None:
    add_remote(one_run, "backup", tmp_path / "backup")
    shutil.copytree(".dvc/cache/files", tmp_path / "unplugged/files")
    for number in (0, 4):
        plan = plan_for(one_run, id_of(number))
        record(one_run, plan, delete(one_run, plan))
        if number == 0:
            (tmp_path / "unplugged").rename(tmp_path / "backup")
    (tmp_path / "backup").rename(tmp_path / "unplugged")
    assert plan_for(one_run, id_of(4)).pending == set()
    assert plan_for(one_run, id_of(0), id_of(4)).pending == {"backup"}
    assert plan_for(one_run, id_of(2)).pending == set()


def test_what_was_killed_left_nothing_of_it(one_run: Path) -> None:
    script = KILLED.format(photo=photo(0).decode())
    aside = one_run / ".dvc/tmp/exps/standalone/tmp1"
    (aside / "data").mkdir(parents=True)
    shutil.copy("dvc.yaml", aside)
    for folder in (one_run, aside):
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        assert subprocess.run([sys.executable, "-c", script], env=env, cwd=folder).returncode == 9
    leave_behind()
    for name in (".dvc/cache/files/md5/ab/.vNf7.tmp", "data/.vNf8.tmp", "data/raw/.vNf9.tmp"):  # of DVC
        (one_run / name).parent.mkdir(exist_ok=True)
        (one_run / name).write_bytes(photo(0))
    assert sum(holds(path, photo(0)) for path in one_run.rglob("*")) == 2 + 2 * 2 + 3
    delete(one_run, plan_for(one_run, id_of(0)))
    assert not [path for path in one_run.rglob("*") if holds(path, photo(0))]
    assert not list(one_run.parent.glob(".one-rebuild-*"))
