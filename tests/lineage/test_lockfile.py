"""dvc.lock as data: what DVC wrote is read, what it did not write is refused in one line."""

import json

import pytest

from lineage import lockfile
from lineage.lockfile import LockedPath
from tasks.stage import PawlineError

LOCK = b"""\
schema: '2.0'
stages:
  ingest:
    cmd: python -m tasks.ingest
    deps:
    - {path: tasks/ingest.py, hash: md5, md5: 11aa, size: 10}
    params:
      params.yaml:
        data:
          path:
          splits: {train: 0.8, val: 0.2}
    outs:
    - {path: data/raw, hash: md5, md5: 22bb.dir, size: 300, nfiles: 2}
  head:
    cmd: python -m tasks.head
    deps:
    - {path: data/raw, hash: md5, md5: 22bb.dir, size: 300, nfiles: 2}
    outs:
    - {path: models/head.keras, hash: md5, md5: 33cc, size: 7}
  judge:
    cmd: python -m tasks.judge
    deps:
    - {path: models/head.keras, hash: md5, md5: 33cc, size: 7}
    outs:
    - {path: metrics.json, hash: md5, md5: 44dd, size: 2}
"""


def test_a_stage_has_its_command_its_parameters_by_dotted_key_and_its_paths() -> None:
    lock = lockfile.parse_lock(LOCK)
    ingest = lock["ingest"]
    assert ingest.command == "python -m tasks.ingest"
    assert ingest.params == {"data.path": None, "data.splits.train": 0.8, "data.splits.val": 0.2}
    assert ingest.deps == (LockedPath("tasks/ingest.py", "11aa", 10),)
    assert ingest.outs == (LockedPath("data/raw", "22bb.dir", 300, files=2),)
    assert (ingest.outs[0].is_folder, ingest.deps[0].is_folder) == (True, False)
    assert list(lock) == ["ingest", "head", "judge"]
    assert lock["head"].params == {}


def test_upstream_of_an_output_are_the_stages_it_comes_from_and_no_others() -> None:
    lock = lockfile.parse_lock(LOCK)
    assert lockfile.upstream(lock, "models/head.keras") == ["ingest", "head"]
    assert lockfile.producers(lock) == {"data/raw": "ingest", "models/head.keras": "head", "metrics.json": "judge"}
    with pytest.raises(PawlineError, match=r"tasks/ingest.py is no output of a stage: dvc.lock has data/raw, models"):
        lockfile.upstream(lock, "tasks/ingest.py")


def test_an_output_is_found_by_its_very_path() -> None:
    lock = lockfile.parse_lock(LOCK)
    found = lockfile.find_out(lock, "models/head.keras")
    assert found is not None
    assert found.md5 == "33cc"
    assert lockfile.find_out(lock, "data") is None
    assert lockfile.find_out(lock, "tasks/ingest.py") is None, "what is only read is no output"


def test_a_folders_list_gives_its_files() -> None:
    content = b'[{"md5": "aa", "relpath": "a.json"}, {"md5": "bb", "relpath": "sub/b.json"}]'
    assert lockfile.parse_folder(content) == {"a.json": "aa", "sub/b.json": "bb"}


def test_flattening_keeps_empty_sections_and_lists() -> None:
    nested = {"a": {"b": {"c": 1}, "d": {}}, "e": [1, {"f": 2}], "g": None}
    assert dict(lockfile.flatten(nested)) == {"a.b.c": 1, "a.d": {}, "e": [1, {"f": 2}], "g": None}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"stages:\n",
        b"stages: []",
        b"- stages",
        b"stages: {a: {deps: []}}",
        b"stages: {a: {cmd: x, deps: [1]}}",
        b"stages: {a: {cmd: x, outs: [{path: p, size: 1}]}}",
        b"stages: {a: {cmd: x, outs: [{path: p, md5: q, size: .inf}]}}",
        b"stages: {a: {cmd: x, params: {params.yaml: {d: 2020-99-99}}}}",
        b"stages: {a: {cmd: x, params: &p {p: {q: *p}}}}",
        b"<<<<<<< HEAD\nstages: {}\n=======\n",
        b"stages: {a: {cmd: x}, a: {cmd: y}}",
        b"!!python/object:os.system x",
        b"!!int x",
        b"[" * 500,
        b"\xff\xfe",
        b"\x00",
    ],
)
def test_what_dvc_did_not_write_is_refused_in_one_line_that_names_the_file(content: bytes) -> None:
    with pytest.raises(PawlineError, match=r"^dvc\.lock of v1 ") as caught:
        lockfile.parse_lock(content, origin="dvc.lock of v1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("md5", ["..../../x", "aa/b", "", "zz", 1])
def test_what_the_caches_files_are_called_by_leads_nowhere(md5: object) -> None:
    content = json.dumps([{"md5": md5, "relpath": "a"}]).encode()
    with pytest.raises(PawlineError, match="tampered: a list of files"):
        lockfile.parse_folder(content)
    stages = {"a": {"cmd": "x", "outs": [{"path": "p", "md5": md5, "size": 1}]}}
    if md5 != 1:  # in YAML a number may be meant
        with pytest.raises(PawlineError, match="is not what DVC writes"):
            lockfile.parse_lock(json.dumps({"stages": stages}).encode())


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/passwd", "a//b", ".", "", "a\0b", 1])
def test_a_folders_list_names_nothing_outside_of_it(path: object) -> None:
    content = json.dumps([{"md5": "aa", "relpath": path}]).encode()
    with pytest.raises(PawlineError, match="tampered: a list of files in DVC's cache is not what DVC writes"):
        lockfile.parse_folder(content)
