import json
import os
import subprocess
from pathlib import Path

import pytest

from flows.dvc_graph import plan_stages
from flows.mending import mend
from lineage.lockfile import parse_lock
from tests.flows.conftest import dvc

CONFLICT = b"<<<<<<< HEAD\n=======\n>>>>>>> theirs\n"


def test_a_dvc_lock_that_is_cut_off_loses_the_stage_that_is_not_whole(recorded: Path) -> None:
    whole = (recorded / "dvc.lock").read_bytes()
    stages = parse_lock(whole)
    for length in range(0, len(whole) + 1, 23):
        (recorded / "dvc.lock").write_bytes(whole[:length])
        mend(recorded)
        kept = parse_lock((recorded / "dvc.lock").read_bytes()) if (recorded / "dvc.lock").exists() else {}
        for name, stage in list(kept.items())[:-1]:
            assert stage == stages[name]
        for name, stage in list(kept.items())[-1:]:  # a cut between two lines shows to DVC: an output has no digest
            assert stages[name].outs[: len(stage.outs)] == stage.outs
            assert stages[name].deps[: len(stage.deps)] == stage.deps
        assert len(kept) >= sum(whole.index(f"  {name}:".encode()) < length for name in stages) - 1


@pytest.mark.parametrize("between_lines", [False, True])
def test_dvc_finds_what_was_lost_in_its_run_cache(recorded: Path, between_lines: bool) -> None:
    whole = (recorded / "dvc.lock").read_bytes()
    middle = len(whole) // 2
    (recorded / "dvc.lock").write_bytes(whole[: whole.index(b"    outs:", middle) if between_lines else middle])
    assert plan_stages() == ["source", "left", "right", "join"]
    assert dvc("repro").count("Running stage") == 1, "source, which always runs"
    assert (recorded / "dvc.lock").read_bytes() == whole


def test_an_rwlock_that_is_cut_off_is_removed(recorded: Path) -> None:
    rwlock = recorded / ".dvc/tmp/rwlock"
    rwlock.write_text('{"write": {"left.txt')
    mend(recorded)
    assert not rwlock.exists()
    dvc("repro")
    left = rwlock.read_bytes()
    mend(recorded)
    assert rwlock.read_bytes() == left


def test_who_was_killed_leaves_the_rwlock_and_who_is_alive_stays(recorded: Path) -> None:
    """Killed before a restart, its number is another process's by now, and DVC would wait for that one."""
    rwlock = recorded / ".dvc/tmp/rwlock"
    killed = {"pid": os.getppid(), "cmd": "dvc repro"}
    source, left = (str(recorded / name) for name in ("source.txt", "left.txt"))
    rwlock.write_text(json.dumps({"read": {source: [killed]}, "write": {left: killed}}))
    os.utime(rwlock, (0, 0))
    with pytest.raises(subprocess.CalledProcessError):
        dvc("repro")
    os.utime(rwlock, (0, 0))
    mend(recorded)
    assert json.loads(rwlock.read_bytes()) == {"read": {}, "write": {}}
    dvc("repro")
    alive = {"pid": os.getpid(), "cmd": "dvc repro"}
    rwlock.write_text(json.dumps({"read": {}, "write": {left: alive}}))
    before = rwlock.read_bytes()
    mend(recorded)
    assert rwlock.read_bytes() == before


@pytest.mark.parametrize("wrong", [CONFLICT, b"stages: {left: 3}\n", bytes(range(256))])
def test_what_no_kill_left_is_left_alone(recorded: Path, wrong: bytes) -> None:
    content = (recorded / "dvc.lock").read_bytes()
    (recorded / "dvc.lock").write_bytes(wrong + content)
    mend(recorded)
    assert (recorded / "dvc.lock").read_bytes() == wrong + content


def test_nothing_is_mended_while_dvc_is_at_work(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0.3)  # of three seconds, after which DVC itself gives up
    from dvc.repo import Repo, lock_repo

    with Repo() as repo, lock_repo(repo):
        (recorded / "dvc.lock").write_bytes(b"")
        mend(recorded)
        assert (recorded / "dvc.lock").read_bytes() == b""
    mend(recorded)
    assert not (recorded / "dvc.lock").exists()
