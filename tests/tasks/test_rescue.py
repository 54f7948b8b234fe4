"""Chunks that end their processes, done again in parts: what is lost, and what is not."""

import pytest

from tasks.parallel import map_processes
from tasks.rescue import Rescue
from tasks.stage import PawlineError
from tests.tasks.dying import RESCUE, do_all, do_only_alone, give_up, join, split


def test_chunks_whose_worker_died_are_rescued_in_their_order() -> None:
    """Only what ends its process is given up, whatever ends it; who waits for a processor is not slow."""
    chunks = [("a", "sleep"), ("c", "SIGSEGV", "exit"), ("d",), ("gorge", "e"), ("f",), ("spin",), ("h",)]
    expected = [["a", "sleep"], ["c", "SIGSEGV", "exit code 3"], ["d"], ["MEMORY", "e"], ["f"], ["TIME"], ["h"]]
    assert list(map_processes(do_all, chunks, workers=2, rescue=RESCUE)) == expected


def test_a_part_that_dies_after_others_alone_is_not_given_up() -> None:
    assert Rescue(split, do_only_alone, do_only_alone, give_up, join)(("1", "2")) == ["1", "2"]


def test_what_a_part_raises_comes_through() -> None:
    with pytest.raises(ValueError, match="of the part"):
        RESCUE(("1", "raise"))


def test_a_part_that_the_system_killed_is_not_blamed() -> None:
    """SIGKILL is what a system sends that is out of memory: elsewhere the same part would be done."""
    with pytest.raises(PawlineError, match=r"'SIGKILL',\) ended with SIGKILL, which is none of its doing: if memory"):
        RESCUE(("1", "SIGKILL"))
