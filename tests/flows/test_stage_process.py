import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import stage_process
from flows.stage_process import StageProcesses, StoppedError
from tests.flows.conftest import processes_in

# Says that it is up, with a child that would outlive it.
ASLEEP = """\
import subprocess, sys, time
from pathlib import Path

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
Path(sys.argv[1]).touch()
print("up", flush=True)
time.sleep(60)
"""
STUBBORN = """\
import signal
for polite in (signal.SIGINT, signal.SIGTERM):
    signal.signal(polite, signal.SIG_IGN)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, in which no process may be left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_process, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(stage_process, "available_processors", lambda: 2)
    yield tmp_path
    assert processes_in(tmp_path) == []


@pytest.fixture
def interrupt() -> Iterator[Callable[[float], None]]:
    """Raise, after some seconds and in this thread, what Ctrl-C raises."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)

    def after(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield after
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Runner(threading.Thread):
    """Runs a script in a thread of its own and keeps how that ended."""

    def __init__(self, processes: StageProcesses, script: str, name: str) -> None:
        super().__init__()
        self.processes, self.script, self.file = processes, script, Path(name).absolute()
        self.outcome: object = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = run(self.script, str(self.file), processes=self.processes)
        except (StoppedError, TimeoutError) as error:
            self.outcome = type(error)


def run(script: str, *arguments: str, processes: StageProcesses, timeout_seconds: float | None = None) -> int:
    command = [sys.executable, "-c", script, *arguments]
    return processes.run(command, lambda _: None, lock_fd=0, timeout_seconds=timeout_seconds)


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 20
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_lines_come_as_they_are_written_and_the_exit_code_at_the_end() -> None:
    lines: list[tuple[str, bool]] = []
    done = Path("done")
    script = "import pathlib, sys, time\nprint('first')\ntime.sleep(0.5)\npathlib.Path('done').touch()\n"
    script += "sys.stderr.write('\\xe4 last\\n')\nsys.exit(3)"
    command = [sys.executable, "-c", script]
    exit_code = StageProcesses().run(command, lambda line: lines.append((line, done.exists())), lock_fd=0)
    assert (exit_code, lines) == (3, [("first", False), ("ä last", True)])
    assert run("import os; os.kill(os.getpid(), 9)", processes=StageProcesses()) == -9


@pytest.mark.parametrize("script", [ASLEEP, STUBBORN + ASLEEP], ids=["polite", "stubborn"])
def test_another_thread_stops_all_and_nothing_is_started_any_more(script: str) -> None:
    processes = StageProcesses()
    runners = [Runner(processes, script, "one"), Runner(processes, ASLEEP, "two")]
    wait_for(*(runner.file for runner in runners))
    started = time.monotonic()
    stoppers = [threading.Thread(target=processes.stop) for _ in range(2)]  # a signal and the page at once
    for stopper in stoppers:
        stopper.start()
    for thread in [*stoppers, *runners]:
        thread.join()
    assert time.monotonic() - started < 3
    assert [runner.outcome for runner in runners] == [StoppedError, StoppedError]
    with pytest.raises(StoppedError):
        run("raise SystemExit", processes=processes)


def test_what_was_done_when_it_was_stopped_is_done() -> None:
    processes = StageProcesses()
    script = "import signal, sys, time\nfrom pathlib import Path\n"
    script += "signal.signal(signal.SIGINT, lambda *_: sys.exit(0))\nPath(sys.argv[1]).touch()\ntime.sleep(60)"
    runner = Runner(processes, script, "one")
    wait_for(runner.file)
    processes.stop()
    runner.join()
    assert runner.outcome == 0


def test_a_time_out_ends_it_with_all_it_started() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        run(STUBBORN + ASLEEP, "up", processes=StageProcesses(), timeout_seconds=1.5)
    assert Path("up").exists()
    assert time.monotonic() - started < 5
    assert run("print()", processes=StageProcesses(), timeout_seconds=60) == 0


@pytest.mark.parametrize("script", [ASLEEP, STUBBORN + ASLEEP], ids=["polite", "stubborn"])
def test_an_interrupt_of_the_reading_thread_leaves_nothing_running(
    script: str, interrupt: Callable[[float], None]
) -> None:
    def interrupted() -> None:
        interrupt(1.0)
        run(script, "up", processes=StageProcesses())

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert Path("up").exists()
    assert time.monotonic() - started < 4


def test_a_second_interrupt_does_not_wait(interrupt: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_process, "GRACE_SECONDS", 30.0)
    processes = StageProcesses()
    runner = Runner(processes, STUBBORN + ASLEEP, "one")
    wait_for(runner.file)

    def interrupted() -> None:
        interrupt(0.3)
        processes.stop()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    runner.join(timeout=5)
    assert runner.outcome is StoppedError


def test_no_more_run_at_a_time_than_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_process, "available_processors", lambda: 1)
    processes = StageProcesses()
    script = "import sys, time\nfrom pathlib import Path\nfile = Path(sys.argv[1])\nfile.touch(exist_ok=False)\n"
    script += "time.sleep(0.2)\nfile.unlink()"
    runners = [Runner(processes, script, "same") for _ in range(3)]
    for runner in runners:
        runner.join()
    assert [runner.outcome for runner in runners] == [0, 0, 0]


def test_python_is_this_one() -> None:
    said = subprocess.run(["python", "-c", "import sys; print(sys.prefix)"], env=stage_process.environment(), stdout=-1)
    assert said.stdout.decode().strip() == sys.prefix
