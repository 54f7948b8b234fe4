"""The memory of processes that run for months: glibc keeps what is in use no more, and they seem to grow."""

import ctypes
import gc
import threading
import time

EVERY_SECONDS = 60.0


def give_back() -> None:
    """Give memory that is in use no more back to the system, what waits for Python's garbage collector included.

    What it took to start and to watch a run leaves holes all over the heap: Prefect's worker grew by about 1 MB with
    each run that it carried out, and no more where this was done after each.
    """
    gc.collect()
    trim()


def trim() -> None:
    """Give memory that is free back to the system, where the C library can (glibc)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)  # the other threads go on meanwhile


def keep_trimming(every_seconds: float = EVERY_SECONDS) -> None:
    """Have a thread of this process trim its memory for as long as it runs."""

    def work() -> None:
        while True:
            time.sleep(every_seconds)
            trim()

    threading.Thread(target=work, name="trim", daemon=True).start()
