import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flows.conftest import FAILS, SLEEPS, processes_in

PAWLINE = str(Path(sys.executable).with_name("pawline"))


def start(*arguments: str, cwd: Path, prefect_url: str | None = None) -> subprocess.Popen[str]:
    """Start `pawline` as a terminal does: in a process group of its own. No URL: with a temporary Prefect server."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    if prefect_url is not None:
        env["PREFECT_API_URL"] = prefect_url
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [PAWLINE, *arguments], cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def run(*arguments: str, cwd: Path, prefect_url: str | None = None) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    process = start(*arguments, cwd=cwd, prefect_url=prefect_url)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"ended without {words!r}")


def test_help_comes_at_once_and_teaches(tmp_path: Path) -> None:
    code = "import sys, flows.cli; print([m for m in ('prefect', 'dvc', 'tensorflow', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
    assert "run " in run("--help", cwd=tmp_path)[1]
    exit_code, out, _ = run("run", "--help", cwd=tmp_path)
    assert exit_code == 0
    assert "pawline run evaluate" in out
    assert "--force" in out


def test_what_cannot_start_gets_one_line(project: Path, tmp_path: Path) -> None:
    exit_code, out, err = run("run", cwd=tmp_path)
    assert (exit_code, out) == (1, "")
    assert err == f"error: no dvc.yaml in {tmp_path} or above it: change to a checkout of Pawline first\n"
    exit_code, out, err = run("run", "jion", cwd=project)
    assert (exit_code, out) == (1, "")
    assert err == "error: unknown stage jion: dvc.yaml has source, left, right, join\n"
    exit_code, out, err = run("run", cwd=project, prefect_url="http://127.0.0.1:9/api")
    assert exit_code == 1
    assert err.startswith("error: no Prefect server at http://127.0.0.1:9/api")
    assert err.count("\n") == 1


def test_a_run_from_a_folder_within_ends_with_what_came_out(project: Path, prefect_url: str) -> None:
    (project / "docs").mkdir()
    metrics = project / "reports/metrics/evaluation.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"accuracy": 0.98765, "selected": "stage2", "split": "test"}))
    (project / "reports/index.html").touch()
    exit_code, out, err = run("run", cwd=project / "docs", prefect_url=prefect_url)
    assert (exit_code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["pawline    | starting Prefect", "source     | > python -m tasks.source"]
    assert lines[-1].startswith("4 of 4 stages run, 0 cached, in ")
    assert lines[-1].endswith(" s; test accuracy 0.9877 (stage2); see reports/index.html")
    assert (project / "join.txt").exists()
    assert not list((project / "docs").iterdir())


def test_a_failed_stage_gets_one_line_and_exit_code_1(project: Path, prefect_url: str) -> None:
    (project / "tasks/left.py").write_text(FAILS)
    exit_code, out, err = run("run", cwd=project, prefect_url=prefect_url)
    assert (exit_code, err) == (1, "error: stage left failed: no photos in x: set data.path\n")
    assert "left       | trying" in out
    assert "Traceback" not in out
    assert "right " not in out


def test_ctrl_c_ends_everything_soon(project: Path) -> None:
    (project / "tasks/source.py").write_text(SLEEPS.format(name="source"))
    process = start("run", cwd=project)
    read_until(process, "asleep")
    assert any("tasks.source" in command for command in processes_in(project))
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the temporary server too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted: the next run carries on from here\n"
    assert time.monotonic() - started < 20
    assert processes_in(project) == []
    assert (project / ".prefect/prefect.db").exists()  # Prefect's home is the project's own


def test_a_second_run_waits_for_the_first_even_if_that_was_killed(project: Path, prefect_url: str) -> None:
    (project / "tasks/source.py").write_text(SLEEPS.format(name="source"))
    first = start("run", "left", cwd=project, prefect_url=prefect_url)
    read_until(first, "asleep")
    second = start("run", "left", cwd=project, prefect_url=prefect_url)
    read_until(second, "another pawline run is at work in this project: waiting for it to end")
    first.kill()  # its `dvc repro` goes on
    assert any("tasks.source" in command for command in processes_in(project))
    (project / "go").touch()
    first.communicate()
    out, err = second.communicate(timeout=120)
    assert (second.returncode, err) == (0, "")
    assert out.splitlines()[-1].startswith("2 of 2 stages run, 0 cached")


def test_two_runs_at_once_share_the_work(project: Path, prefect_url: str) -> None:
    (project / "tasks/left.py").write_text(SLEEPS.format(name="left"))
    first = start("run", cwd=project, prefect_url=prefect_url)
    read_until(first, "asleep")
    second = start("run", cwd=project, prefect_url=prefect_url)
    read_until(second, "waiting")
    (project / "go").touch()
    last_lines = [process.communicate(timeout=120)[0].splitlines()[-1] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert last_lines[0].startswith("4 of 4 stages run, 0 cached")
    assert last_lines[1].startswith("1 of 4 stages run, 3 cached")
