import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Small pieces of which every hundredth stays: glibc by itself keeps all that lies between.
SCATTERS = """
import ctypes, psutil, time
from flows import heap
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
pieces = [libc.malloc(1000) for _ in range(300_000)]
for number, piece in enumerate(pieces):
    ctypes.memset(piece, 1, 1000)
for number, piece in enumerate(pieces):
    if number % 100:
        libc.free(ctypes.c_void_p(piece))
before = psutil.Process().memory_info().rss
WORK
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that can be told to")
@pytest.mark.parametrize("work", ["heap.give_back()", "heap.keep_trimming(0.01); time.sleep(2)"])
def test_what_is_free_between_what_is_used_goes_back_to_the_system(work: str) -> None:
    code, env = SCATTERS.replace("WORK", work), os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 200_000_000
