import threading
import time
from collections.abc import Iterator

import pytest

from inference.threads import AHEAD, map_threads


def test_results_come_in_order_whatever_takes_long() -> None:
    waits = [0.05, 0.0, 0.02, 0.0, 0.0, 0.03] * 3

    def wait(job: tuple[int, float]) -> int:
        time.sleep(job[1])
        return job[0]

    assert list(map_threads(wait, enumerate(waits), workers=3)) == list(range(len(waits)))


def test_no_more_is_taken_than_is_under_way() -> None:
    taken = 0

    def work() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = map_threads(abs, work(), workers=2)
    assert [next(results) for _ in range(100)] == list(range(1, 101))
    assert taken <= 100 + 2 * AHEAD + 1
    results.close()


def test_results_do_not_wait_for_work_that_comes_slowly() -> None:
    go_on = threading.Event()

    def work() -> Iterator[int]:
        yield from (-1, -2)
        assert go_on.wait(10)
        yield -3
        raise OSError("no more")

    results = map_threads(abs, work(), workers=2)
    began = time.monotonic()
    assert [next(results), next(results)] == [1, 2]
    assert time.monotonic() - began < 5
    go_on.set()
    assert next(results) == 3
    with pytest.raises(OSError, match="no more"):
        next(results)


def test_an_error_is_raised_where_its_result_would_be() -> None:
    results = map_threads(lambda number: 12 // number, [3, 2, 0, 1], workers=2)
    assert [next(results), next(results)] == [4, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_who_stops_early_does_not_wait_for_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.threads.SECONDS_TO_END", 0.1)
    go_on = threading.Event()
    results = map_threads(lambda number: number or go_on.wait(20), [1, 0, 1], workers=1)
    assert next(results) == 1
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 5
    go_on.set()
