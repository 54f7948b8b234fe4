"""Records of finished shards: what they were made from, under which key, and whether they are sound."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import reuse, seals
from tasks.reuse import Output
from tests.conftest import ROOT


@pytest.fixture
def output(tmp_path: Path) -> Output:
    made = Output(tmp_path / "out", tmp_path / "out.json")
    made.folder.mkdir()
    (made.folder / "1.npy").write_bytes(b"one")
    reuse.write_record(made, "key", {"photos": seals.digests_of([made.folder / "1.npy"])})
    return made


def test_shards_of_the_same_key_are_known(output: Output, tmp_path: Path) -> None:
    assert list(reuse.finished_shards(output, "key", tmp_path).made["photos"]) == ["1.npy"]
    assert reuse.finished_shards(output, "another key", tmp_path).made == {}
    assert reuse.finished_shards(Output(output.folder, tmp_path / "none.json"), "key", tmp_path).made == {}
    assert reuse.finished_shards(Output(tmp_path / "none", output.record), "key", tmp_path).made == {}


def test_a_damaged_or_missing_file_is_no_file(output: Output, tmp_path: Path) -> None:
    finished = reuse.finished_shards(output, "key", tmp_path)
    assert list(finished.files("photos")) == ["1.npy"]
    (output.folder / "1.npy").write_bytes(b"One")
    assert reuse.finished_shards(output, "key", tmp_path).files("photos") == {}
    (output.folder / "1.npy").unlink()
    assert reuse.finished_shards(output, "key", tmp_path).files("photos") == {}


def test_linked_or_copied_under_another_name(output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = reuse.finished_shards(output, "key", tmp_path)
    files = finished.files("photos")
    target = output.folder / "2.npy"
    assert finished.link(files, lambda _: target) == {"2.npy": files["1.npy"]}
    assert target.samefile(output.folder / "1.npy")

    def no_links(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    finished.link(files, lambda _: target)
    assert target.read_bytes() == b"one"
    assert not target.samefile(output.folder / "1.npy")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    """A DVC project of one stage, its output made and removed, as DVC does before it runs the stage again."""
    output = Output(tmp_path / "data" / "out", tmp_path / "data" / "out.json")
    monkeypatch.chdir(tmp_path)
    program = "from pathlib import Path; from tasks import reuse, seals; out = Path('data/out'); "
    program += "out.mkdir(parents=True); "
    program += "(out / '1.npy').write_bytes(b'one'); made = {'photos': seals.digests_of([out / '1.npy'])}; "
    program += "reuse.write_record(reuse.Output(out, Path('data/out.json')), 'key', made)"
    Path("make.py").write_text(program)
    described = {"cmd": f"{sys.executable} make.py", "deps": ["make.py"], "outs": ["data/out", "data/out.json"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"make": described}}))
    dvc("init", "--no-scm", "--quiet")
    dvc("config", "cache.dir", "elsewhere")
    dvc("repro", "--quiet")
    shutil.rmtree(output.folder)
    output.record.unlink()
    return output


def dvc(*arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, env=environment)


def test_what_dvc_removed_is_found_in_its_cache(project: Output, tmp_path: Path) -> None:
    finished = reuse.finished_shards(project, "key", tmp_path)
    assert list(finished.files("photos")) == ["1.npy"]
    assert finished.paths["1.npy"].resolve().is_relative_to(tmp_path / "elsewhere")
    assert reuse.record_digest(project, tmp_path)
    shutil.rmtree(tmp_path / "elsewhere")
    assert reuse.finished_shards(project, "key", tmp_path).made == {}
    (tmp_path / "dvc.lock").unlink()
    assert reuse.finished_shards(project, "key", tmp_path).made == {}
    assert reuse.record_digest(project, tmp_path) == ""


def test_a_key_is_of_facts_and_of_the_stages_code() -> None:
    assert reuse.make_key("preprocess", {"size": 1}) == reuse.make_key("preprocess", {"size": 1})
    assert reuse.make_key("preprocess", {"size": 1}) != reuse.make_key("preprocess", {"size": 2})
    assert reuse.make_key("preprocess", {"size": 1}) != reuse.make_key("validate", {"size": 1})
