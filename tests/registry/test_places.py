"""The cache and the remotes: what is there, and what cannot be reached is not taken for empty."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from lineage.runs import Project
from registry import places
from registry.places import named_objects
from tasks.stage import PawlineError
from tests.s3 import Bucket


def add_remote(project: Path, name: str, url: Path | str) -> None:
    with (project / ".dvc/config").open("a", encoding="utf-8") as config:
        config.write(f"['remote \"{name}\"']\n    url = {url}\n")


def test_what_is_where_and_deleting_it(three_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(".dvc/cache/files", tmp_path / "backup/files")
    (tmp_path / "fresh").mkdir()
    for name in ("backup", "fresh", "unplugged"):
        add_remote(three_runs, name, tmp_path / name)
    (three_runs / ".dvc/cache/files/md5/ab").mkdir(exist_ok=True)
    (three_runs / ".dvc/cache/files/md5/ab/unfinished.tmp").write_bytes(b"DVC's own")
    store = Project(three_runs).store
    with places.opened(store) as opened:
        assert [place.name for place in opened.all] == [places.CACHE, "backup", "fresh"]
        assert opened.unreachable == {"unplugged": f"{tmp_path / 'unplugged'} is not there"}
        assert store.remotes == ["backup", "fresh"]
        objects = opened.cache.objects()
        found = [path for path in Path(".dvc/cache/files/md5").rglob("*") if path.is_file()]
        assert objects == {path.parent.name + path.name for path in found if path.suffix != ".tmp"}
        assert opened.cache.sizes(objects) == {md5: store.object_path(md5).stat().st_size for md5 in objects}
        backup, fresh = opened.remotes
        assert (backup.objects(), fresh.objects()) == (objects, set())
        gone = sorted(objects)[0]
        backup.delete([gone])
        assert backup.objects() == objects - {gone}
        assert store.has(gone)
        with pytest.raises(PawlineError, match="Unable to acquire lock"), places.opened(Project(three_runs).store):
            pass


def test_a_bucket_to_which_nothing_was_pushed_yet_can_be_reached(one_run: Path, bucket: Bucket) -> None:
    for name, url in (("fresh", f"{bucket.url}/pawline"), ("gone", f"{bucket.url}-gone/pawline")):
        add_remote(one_run, name, url)
    store = Project(one_run).store
    with places.opened(store) as opened:
        [fresh] = opened.remotes
        assert fresh.name == "fresh"
        assert fresh.objects() == set()
        assert fresh.sizes(["d41d8cd98f00b204e9800998ecf8427e"]) == {}
        assert list(opened.unreachable) == ["gone"]


def test_an_entry_of_the_run_cache_goes_with_what_it_would_bring_back(three_runs: Path) -> None:
    store = Project(three_runs).store
    before = places.run_cache_entries(store)
    named = {path: named_objects(path.read_bytes(), origin=str(path)) for path in before}
    folder = next(md5 for outs in named.values() for md5, path in outs.items() if path == "data/features")
    listed = json.loads(store.object_path(folder).read_bytes())
    shard = next(file["md5"] for file in listed if file["relpath"] == "train-00000-pooled.npy")
    folders = {md5 for outs in named.values() for md5 in outs if md5.endswith(".dir")}
    with_it = {md5 for md5 in folders if shard in store.object_path(md5).read_text()}
    assert folder in with_it
    holding = [path for path, outs in named.items() if with_it & set(outs)]
    assert places.drop_run_cache(store, {shard}) == len(holding) > 0
    assert set(before) - set(places.run_cache_entries(store)) == set(holding)
    assert places.drop_run_cache(store, {shard}) == 0


@contextmanager
def at_work() -> Iterator[int]:
    """A process that is there, as a DVC command would be."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            while not psutil.Process(process.pid).cmdline():  # it has none for a moment
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


def writing(path: str, pid: int) -> str:
    """What DVC's rwlock says while a command writes to a path."""
    return json.dumps({"write": {path: {"pid": pid, "cmd": "dvc repro"}}})


def test_who_is_at_work_is_named_while_it_lives(tmp_path: Path) -> None:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    places.check_idle(tmp_path)
    files = {
        ".dvc/tmp/rwlock": writing("one.txt", 0),
        ".dvc/tmp/exps/rwlock": json.dumps({"read": {"workspace": [{"pid": 0, "cmd": "dvc exp run"}]}}),
        ".dvc/tmp/exps/standalone/tmp1/.dvc/tmp/lock": " 0\n",
        ".dvc/tmp/exps/tmp2/.dvc/tmp/rwlock": writing("one.txt", 0),
        ".dvc/tmp/exps/run/workspace/workspace.json": json.dumps({"pid": 0, "returncode": None}),
        ".dvc/tmp/exps/celery/worker.json": json.dumps({"pid": 0, "returncode": None}),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with at_work() as pid:
            path.write_text(content.replace("0", str(pid)))
            with pytest.raises(PawlineError, match=rf"^sleep 60 is at work here \(pid {pid}\): wait for it to end"):
                places.check_idle(tmp_path)
            os.utime(path, (0, 0))  # the process that this names ended long ago: its id is another's now
            places.check_idle(tmp_path)
            os.utime(path)
        places.check_idle(tmp_path)
    with at_work() as pid:
        path.write_text(json.dumps({"pid": pid, "returncode": 1}))
        places.check_idle(tmp_path)
    for content in ("", "[]", '{"write": 5}', '{"write": {"one.txt": {}}}'):
        (tmp_path / ".dvc/tmp/rwlock").write_text(content)
        with pytest.raises(PawlineError, match=r"rwlock is not what DVC writes"):
            places.check_idle(tmp_path)


def test_a_damaged_list_of_outputs_is_one_line() -> None:
    md5 = "d41d8cd98f00b204e9800998ecf8427e"
    content = f"stages: {{a: {{outs: [{{md5: {md5}, path: x}}]}}}}\nouts: [{{md5: {md5}.dir, path: y}}, {{etag: z}}]\n"
    assert named_objects(content.encode(), origin="dvc.lock") == {md5: "x", f"{md5}.dir": "y"}
    for damaged in (
        "stages: []",
        "stages: {a: 5}",
        "stages: {a: {outs: 5}}",
        "outs: [{md5: 5, path: x}]",
        "outs: [{md5: x}]",
    ):
        with pytest.raises(PawlineError, match=r"^dvc\.lock of v1 is not what DVC writes .*: bring it back from git"):
            named_objects(damaged.encode(), origin="dvc.lock of v1")
