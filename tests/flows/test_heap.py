import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# As many heaps as glibc has made for threads that are at work at the same time, by its own account.
COUNTS = """
import ctypes, sys, threading
from flows import heap
if sys.argv[1] == "shared":
    heap.share_one()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(6)
def work():
    together.wait()
    kept = [libc.malloc(1000) for _ in range(1000)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(libc.fopen(b"heaps.xml", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(open("heaps.xml").read().count("<heap "))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that has several heaps")
def test_threads_share_a_heap(tmp_path: Path) -> None:
    def count(how: str) -> int:
        command = [sys.executable, "-c", COUNTS, how]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert count("apart") > 1
    assert count("shared") == 1
