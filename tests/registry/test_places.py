"""The cache and the remotes: what is there, and what cannot be reached is not taken for empty."""

import json
import shutil
from pathlib import Path

import pytest

from lineage.runs import Project
from registry import places
from registry.places import named_objects
from tasks.stage import PawlineError


def add_remote(project: Path, name: str, url: Path) -> None:
    with (project / ".dvc/config").open("a", encoding="utf-8") as config:
        config.write(f"['remote \"{name}\"']\n    url = {url}\n")


def test_what_is_where_and_deleting_it(three_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(".dvc/cache/files", tmp_path / "backup/files")
    (tmp_path / "fresh").mkdir()
    for name in ("backup", "fresh", "unplugged"):
        add_remote(three_runs, name, tmp_path / name)
    (three_runs / ".dvc/cache/files/md5/ab/unfinished.tmp").write_bytes(b"DVC's own")
    store = Project(three_runs).store
    with places.opened(store) as opened:
        assert [place.name for place in opened.all] == ["cache", "backup", "fresh"]
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


def test_an_entry_of_the_run_cache_goes_with_what_it_would_bring_back(three_runs: Path) -> None:
    store = Project(three_runs).store
    before = places.run_cache_entries(store)
    named = {path: named_objects(path.read_bytes(), origin=str(path)) for path in before}
    folder = next(md5 for outs in named.values() for md5, path in outs.items() if path == "data/features")
    listed = json.loads(store.object_path(folder).read_bytes())
    shard = next(file["md5"] for file in listed if file["relpath"] == "train-00000-pooled.npy")
    holding = [path for path, outs in named.items() if folder in outs or shard in outs]
    assert places.drop_run_cache(store, {shard}) == len(holding) > 0
    assert set(before) - set(places.run_cache_entries(store)) == set(holding)
    assert places.drop_run_cache(store, {shard}) == 0
