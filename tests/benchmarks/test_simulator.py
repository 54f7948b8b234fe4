"""Limits that can be worked out by hand."""

import pytest

from benchmarks.simulator import NEVER, Place, Trouble, Work, simulate

EQUAL = Work(start=2.0, chunks=[1.0] * 12, serial=0.0, end=3.0)


def test_one_worker_takes_the_sum() -> None:
    work = Work(start=2.0, chunks=[1.0, 2.0, 4.0], serial=0.5, end=3.0, warm_up=0.25)
    found = simulate(work, Place(1))
    # The client writes beside the worker, all but the last chunk.
    assert found.makespan == pytest.approx(2.0 + 0.25 + 7.0 + 0.5 + 3.0)
    assert found.busy == pytest.approx(7.25)
    assert (found.lost, found.deaths) == (0.0, 0)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6, 12])
def test_equal_chunks_are_shared_out(workers: int) -> None:
    found = simulate(EQUAL, Place(workers))
    assert found.makespan == pytest.approx(2.0 + 12 / workers + 3.0)
    assert found.used == pytest.approx(12 / (workers * found.makespan))


def test_workers_that_share_processors_slow_each_other() -> None:
    shared = Place(4, cores=2, on_a_machine=4)
    assert simulate(EQUAL, shared).makespan == pytest.approx(2.0 + 12 / 2 + 3.0)
    # A chunk that keeps two processors busy has no use for a second worker.
    wide = EQUAL._replace(processors=2.0)
    assert simulate(wide, Place(4, cores=2, on_a_machine=4)).makespan == pytest.approx(2.0 + 12 + 3.0)
    assert simulate(wide, Place(4, cores=2, on_a_machine=1)).makespan == pytest.approx(2.0 + 12 / 4 + 3.0)


def test_a_serial_writer_is_the_limit() -> None:
    found = simulate(EQUAL._replace(serial=2.0), Place(12))
    assert found.makespan == pytest.approx(2.0 + 1.0 + 12 * 2.0 + 3.0)


def test_the_client_takes_its_share_of_a_machine_that_it_is_on() -> None:
    work = Work(start=0.0, chunks=[1.0] * 10, serial=1.0, end=0.0)
    assert simulate(work, Place(1, cores=2, client_beside=True)).makespan == pytest.approx(11.0)
    # Both on one processor: nothing is gained by doing two things at once.
    assert simulate(work, Place(1, cores=1, client_beside=True)).makespan == pytest.approx(20.0)


def test_a_straggler_at_the_end_is_waited_for() -> None:
    work = EQUAL._replace(chunks=[*[1.0] * 12, 10.0])
    assert simulate(work, Place(12)).makespan == pytest.approx(2.0 + 1.0 + 10.0 + 3.0)


def test_a_straggler_in_front_holds_the_others_up() -> None:
    """Two workers have four chunks under way, and no more until the first one is there."""
    work = EQUAL._replace(chunks=[10.0, *[1.0] * 11])
    assert simulate(work, Place(2)).makespan == pytest.approx(2.0 + 10.0 + 8 / 2 + 3.0)


def test_what_a_dead_worker_was_at_is_done_again() -> None:
    killed = Trouble(kills=[2.0 + 0.75], detected=0.5)
    found = simulate(EQUAL._replace(chunks=[1.0, 1.0]), Place(2), killed)
    assert found.makespan == pytest.approx(2.0 + 0.75 + 0.5 + 1.0 + 3.0)
    assert found.deaths == 1
    assert found.lost == pytest.approx(0.75)


def test_what_a_dead_worker_held_is_done_again() -> None:
    """The second chunk, which the other worker is at, holds the third up: it is done, and not fetched."""
    work = Work(start=0.0, chunks=[1.0, 10.0, 1.0, 1.0], serial=0.0, end=0.0)
    found = simulate(work, Place(2), Trouble(kills=[2.5]))
    assert found.makespan == pytest.approx(10.0 + 2.0)
    assert found.lost == pytest.approx(1.0 + 0.5)


def test_a_chunk_that_kills_too_many_workers_ends_the_stage() -> None:
    deadly = Trouble(kills=[2.5, 3.0, 3.5, 4.0])
    assert simulate(EQUAL, Place(1), deadly._replace(restarted=0.1)).makespan == NEVER
    assert simulate(EQUAL, Place(1), deadly._replace(restarted=0.1, allowed_failures=4)).makespan < NEVER
    assert simulate(EQUAL, Place(1), Trouble(kills=[2.5])).makespan == NEVER  # nobody left


def test_never_better_than_the_bounds_and_the_same_for_a_seed() -> None:
    chunks = [0.5 + number % 7 for number in range(200)]
    work = Work(start=1.0, chunks=chunks, serial=0.01, end=1.0)
    for workers in (1, 3, 8, 50):
        place = Place(workers, cores=2, on_a_machine=2)
        for trouble in (Trouble(), Trouble(deaths=40.0, detected=5.0, restarted=10.0, stragglers=0.05, times=8.0)):
            found = simulate(work, place, trouble)
            assert found.makespan >= 2.0 + max(sum(chunks) / workers, *chunks)
            assert found.busy - found.lost >= sum(chunks) - 1e-6
            assert simulate(work, place, trouble) == found
    assert simulate(work, place, trouble).makespan != simulate(work, place, trouble._replace(seed=1)).makespan


def test_more_deaths_lose_more_work() -> None:
    work = Work(start=0.0, chunks=[10.0] * 400, serial=0.0, end=0.0)
    lost = [
        simulate(work, Place(8), Trouble(deaths=rate, detected=1.0, restarted=1.0)).lost for rate in (0.0, 10.0, 60.0)
    ]
    assert lost[0] == 0.0 < lost[1] < lost[2]


def test_twice_the_workers_never_take_longer_on_machines_of_their_own() -> None:
    times = [simulate(EQUAL._replace(serial=0.05), Place(workers)).makespan for workers in (1, 2, 4, 8)]
    assert times == sorted(times, reverse=True)
