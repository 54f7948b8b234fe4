"""Chunks that end their processes, done again in parts: what is lost, and what is not."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from tasks.limits import is_worker, limited, quiet_decoders
from tasks.parallel import map_processes
from tasks.rescue import Rescue
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.tasks.dying import LIMITS, RESCUE, do_all, do_only_alone, give_up, join, look, split

LITTLE_MEMORY = """
import mmap, resource
from pathlib import Path
from tests.tasks.dying import LIMITS, RESCUE

if __name__ == "__main__":
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (taken + LIMITS.bytes // 2,) * 2)
    RESCUE(("1", "gorge"))
"""


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


def test_limits_are_for_workers_alone() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert not is_worker()
    with limited(LIMITS), quiet_decoders():
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
        assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    [(outside, within, after)] = map_processes(look, ["1"], workers=1)
    assert outside == after
    assert [outside[1], within[1]] == [False, True]
    assert outside[2] != within[2] == os.devnull
    assert LIMITS.bytes < int(str(within[0])) < LIMITS.bytes + 2**30


def test_where_there_is_less_memory_than_a_part_may_take_none_is_given_up() -> None:
    """A limit on the whole process, as `ulimit -v` sets it, is no fault of the part."""
    command = [sys.executable, "-c", LITTLE_MEMORY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "PawlineError: a photo may take up to 200 MB of memory, and there is not that much" in done.stderr
