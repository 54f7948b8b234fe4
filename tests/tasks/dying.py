"""Parts of work that end their process, as decoders may; a module of its own, because fresh processes import it."""

import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tasks.limits import Limits, limited, quiet_decoders
from tasks.rescue import Death, Kind, Rescue

LIMITS = Limits(seconds=0.3, bytes=200 * 2**20)

Chunk = Sequence[str]


def do(part: str) -> str:
    """Return, crash, never end, take all memory, exit."""
    with limited(LIMITS):
        if part in ("SIGSEGV", "SIGABRT", "SIGKILL"):
            os.kill(os.getpid(), signal.Signals[part])
        if part == "spin":
            while True:
                pass
        if part == "sleep":
            time.sleep(2 * LIMITS.seconds)  # as if others had the processor
        if part == "gorge":
            bytearray(LIMITS.bytes + 2**26)
        if part == "exit":
            os._exit(3)
        if part == "raise":
            raise ValueError("of the part")
    return part


def do_all(chunk: Chunk) -> list[str]:
    return [do(part) for part in chunk]


def do_only_alone(chunk: Chunk) -> list[str]:
    """Dies unless it is the first that its process does."""
    if os.environ.setdefault("DONE_FIRST", chunk[0]) != chunk[0]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return list(chunk)


def split(chunk: Chunk) -> list[Chunk]:
    return [(part,) for part in chunk]


def give_up(part: Chunk, death: Death) -> list[str]:
    return [death.how if death.kind is Kind.CRASH else death.kind.name]


def join(results: Sequence[list[str]]) -> list[str]:
    return [one for some in results for one in some]


RESCUE: Rescue[Chunk, list[str]] = Rescue(split, do_all, do_all, give_up, join)


def look(_: str) -> list[list[object]]:
    """Return what limits there are before, within and after, and where standard error goes."""

    def seen() -> list[object]:
        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        return [limit, signal.getitimer(signal.ITIMER_PROF)[0] > 0, str(Path("/proc/self/fd/2").readlink())]

    before = seen()
    with limited(LIMITS), quiet_decoders():
        within = seen()
    return [before, within, seen()]
