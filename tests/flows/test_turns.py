import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.turns import Overlap, taken

HOLD = """
import sys, time
from pathlib import Path
from flows.turns import taken

with taken(Path(sys.argv[1]), "wait") as no_turn:
    print("no turn" if no_turn else "my turn", flush=True)
    time.sleep(60)
"""


def at_work_in(folder: Path) -> "subprocess.Popen[str]":
    """Another process that is at work in a project, until it is killed."""
    process = subprocess.Popen([sys.executable, "-P", "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "my turn\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_one_works_one_waits_and_a_third_is_told_to_end(tmp_path: Path) -> None:
    at_work = at_work_in(tmp_path)
    turns: list[str | None] = []
    is_waiting = threading.Event()

    def wait_for_turn() -> None:
        with taken(tmp_path, "wait", is_waiting.set) as no_turn:
            turns.append(no_turn)

    waiting = threading.Thread(target=wait_for_turn)
    waiting.start()
    try:
        assert is_waiting.wait(10)
        with taken(tmp_path, "skip") as no_turn:
            assert no_turn == "another retraining is at work"
        with taken(tmp_path, "wait") as no_turn:
            assert no_turn == "another retraining is at work, and one that waits will see what is new"
        assert turns == []
    finally:
        end(at_work)  # killed, as by a reboot: its turn ends with it
        waiting.join(10)
    assert turns == [None]


def test_who_waits_can_be_told_to_end(tmp_path: Path) -> None:
    at_work = at_work_in(tmp_path)

    def told() -> None:
        raise InterruptedError

    try:
        with pytest.raises(InterruptedError), taken(tmp_path, "wait", told):
            pytest.fail("there is no turn to have")
    finally:
        end(at_work)


@pytest.mark.parametrize("overlap", ["wait", "skip"])
def test_who_comes_alone_has_the_turn(tmp_path: Path, overlap: Overlap) -> None:
    for _ in range(2):
        with taken(tmp_path, overlap) as no_turn:
            assert no_turn is None


def test_what_deletes_objects_waits_until_no_retraining_is_at_work(recorded: Path) -> None:
    at_work = at_work_in(recorded)
    command = [sys.executable, "-P", "-c", "from flows.cli import main; main()", "gc", "--yes"]
    collecting = subprocess.Popen(command, cwd=recorded, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert collecting.stdout is not None
        assert "waiting for it to end" in collecting.stdout.readline()
        assert collecting.poll() is None
    finally:
        end(at_work)
        assert "nothing to free" in collecting.communicate(timeout=60)[0]
