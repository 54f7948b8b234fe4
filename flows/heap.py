"""The memory of a process that runs for months."""

import ctypes
import gc


def give_back() -> None:
    """Give memory that is in use no more back to the system, where the C library can (glibc).

    What it took to start and to watch a run leaves holes all over the heap: Prefect's worker grew by about 1 MB with
    each run that it carried out, and no more where this was done after each.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
