"""How long a data-parallel stage takes on machines that one does not have, from what was measured on one.

    python -m benchmarks.simulate preprocess --photos 10_000_000 --workers 64 --cores 8
    python -m benchmarks.simulate features --photos 10_000_000 --workers 256 --deaths 0.1 --stragglers 0.01
    python -m benchmarks.simulate --check --results docs/performance.json         against real runs: ten minutes

What is simulated is what tasks/cluster.py does: a client starts, has at most two chunks a worker under way, sends them
in order, each to a worker that is free, takes the results in their order, does its own serial part for each (fetch,
write), and only then sends another one. What each of these costs is measured by `--check`, on a real run with one
worker, and kept under `simulation`.

    cores        processors of a machine, which holds as many workers as chunks keep its processors busy
    deaths       so often an hour a worker dies. Its chunk, and its results that nobody has fetched, are done again by
                 others when the scheduler has noticed; a chunk that dies with too many workers ends the stage
    stragglers   this share of the chunks takes `--times` as long
    makespan     from the start of the command to its end
    used         share of the workers' time that went into what was not done again
    lost         what workers spent on what was done again

The same seed gives the same figures. `--check` runs each stage on a Dask scheduler with 1, 2 and 4 local workers of one
thread, and with one of two workers killed in the middle, and says how far each makespan is from what a run before them,
with one worker, predicts. A run during which other processes took more than a twentieth of the machine is done again.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TypedDict

from benchmarks.machine import describe_machine
from benchmarks.seed_table import SHARED_DATA
from benchmarks.simulator import NEVER, Place, Trouble, simulate
from benchmarks.stage_costs import MOST_OTHERS, Costs, Project, costs_of, with_growth, work_of
from tasks import stage
from tasks.parallel import available_processors
from tasks.progress import Progress
from tasks.stage import PawlineError

KEY = "simulation"
STAGES = ("validate", "preprocess", "features")
BAR = 0.15
WORKER_TTL = 300.0  # Dask's `distributed.scheduler.worker-ttl`: a worker that says nothing for so long is dead


class Comparison(TypedDict):
    """A real run, and what was predicted of it; seconds."""

    workers: int
    killed_at: float | None
    others: float  # share of the machine that other processes took meanwhile
    measured: float
    predicted: float


class Checked(TypedDict):
    """What is kept of a stage."""

    costs: Costs
    runs: list[Comparison]


def predict(costs: Costs, workers: int, killed_at: float | None = None) -> float:
    """Return the makespan of so many workers on this machine, the client beside them."""
    place = Place(workers, available_processors(), workers, client_beside=True)
    kills = [] if killed_at is None else [killed_at]
    return simulate(work_of(costs), place, Trouble(kills=kills)).makespan


def check_stage(name: str, project: Project, fewer: Project, workers: list[int], progress: Progress) -> Checked:
    """Measure a stage with one worker, then hold other runs against what that predicts."""
    measured = []
    for one in (project, fewer):
        measured.append(costs_of(one.run(name, 1), one.photos, one.sizes(name)))
        progress.advance()
    costs = with_growth(*measured)
    middle = round(costs["start"] + costs["warm_up"] + sum(costs["chunks"]) / 4, 1)
    runs = []
    for count, killed_at in [*((count, None) for count in workers), (2, middle)]:
        run = project.run(name, count, killed_at)
        progress.advance()
        predicted = predict(costs, count, killed_at)
        comparison: Comparison = {
            "workers": count,
            "killed_at": killed_at,
            "others": round(run.others, 3),
            "measured": round(run.makespan, 2),
            "predicted": round(predicted, 2),
        }
        runs.append(comparison)
        print(describe_comparison(name, comparison), flush=True)
    return {"costs": costs, "runs": runs}


def error_of(run: Comparison) -> float:
    """Return how far the prediction is from what was measured: 0.1 is a tenth too long."""
    return run["predicted"] / run["measured"] - 1


def describe_comparison(name: str, run: Comparison) -> str:
    """Say in a line how a run was predicted."""
    workers = f"{run['workers']} worker{'s' if run['workers'] > 1 else ''}"
    killed = "" if run["killed_at"] is None else f", one killed after {run['killed_at']:.1f} s"
    verdict = "" if abs(error_of(run)) <= BAR else f", beyond {BAR:.0%}"
    disturbed = f"; other processes took {run['others']:.0%} of the machine" if run["others"] > MOST_OTHERS else ""
    return (
        f"{name}, {workers}{killed}: measured {run['measured']:.1f} s, "
        f"predicted {run['predicted']:.1f} s ({error_of(run):+.0%}{verdict}){disturbed}"
    )


def check(args: argparse.Namespace) -> bool:
    """Compare predicted with real runs, keep the figures, and return whether all are within the bar."""
    folder = args.folder or Path(tempfile.mkdtemp(prefix="pawline-simulate-"))
    counts = (args.images, args.images // 4)
    many, few = (Project((folder / str(count)).absolute(), args.archive, count, args.tries) for count in counts)
    names = [args.stage] if args.stage else list(STAGES)
    with Progress("real runs", total=len(names) * (len(args.check_workers) + 3), unit="runs") as progress:
        found = {name: check_stage(name, many, few, args.check_workers, progress) for name in names}
    if args.folder is None:
        shutil.rmtree(folder)
    if args.results is not None:
        known = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
        stages = known.get(KEY, {}).get("stages", {}) | found
        stage.write_json(known | {KEY: {"machine": describe_machine(), "stages": stages}}, args.results)
    return all(abs(error_of(run)) <= BAR for checked in found.values() for run in checked["runs"])


def describe(args: argparse.Namespace, place: Place, trouble: Trouble, costs: Costs) -> str:
    """Simulate, and say in a line what came out."""
    found = simulate(work_of(costs, args.photos), place, trouble)
    if found.makespan == NEVER:
        return f"{args.stage} of {args.photos:,} photos never ends: {found.deaths:,} workers died"
    machines = -(-place.workers // place.on_a_machine)
    return (
        f"{args.stage} of {args.photos:,} photos, {place.workers:,} workers on {machines:,} machines: "
        f"{duration(found.makespan)}, {found.used:.0%} used, {found.deaths:,} deaths, {duration(found.lost)} lost"
    )


def duration(seconds: float) -> str:
    """Return seconds in a unit that suits them."""
    limits = ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172_800.0, 3600.0, "h"), (NEVER, 86_400.0, "d"))
    size, unit = next((size, unit) for limit, size, unit in limits if seconds < limit)
    return f"{seconds / size:.1f} {unit}"


def read_costs(path: Path, name: str) -> Costs:
    """Return what `--check` has measured of a stage.

    Raises:
        PawlineError: Nothing.
    """
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    try:
        costs: Costs = known[KEY]["stages"][name]["costs"]
    except KeyError:
        raise PawlineError(
            f"{path} has no costs of {name}: run `python -m benchmarks.simulate --check --results {path}` first"
        ) from None
    return costs


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = stage.parser(__doc__)
    parser.add_argument("stage", nargs="?", choices=STAGES, help="(with --check, all of them if none is named)")
    parser.add_argument("--photos", type=int, default=1_000_000, metavar="N", help="(default: 1000000)")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--cores", type=int, default=8, metavar="N", help="of a machine (default: 8)")
    parser.add_argument("--deaths", type=float, default=0.0, metavar="X", help="of a worker, an hour (default: 0)")
    parser.add_argument("--detected", type=float, default=WORKER_TTL, metavar="S", help="seconds (default: 300)")
    parser.add_argument("--restarted", type=float, default=60.0, metavar="S", help="seconds (default: 60)")
    parser.add_argument("--stragglers", type=float, default=0.0, metavar="X", help="share of chunks (default: 0)")
    parser.add_argument("--times", type=float, default=5.0, metavar="X", help="as long (default: 5)")
    parser.add_argument("--allowed-failures", type=int, default=3, metavar="N", help="of a chunk (default: 3, Dask's)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    stage.add_path(parser, "--costs", "docs/performance.json", "what --check has measured")
    parser.add_argument("--check", action="store_true", help="compares with real runs")
    stage.add_path(parser, "--archive", str(SHARED_DATA / "petimages.zip"), "photos for --check, which are repeated")
    parser.add_argument("--images", type=int, default=4_000, metavar="N", help="photos for --check (default: 4000)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keeps --check's projects, and finds them again")
    parser.add_argument("--tries", type=int, default=3, metavar="N", help="at most, of a disturbed run (default: 3)")
    parser.add_argument("--check-workers", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="(default: 1 2 4)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="--check adds its figures to this JSON file")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Simulate, or compare with real runs, from the command line."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.check:
        sys.exit(not check(args))
    if args.stage is None:
        parser.error(f"name a stage: {', '.join(STAGES)}")
    if min(args.photos, args.workers, args.cores) < 1:
        parser.error("--photos, --workers and --cores are 1 or more")
    costs = read_costs(args.costs, args.stage)
    on_a_machine = max(1, int(args.cores / costs["processors"]))
    trouble = Trouble(
        args.deaths, (), args.detected, args.restarted, args.stragglers, args.times, args.allowed_failures, args.seed
    )
    print(describe(args, Place(args.workers, args.cores, on_a_machine), trouble, costs))


if __name__ == "__main__":
    stage.run(main)
