"""What a worker process may take for one file; that a file which takes more is given up is in test_rescue.py."""

import os
import resource
import signal
import subprocess
import sys

from tasks.limits import is_worker, limited, quiet_decoders
from tasks.parallel import map_processes
from tests.conftest import ROOT
from tests.tasks.dying import LIMITS, look

LITTLE_MEMORY = """
import mmap, resource
from pathlib import Path
from tests.tasks.dying import LIMITS, RESCUE

if __name__ == "__main__":
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (taken + LIMITS.bytes // 2,) * 2)
    RESCUE(("1", "gorge"))
"""


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
