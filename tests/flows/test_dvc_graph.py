import logging
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import dvc_graph
from tasks.stage import PawlineError
from tests.flows.conftest import FAILS, PARAMS, SLEEPS, dvc, processes_in

STUBBORN = """\
import signal, time
for polite in (signal.SIGINT, signal.SIGTERM):
    signal.signal(polite, signal.SIG_IGN)
print("stubborn")
time.sleep(60)
"""


def reproduce(stage: str, *, force: bool = False) -> bool:
    with dvc_graph.only_run() as lock_fd:
        return dvc_graph.reproduce_stage(stage, force=force, lock_fd=lock_fd)


@pytest.fixture
def interrupt() -> Iterator[Callable[[float], None]]:
    """Raise, after some seconds and in this thread, what Ctrl-C raises."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)

    def after(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield after
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_the_plan_is_dvcs_own(project: Path) -> None:
    for targets in ([], ["right", "left"]):
        said = dvc("repro", "--dry", "--force", *targets)
        assert dvc_graph.plan_stages(targets) == re.findall(r"Running stage '(\w+)'", said)


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
        # Some shells add a line of their own, "Killed", before it.
        ("import os; os.kill(os.getpid(), 9)", "(Killed; )?failed to run: python -m tasks.source, exited "),
    ],
    ids=["says-error", "raises", "writes-nothing", "killed"],
)
def test_a_failure_says_why_in_one_line(project: Path, script: str, reason: str) -> None:
    (project / "tasks/source.py").write_text(script)
    with pytest.raises(PawlineError) as failure:
        reproduce("source")
    assert re.match(f"stage source failed: {reason}", str(failure.value))
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("script", [SLEEPS.format(name="source"), STUBBORN], ids=["polite", "stubborn"])
def test_an_interrupt_leaves_nothing_running(
    project: Path, script: str, interrupt: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_graph, "GRACE_SECONDS", 1.0)
    (project / "tasks/source.py").write_text(script)
    interrupt(2.0)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        reproduce("source")
    assert time.monotonic() - started < 10
    assert processes_in(project) == []
    assert "source" in dvc("status")  # and DVC is not locked


def test_the_lock_is_free_again_after_an_error(project: Path) -> None:
    with pytest.raises(PawlineError), dvc_graph.only_run():
        raise PawlineError("for once")
    with dvc_graph.only_run():
        pass
