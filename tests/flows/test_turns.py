import subprocess
import sys
import threading
import time
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


@pytest.fixture
def at_work(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that is at work in the project, until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "my turn\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_one_works_one_waits_and_a_third_is_told_to_end(tmp_path: Path, at_work: "subprocess.Popen[str]") -> None:
    turns: list[str | None] = []

    def wait_for_turn() -> None:
        with taken(tmp_path, "wait") as no_turn:
            turns.append(no_turn)

    waiting = threading.Thread(target=wait_for_turn)
    waiting.start()
    try:
        with_a_queue = ""
        for _ in range(100):  # until the thread is in the queue
            with taken(tmp_path, "skip") as no_turn:
                assert no_turn == "another retraining is at work"
            if (tmp_path / ".dvc/tmp/pawline-retrain-next.lock").exists():
                break
            time.sleep(0.05)
        with taken(tmp_path, "wait") as no_turn:
            with_a_queue = no_turn or ""
        assert with_a_queue == "another retraining is at work, and one that waits will see what is new"
        assert turns == []
    finally:
        end(at_work)  # killed, as by a reboot: its turn ends with it
        waiting.join(10)
    assert turns == [None]


@pytest.mark.parametrize("overlap", ["wait", "skip"])
def test_who_comes_alone_has_the_turn(tmp_path: Path, overlap: Overlap) -> None:
    for _ in range(2):
        with taken(tmp_path, overlap) as no_turn:
            assert no_turn is None
