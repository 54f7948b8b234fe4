import json
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows import dvc_graph, stage_process
from flows.policy import Policy
from flows.stage_process import StageProcesses, StoppedError
from tasks.stage import PawlineError, TemporaryError
from tests.flows.conftest import FAILS, PARAMS, SLEEPS, meets, with_meta


def reproduce(stage: str, *, force: bool = False, timeout_seconds: float | None = None) -> bool:
    with dvc_graph.only_run() as lock_fd:
        return dvc_graph.reproduce_stage(stage, force=force, lock_fd=lock_fd, timeout_seconds=timeout_seconds)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_plan_is_dvcs_own(project: Path) -> None:
    for targets in ([], ["right", "left"]):
        with Repo() as repo:
            planned = [stage.name for stage in repo.reproduce(targets or None, dry=True, force=True)]
        assert dvc_graph.plan_stages(targets) == planned


def test_a_planned_stage_has_its_purpose_its_needs_and_its_policy(project: Path) -> None:
    with_meta(project, "left", "{prefect: {retries: 2, timeout_seconds: 60}, mine: 1}", desc="the left one")
    source, left, right, join = dvc_graph.plan()
    assert [stage.needs for stage in (source, left, right, join)] == [(), ("source",), ("source",), ("left", "right")]
    assert (left.desc, left.policy) == ("the left one", Policy(retries=2, timeout_seconds=60))
    assert (right.desc, right.policy) == ("", Policy(retries=0, timeout_seconds=None))
    assert dvc_graph.always_run() == ["source"]


@pytest.mark.parametrize(
    ("meta", "wrong"),
    [
        ("{prefect: {retrys: 2}}", "unknown key stages.left.meta.prefect.retrys: did you mean retries? "),
        (
            "{prefect: {retries: -1}}",
            "stages.left.meta.prefect.retries is -1: allowed is an integer at least 0, at most 10",
        ),
        (
            "{prefect: {timeout_seconds: soon}}",
            "stages.left.meta.prefect.timeout_seconds is 'soon': allowed is a number ",
        ),
        ("{prefect: 3}", "stages.left.meta.prefect is 3: allowed is a section with keys"),
    ],
)
def test_a_wrong_policy_is_one_line(project: Path, meta: str, wrong: str) -> None:
    with_meta(project, "left", meta)
    with pytest.raises(PawlineError) as error:
        dvc_graph.plan(["left"])
    assert str(error.value).startswith(f"dvc.yaml: {wrong}")
    assert "\n" not in str(error.value)


def test_an_unknown_stage_is_answered_with_the_known_ones(project: Path) -> None:
    with pytest.raises(PawlineError, match=r"unknown stage jion: dvc\.yaml has source, left, right, join"):
        dvc_graph.plan_stages(["left", "jion"])


def test_a_broken_dvc_yaml_gets_one_line(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages:\n  a: [oops\n")
    with pytest.raises(PawlineError, match=r"^unable to read: 'dvc.yaml'[^\n]*$"):
        dvc_graph.plan_stages()
    (project / "dvc.yaml").write_text("stages:\n  a:\n    comand: echo\n")
    with pytest.raises(PawlineError, match=r"^'./dvc.yaml' validation failed[^\n]*says more$"):
        dvc_graph.plan_stages()


def test_unchanged_means_command_params_deps_and_outputs(project: Path) -> None:
    assert not dvc_graph.is_unchanged("left")
    reproduce("source")
    reproduce("left")
    assert dvc_graph.is_unchanged("left")
    assert not dvc_graph.is_unchanged("source")  # always_changed
    for path in (project / "source.txt", project / "left.txt", project / "tasks/left.py"):
        before = path.read_text()
        path.unlink()
        path.write_text(before + "# changed\n")
        assert not dvc_graph.is_unchanged("left"), path
        path.write_text(before)
        assert dvc_graph.is_unchanged("left"), path
    (project / "params.yaml").write_text(PARAMS.replace("epochs: 6", "epochs: 7"))
    assert not dvc_graph.is_unchanged("left")


def test_force_runs_what_dvc_has(project: Path) -> None:
    assert reproduce("source")
    assert reproduce("left")
    assert not reproduce("left")
    (project / "left.txt").unlink()
    assert not reproduce("left")  # from the run cache
    assert (project / "left.txt").exists()
    assert reproduce("left", force=True)


def test_a_stage_runs_in_this_environment_and_its_lines_are_logged(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flows")
    reproduce("source")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "> python -m tasks.source"
    assert re.fullmatch(r"source at work with .+python.*", lines[1])
    assert Path(lines[1].split()[-1]).parent == Path(sys.executable).parent
    assert lines[2:] == []  # nothing of DVC's housekeeping


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (FAILS, "no photos in x: set data.path"),
        ("raise ValueError('boom')", "ValueError: boom; failed to run: python -m tasks.source, "),
        ("print('fine')", "fine; output 'source.txt' does not exist"),
    ],
    ids=["says-error", "raises", "writes-nothing"],
)
def test_a_failure_says_why_in_one_line(project: Path, script: str, reason: str) -> None:
    (project / "tasks/source.py").write_text(script)
    with pytest.raises(PawlineError) as failure:
        reproduce("source")
    assert re.match(f"stage source failed: {reason}", str(failure.value))
    assert "\n" not in str(failure.value)
    assert not isinstance(failure.value, TemporaryError)


@pytest.mark.parametrize(
    ("shell", "number"),  # shells tell differently that a signal ended a command
    [("/bin/bash", signal.SIGKILL), ("/bin/sh", signal.SIGSEGV)],
)
def test_a_stage_that_was_killed_says_so_and_may_be_tried_again(
    project: Path, shell: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", shell)
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(
        text.replace("cmd: python -m tasks.source", "cmd: python -m tasks.source && true")
    )
    (project / "tasks/source.py").write_text(f"import os; os.kill(os.getpid(), {number})")
    with pytest.raises(TemporaryError) as failure:
        reproduce("source")
    advice = "out of memory? Close other programs, or lower batch sizes; " if number is signal.SIGKILL else ""
    assert str(failure.value) == (
        f"stage source failed: killed by signal {number:d} ({number.name}); {advice}the next run carries on from here"
    )


def test_a_dvc_that_was_killed_says_so(project: Path) -> None:
    (project / "tasks/source.py").write_text("import os; os.kill(os.getppid(), 9)\nimport time; time.sleep(1)")
    with pytest.raises(TemporaryError, match=r"^stage source failed: killed by signal 9 \(SIGKILL\)"):
        reproduce("source")


def test_a_temporary_failure_is_one_to_dvc_and_to_the_flow(project: Path) -> None:
    (project / "tasks/source.py").write_text(FAILS.replace("exit(1)", "exit(75)"))
    with pytest.raises(TemporaryError, match=r"^stage source failed: no photos in x: set data\.path$"):
        reproduce("source")


def test_a_stage_that_takes_too_long_is_stopped(project: Path) -> None:
    (project / "tasks/source.py").write_text(SLEEPS.format(name="source"))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell script
    try:
        with pytest.raises(PawlineError) as failure:
            reproduce("source", timeout_seconds=1.5)
    finally:
        signal.signal(signal.SIGINT, before)
    assert str(failure.value) == (
        "stage source failed: it took longer than 1.5 s (timeout_seconds in its meta in dvc.yaml)"
    )
    assert json.loads((project / ".dvc/tmp/rwlock").read_text()) == {}  # DVC has cleared its locks away


def test_stages_that_end_together_are_both_in_dvc_lock(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_process, "available_processors", lambda: 2)
    reproduce("source")
    for name, other in (("left", "right"), ("right", "left")):
        (project / f"tasks/{name}.py").write_text(meets(name, other))
    processes = StageProcesses()
    with dvc_graph.only_run() as lock_fd, ThreadPoolExecutor() as pool:
        for _ in range(2):

            def both(stage: str, fd: int = lock_fd) -> tuple[bool, bool]:
                ran = dvc_graph.reproduce_stage(stage, force=True, lock_fd=fd, processes=processes)
                return ran, dvc_graph.is_unchanged(stage, processes)

            assert list(pool.map(both, ("left", "right"))) == [(True, True), (True, True)]
            with Repo() as repo:
                assert sorted(repo.status()) == ["join", "source"]
            for name in ("left", "right"):
                (project / f"{name}.here").unlink()


def test_looking_waits_for_a_dvc_at_work_until_the_run_is_stopped(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0.3)  # of three seconds, after which DVC itself gives up
    processes, outcomes = StageProcesses(), list[object]()

    def look() -> None:
        try:
            outcomes.append(dvc_graph.is_unchanged("source", processes))
        except StoppedError:
            outcomes.append("stopped")

    with Repo() as repo:
        with repo.lock:
            first = threading.Thread(target=look)
            first.start()
            time.sleep(0.6)
            assert outcomes == []
        first.join()
        assert outcomes == [False]
        with repo.lock:
            second = threading.Thread(target=look)
            second.start()
            processes.stop()
            second.join(timeout=10)
            assert outcomes == [False, "stopped"]


def test_a_run_that_waits_for_another_can_be_stopped(project: Path) -> None:
    processes, outcomes = StageProcesses(), list[str]()

    def wait() -> None:
        try:
            with dvc_graph.only_run(processes):
                outcomes.append("at work")
        except StoppedError:
            outcomes.append("stopped")

    with dvc_graph.only_run():
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.5)
        processes.stop()
        waiting.join(timeout=5)
        assert outcomes == ["stopped"]


def test_the_lock_is_free_again_after_an_error(project: Path) -> None:
    with pytest.raises(PawlineError), dvc_graph.only_run():
        raise PawlineError("for once")
    with dvc_graph.only_run():
        pass
