"""A real scheduler and real workers, which sleep."""

import sys

import pytest

from benchmarks.cluster_runs import Run, run_on_cluster
from benchmarks.simulator import Place, Trouble, Work, simulate
from tasks.stage import PawlineError
from tests.conftest import ROOT


def run_naps(naps: list[float], workers: int, kill_at: float | None = None) -> Run:
    program = f"import time; from tasks.cluster import map_chunks; print(list(map_chunks(time.sleep, {naps})))"
    return run_on_cluster([sys.executable, "-c", program], ROOT, workers, kill_at)


def test_chunks_are_seen_in_their_order_with_what_they_cost() -> None:
    run = run_naps([0.1, 0.3, 0.2], workers=1)
    seconds = [stop - start for start, stop in run.chunks]
    assert [round(took, 1) for took in seconds] == [0.1, 0.3, 0.2]
    assert 0 < run.chunks[0][0] < run.chunks[-1][1] < run.makespan
    assert run.warming + run.working < 0.5  # they sleep
    assert 0 <= run.others < 1


@pytest.mark.parametrize(("workers", "kill_at"), [(4, None), (2, 2.0)])
def test_the_simulator_foretells_what_dask_does(workers: int, kill_at: float | None) -> None:
    """Naps need no processor, so that a busy machine hardly matters; a long one among them holds the others up."""
    naps = [0.25, 0.5, 1.5, *[0.25] * 13]
    run = run_naps(naps, workers, kill_at)
    first = run.chunks[0][0]
    kills = [] if kill_at is None else [max(0.01, kill_at - first)]
    work = Work(start=0.0, chunks=naps, serial=0.005, end=0.0)
    predicted = simulate(work, Place(workers, workers, workers), Trouble(kills=kills))
    assert len(run.chunks) >= len(naps)
    assert max(stop for _, stop in run.chunks) - first == pytest.approx(predicted.makespan, rel=0.25)


def test_what_a_failed_command_said() -> None:
    with pytest.raises(PawlineError, match="must be non-negative"):
        run_naps([-1.0], workers=1)
