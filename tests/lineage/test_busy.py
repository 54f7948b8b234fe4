import json
import os
from pathlib import Path

import psutil
import pytest
from dvc.lock import make_lock

from lineage.busy import check_at_rest, dvc_at_work, look
from tasks.stage import PawlineError


def write_rwlock(root: Path, pid: int) -> None:
    (root / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
    writing = {"data/raw": {"pid": pid, "cmd": "dvc repro"}}
    (root / ".dvc/tmp/rwlock").write_text(json.dumps({"read": {}, "write": writing}))


def test_a_workspace_in_which_nothing_works_is_at_rest(tmp_path: Path) -> None:
    check_at_rest(tmp_path, look(tmp_path))
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    write_rwlock(tmp_path, 2**22 + 1)  # of no process: it was killed
    check_at_rest(tmp_path, look(tmp_path))
    write_rwlock(tmp_path, os.getpid())
    os.utime(tmp_path / ".dvc/tmp/rwlock", (0, 0))  # long before this process: its number was another's
    check_at_rest(tmp_path, look(tmp_path))
    (tmp_path / ".dvc/tmp/rwlock").write_text('{"write": {"data')
    check_at_rest(tmp_path, look(tmp_path))


def test_a_run_at_work_is_named(tmp_path: Path) -> None:
    before = look(tmp_path)
    write_rwlock(tmp_path, os.getpid())
    message = rf"^a run changes the workspace \(process {os.getpid()}\), and what it replaces cannot be verified: run"
    with pytest.raises(PawlineError, match=message):
        check_at_rest(tmp_path, before)


def test_a_run_that_ended_meanwhile_is_noticed(tmp_path: Path) -> None:
    before = look(tmp_path)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    with pytest.raises(PawlineError, match=r"^a run changes the workspace \(it has just ended\)"):
        check_at_rest(tmp_path, before)


def test_dvc_is_at_work_while_it_holds_its_lock_or_runs_a_stage(tmp_path: Path) -> None:
    own = psutil.Process().cmdline()[-1]  # pytest's, or of a worker of it
    assert dvc_at_work(tmp_path) is None
    lock = tmp_path / ".dvc/tmp/lock"
    lock.parent.mkdir(parents=True)
    with make_lock(str(lock)):
        assert str(dvc_at_work(tmp_path)).endswith(own)
    assert dvc_at_work(tmp_path) is None
    write_rwlock(tmp_path, os.getpid())
    assert str(dvc_at_work(tmp_path)).endswith(own)
    write_rwlock(tmp_path, 2**22 + 1)  # of no process
    assert dvc_at_work(tmp_path) is None
