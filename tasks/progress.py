"""Progress of long work: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts finished units of work; use as a context manager and call `advance`."""

    def __init__(self, what: str, *, total: int | None, unit: str = "images", scale: bool = False) -> None:
        self._bar = (
            tqdm(desc=what, total=total, unit=f" {unit}", unit_scale=scale, leave=False, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            sys.stderr.write(self._line() + "\n")
            sys.stderr.flush()

    def _line(self) -> str:
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        if self._total is None:
            return f"{self._what}: {self._done:,} {self._unit}, {rate:,.0f}/s"
        left = (self._total - self._done) / max(rate, 1e-9)
        share = self._done / max(self._total, 1)
        return (
            f"{self._what}: {self._done:,}/{self._total:,} {self._unit} ({share:.0%}), {rate:,.0f}/s, {left:.0f} s left"
        )


def track(items: Iterable[T], what: str, *, total: int | None, unit: str = "images") -> Iterator[T]:
    """Yield the items, showing progress, one unit an item."""
    with Progress(what, total=total, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()
