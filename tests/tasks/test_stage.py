"""The shell around stages: exit codes, whole outputs, unfinished work, no orphans."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import stage
from tests.conftest import ROOT

FOLDER = Path("out")


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"from tasks import stage\n{code}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_stage_that_ends_well_logs_to_stdout() -> None:
    done = python("import logging\nstage.run(lambda: logging.getLogger('x').info('made %d', 3))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "made 3\n", "")


def test_what_the_user_can_put_right_is_one_line() -> None:
    done = python("def main(): raise stage.PawlineError('no photos: give some')\nstage.run(main)")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: no photos: give some\n")


def test_names_in_it_neither_break_the_line_nor_steer_a_terminal() -> None:
    message = "'bad: a\\nb\\x1b[2J\\u202e\u00e9'"
    done = python(f"def main(): raise stage.PawlineError({message})\nstage.run(main)", PYTHONUTF8="1")
    assert done.stderr == "error: bad: a\\nb\\x1b[2J\\u202e\u00e9\n"


def test_what_may_be_right_again_by_itself_has_an_exit_code_of_its_own() -> None:
    done = python("def main(): raise stage.TemporaryError('no network: try later')\nstage.run(main)")
    assert (done.returncode, done.stdout, done.stderr) == (os.EX_TEMPFAIL, "", "error: no network: try later\n")


def test_a_stage_may_open_as_many_files_as_the_system_lets_it() -> None:
    limit = "import resource\nlimits = lambda: resource.getrlimit(resource.RLIMIT_NOFILE)\n"
    low = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits()[1]))\n"
    done = python(f"{limit}{low}stage.run(lambda: print(limits()[0] == limits()[1] > 64))")
    assert (done.returncode, done.stdout) == (0, "True\n")


def test_ctrl_c() -> None:
    done = python("import os, signal\nstage.run(lambda: os.kill(os.getpid(), signal.SIGINT))")
    assert (done.returncode, done.stderr) == (130, "interrupted: the next run carries on from here\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a device that is always full")
def test_a_full_disk_is_one_line() -> None:
    done = python("stage.run(lambda: open('/dev/full', 'wb', 0).write(b'x'))")
    assert (done.returncode, done.stderr) == (1, "error: no space left on the disk: make room and run again\n")


MEMORY = "out of memory: close other programs, or lower batch sizes,"
ROOM = "no space left on the disk: make room"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(30, "Read-only file system", "x"), "the file system is read-only (x): make it writable"),
        (OSError(24, "Too many open files"), "too many open files: allow more (`ulimit -n`)"),
        (OSError(5, "Input/output error"), "the disk failed: look after it"),
        (OSError("48 requested and 0 written"), ROOM),  # NumPy's
        (RuntimeError("h5: errno = 28, error message = 'No space left on device'"), ROOM),
        (MemoryError(), MEMORY),
        (ImportError("libx.so: failed to map segment from shared object"), MEMORY),
    ],
)
def test_what_gives_way_below_a_stage_is_one_line(error: Exception, line: str) -> None:
    assert stage.gave_way(error) == f"{line} and run again"
    hiding = IndexError("raised while that one was handled")
    hiding.__context__ = error
    assert stage.gave_way(hiding) == f"{line} and run again"
    assert stage.gave_way(OSError(2, "No such file or directory")) is None


def test_what_gives_way_while_a_stage_imports_is_one_line(workdir: Path) -> None:
    """Also before the stage's own code has begun."""
    (workdir / "numpy.py").write_text("raise OSError(24, 'Too many open files')")
    command = [sys.executable, "-m", "tasks.features"]
    env = {**os.environ, "PYTHONPATH": f"{workdir}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    line = "error: too many open files: allow more (`ulimit -n`) and run again\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_a_bug_keeps_its_traceback() -> None:
    done = python("stage.run(lambda: 1 / 0)")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_polite_kill_removes_what_is_unfinished(workdir: Path) -> None:
    done = python(
        """
import os, signal
from collections.abc import Callable
from pathlib import Path
def main():
    with stage.whole_dir(Path("out")) as unfinished:
        (unfinished / "half").touch()
        os.kill(os.getpid(), signal.SIGTERM)
stage.run(main)"""
    )
    assert (done.returncode, done.stderr) == (143, "")
    assert list(workdir.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent died")
def test_a_stage_ends_with_a_dvc_that_was_killed(workdir: Path) -> None:
    code = "import time\nfrom pathlib import Path\nfrom tasks import stage\n"
    code += "stage.run(lambda: (Path('up').touch(), time.sleep(120)))"
    parent_code = f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {code!r}])\n"
    parent_code += "print(child.pid, flush=True)\nchild.wait()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": "features"}
    with subprocess.Popen([sys.executable, "-c", parent_code], env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_until(Path("up").exists)
        assert is_running(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not is_running(child))


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "waited 20 s"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """A zombie, which waits for whoever inherited it, runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_whole_folder_replaces_the_old_one(workdir: Path) -> None:
    for name in ("old", "new"):
        with stage.whole_dir(FOLDER) as unfinished:
            (unfinished / name).write_text(name)
    assert [path.name for path in FOLDER.iterdir()] == ["new"]
    assert list(workdir.iterdir()) == [workdir / "out"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(workdir: Path) -> None:
    FOLDER.mkdir()
    (FOLDER / "old").touch()
    fail_within_dir()
    assert [path.name for path in workdir.iterdir()] == ["out"]
    assert [path.name for path in FOLDER.iterdir()] == ["old"]


def fail_within_dir() -> None:
    def fail() -> None:
        with stage.whole_dir(FOLDER) as unfinished:
            (unfinished / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()


def test_what_a_killed_run_left_is_not_part_of_the_next(workdir: Path) -> None:
    left = workdir / ".out.unfinished"
    left.mkdir()
    (left / "stale").touch()
    with stage.whole_dir(FOLDER) as unfinished:
        (unfinished / "new").touch()
    assert [path.name for path in FOLDER.iterdir()] == ["new"]


def test_a_whole_file(workdir: Path) -> None:
    out = Path("a/b.json")
    with stage.whole_file(out) as unfinished:
        assert unfinished.suffix == ".json"
        assert unfinished.parent == out.parent
        unfinished.write_text("old")
        assert not out.exists()
    assert out.read_text() == "old"

    def fail() -> None:
        with stage.whole_file(out) as unfinished:
            unfinished.write_text("half")
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert [path.name for path in out.parent.iterdir()] == ["b.json"]
    assert out.read_text() == "old"


def test_unfinished_work_outlives_a_failure_and_goes_at_the_end(workdir: Path) -> None:
    def fail(key: str) -> None:
        with stage.scratch_dir("features", key) as scratch:
            (scratch / "shard").touch()
            raise ValueError

    for key in ("one", "two"):
        with pytest.raises(ValueError, match=r"^$"):
            fail(key)
    with stage.scratch_dir("train_head", "one"):
        pass
    assert [path.name for path in Path(".pawline/features").iterdir()] == ["two"]  # other work is dropped
    assert not Path(".pawline/train_head").exists()
    with stage.scratch_dir("features", "two") as scratch:
        assert (scratch / "shard").exists()
    assert list(workdir.iterdir()) == []


def test_unfinished_work_may_be_on_another_disk(workdir: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (workdir / ".pawline").symlink_to(tmp_path_factory.mktemp("disk"))
    with stage.scratch_dir("features", "one") as scratch:
        (scratch / "shard").touch()
    assert (workdir / ".pawline").is_symlink()
    assert list((workdir / ".pawline").iterdir()) == []


def test_the_key_of_unfinished_work_is_parameters_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    params = {"size_px": 96}
    key = stage.digest_inputs(params, tmp_path)
    os.utime(tmp_path / "a", (1, 1))
    assert stage.digest_inputs(params, tmp_path) == key
    assert stage.digest_inputs({"size_px": 97}, tmp_path) != key
    (tmp_path / "a").write_bytes(b"2")
    assert stage.digest_inputs(params, tmp_path) != key
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"1")
    assert stage.digest_inputs(params, tmp_path) != key


def test_json_is_sorted_and_readable(tmp_path: Path) -> None:
    stage.write_json({"b": 0.1, "a": "Kätzchen"}, tmp_path / "x.json")
    assert stage.read_json(tmp_path / "x.json") == {"b": 0.1, "a": "Kätzchen"}
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "a": "Kätzchen",\n  "b": 0.1\n}\n'


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert stage.sha256_of(tmp_path / "abc") == digest


def test_help_is_the_module_and_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    parser = stage.parser("Stage `x`.\n\nreads   a\nwrites  b")
    stage.add_path(parser, "--out-dir", "models/x", "writes: the model")
    with pytest.raises(SystemExit, match="0"):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    assert "reads   a\nwrites  b" in text
    assert "writes: the model (default: models/x)" in text
    assert parser.parse_args([]).out_dir == Path("models/x")
    assert parser.parse_args(["--out-dir", "y"]).out_dir == Path("y")
