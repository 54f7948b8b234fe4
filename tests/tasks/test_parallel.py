"""Mapping over chunks in local processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.parallel import available_processors, map_processes
from tasks.raw import Chunk, RawRecord, list_chunks, write_shards
from tasks.stage import PawlineError

ROOT = Path(__file__).parent.parent.parent
SLOW_MAP = """
import sys, time
from pathlib import Path
from tasks import stage
from tasks.parallel import map_processes
from tests.tasks.test_parallel import touch_and_wait

if __name__ == "__main__":
    stage.run(lambda: list(map_processes(touch_and_wait, [f"{sys.argv[1]}/{n}" for n in range(4)], workers=2)))
"""


def square_late(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0)  # the first result comes last
    return number**2


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_on_chunk(chunk: Chunk) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return chunk.records


def fail_on_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def touch_and_wait(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(1)


def test_results_come_in_order() -> None:
    assert list(map_processes(square_late, range(12), workers=2)) == [n**2 for n in range(12)]


def test_chunks_are_taken_as_they_are_needed() -> None:
    taken = []
    results = map_processes(square_late, (taken.append(n) or n for n in range(100)), workers=2)  # type: ignore[func-returns-value]
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(taken) == 4


def test_no_chunks_no_results() -> None:
    assert list(map_processes(square_late, [])) == []


def test_a_worker_that_dies_is_named_by_its_chunk() -> None:
    with pytest.raises(PawlineError, match=r"a worker process died while it worked on one of: .*\b3\b") as caught:
        list(map_processes(die_on_three, range(20), workers=1))
    assert "\n" not in str(caught.value)


def test_a_shard_that_kills_its_worker_is_named(tmp_path: Path) -> None:
    write_shards([RawRecord("cat/1.jpg", "cat", "", b"1")], tmp_path)
    with pytest.raises(PawlineError, match=r"one of: .*raw-00000.parquet row group 0; if memory ran out"):
        list(map_processes(die_on_chunk, list_chunks(tmp_path)))


def test_an_exception_of_the_function_comes_through() -> None:
    results = map_processes(fail_on_three, range(20), workers=2)
    with pytest.raises(ValueError, match="three"):
        list(results)


def test_at_least_one_processor() -> None:
    assert 1 <= available_processors() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopping_the_parent_ends_the_workers_quietly(stop: signal.Signals, code: int, tmp_path: Path) -> None:
    script = tmp_path / "slow_map.py"
    script.write_text(SLOW_MAP)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = [_written_pid(tmp_path / "0"), _written_pid(tmp_path / "1")]
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # Ctrl-C reaches the whole group
    else:
        process.send_signal(stop)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in errors
    _wait_until_gone(workers)


def _written_pid(path: Path) -> int:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"no worker wrote {path}"
        time.sleep(0.02)
    return int(path.read_text())


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    for pid in pids:
        while _is_running(pid):
            assert time.monotonic() < deadline, f"worker {pid} outlives its parent"
            time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
