"""A clock that jumps, for processes that a test starts: libfaketime, which Debian's package `faketime` has."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

JUMPS = ("+1d", "+0", "-1d", "+0")
SECONDS_BETWEEN_JUMPS = 1.0


class FakedClock:
    """What processes with the environment `env` take for the time of day; seconds that pass are real ones."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self._setting = threading.Lock()  # one clock may jump for several processes, each in a thread of its own
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set("+0")

    def set(self, shift: str) -> None:
        """Shift it, such as by `-1d`, against the machine's."""
        new = self._file.with_suffix(".new")
        with self._setting:
            new.write_text(f"{shift}\n")
            new.replace(self._file)

    @contextmanager
    def jumping(self) -> Iterator[None]:
        """Let it jump until the block ends."""
        over = threading.Event()

        def jump() -> None:
            for shift in itertools.cycle(JUMPS):
                if over.wait(SECONDS_BETWEEN_JUMPS):
                    return
                self.set(shift)

        thread = threading.Thread(target=jump)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.set("+0")


def make(file: Path) -> FakedClock:
    """Return a clock that is told the time by a file; skip the test where there is no libfaketime."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("libfaketime is not installed: `apt install faketime`")
    return FakedClock(libraries[0], file)
