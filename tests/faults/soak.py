"""Many retrainings in one place, and what grows: memory and open files of the server and the worker, files, disk.

    python -m tests.faults.soak --rounds 200 --folder FOLDER

One Prefect server and one worker carry out all rounds. Before each, the oldest photos of either class go and as many
new ones come. After each, when nothing is at work, a line goes into FOLDER/rounds.jsonl; every tenth round ends with
`pawline gc --drop-experiments`. `judge` says what grew. Takes about a minute a round on two idle processors. The same
command carries on where an earlier one ended, with a new server and worker.
"""

import argparse
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from pydantic import BaseModel
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.test_pipeline import commit, copy_project, run, set_params
from tests.test_retraining import SETTINGS, Site, wait_for

ROOT = Path(__file__).parent.parent.parent
SMALLEST = SETTINGS | {"train_head.epochs": 1, "validate.splits": {"train": 0.5, "val": 0.25, "test": 0.25}}
PHOTOS, NEW = 36, 2  # of either class: in the folder (fewer could leave a split without one), and exchanged each round
MOST = 574  # the last of the real photos that such a folder can begin with; then it begins anew
ROUNDS_BETWEEN_GC = 10
WARM_UP = 0.2  # of the rounds: caches fill, the first champion comes
PATIENCE_SECONDS = 3600.0  # for one round, on a machine that has much else to do
MB = 1e6
ON_RECORD = ("git", "prefect")  # of the disk: decisions and settings are kept for audits, Prefect's records 90 days
# What may grow from the end of the warm-up to the end, in all: noise, not a figure that rounds add to.
MAY_GROW = {"rss_mb": 0.05, "fds": 0.5, "threads": 0.5, "temporary": 0.5, "cached": 0.5, "processes": 0.5}


class Round(BaseModel):
    """What one round left.

    Attributes:
        number: From 1.
        start: The server and the worker are the first ones, or those of a soak that was carried on.
        ended: The state of the run, such as Refused.
        seconds: From the request to the end.
        rss_mb: Resident memory of the server and the worker, while nothing is at work.
        fds: Their open files.
        threads: Of both.
        processes: In the place, beyond those of the server and the worker.
        temporary: Files and folders in TMPDIR, the worktree, and unfinished ones of the project.
        cached: Files in the user's cache folder.
        disk_mb: By part of the place, each file counted once.
        gc: Whether `pawline gc` ran after it, before the disk was measured.
        versions_mb: Of DVC's cache, what registered versions need: they are kept for ever.
    """

    number: int
    start: int
    ended: str
    seconds: float
    rss_mb: dict[str, float]
    fds: dict[str, int]
    threads: int
    processes: int
    temporary: int
    cached: int
    disk_mb: dict[str, float]
    gc: bool
    versions_mb: float


def soak(
    folder: Path,
    data: Path,
    rounds: int,
    *,
    gc_every: int = ROUNDS_BETWEEN_GC,
    until: float = float("inf"),
    pause: Path | None = None,
) -> list[Round]:
    """Retrain so many times in all, and return what each round left.

    Args:
        folder: Is made, or that of a soak to carry on; everything happens in it.
        data: Of the real photos.
        rounds: How many.
        gc_every: As many are between two calls of `pawline gc`.
        until: Begin no round after this time of the clock.
        pause: Begin no round while this file is there: somebody else measures something.
    """
    outside = {name: folder / name for name in ("tmp", "home", "cache")}
    for path in outside.values():
        path.mkdir(parents=True, exist_ok=True)
    own = {"TMPDIR": "tmp", "HOME": "home", "XDG_CACHE_HOME": "cache"}
    site = Site(folder, data, {variable: str(outside[name]) for variable, name in own.items()})
    log = folder / "rounds.jsonl"
    seen = load(log) if log.exists() else []
    start = seen[-1].start + 1 if seen else 1
    if not seen:
        _make_project(site)
    with ExitStack() as stack:
        ui = stack.enter_context(site.running("ui", "--port", str(site.port), ready="Prefect's page"))
        site.type("schedule", "--cron", "0 0 1 1 *")
        worker = stack.enter_context(site.running("worker", ready="at work"))
        for number in range(len(seen) + 1, rounds + 1):
            while pause is not None and pause.exists():
                time.sleep(1)
            if time.time() > until:
                break
            _exchange_photos(site, number)
            started = time.monotonic()
            ended = _retrain(site, worker.pid)
            seconds = time.monotonic() - started
            with_gc = number % gc_every == 0
            if with_gc:
                site.type("gc", "--yes", "--drop-experiments")
            left = _look(site, {"server": ui.pid, "worker": worker.pid}, outside)
            took = round(seconds, 1)
            seen.append(Round(number=number, start=start, ended=ended, seconds=took, gc=with_gc, **left))
            with log.open("a") as file:
                file.write(seen[-1].model_dump_json() + "\n")
    return seen


def judge(rounds: list[Round]) -> dict[str, tuple[float, float]]:
    """Return by figure how much it grew after the warm-up, and how much it may.

    Growth is the Theil-Sen slope, the median of the slopes between any two rounds, times the number of rounds: one
    outlier does not move it, and what a single round adds does. Where a soak was carried on, the rounds of the newest
    server and worker count, as their program may be newer too. The disk is looked at after each `pawline gc`, without
    what stays on record: versions, git, and Prefect's records, which go after 90 days. It may grow by a tenth.
    """
    after = warmed_up(rounds)
    found = {}
    for name in ("server", "worker"):
        memory = [one.rss_mb[name] for one in after]
        found[f"memory of the {name} (MB)"] = _growth(after, memory), MAY_GROW["rss_mb"] * float(np.median(memory))
        found[f"open files of the {name}"] = _growth(after, [one.fds[name] for one in after]), MAY_GROW["fds"]
    for name in ("threads", "processes", "temporary", "cached"):
        found[name] = _growth(after, [getattr(one, name) for one in after]), MAY_GROW[name]
    freed = [one for one in after if one.gc]
    disk = [sum(one.disk_mb.values()) - sum(one.disk_mb[part] for part in ON_RECORD) - one.versions_mb for one in freed]
    if len(freed) > 1:
        found["disk after `pawline gc` (MB)"] = _growth(freed, disk), 0.1 * float(np.median(disk))
    return found


def warmed_up(rounds: list[Round]) -> list[Round]:
    """Return the rounds of the newest server and worker after their first ones."""
    newest = [one for one in rounds if one.start == rounds[-1].start]
    return newest[int(len(newest) * WARM_UP) :]


def _growth(rounds: list[Round], values: Iterable[float]) -> float:
    x, y = np.array([one.number for one in rounds]), np.array(list(values), dtype=float)
    first, second = np.triu_indices(len(x), k=1)
    slopes = (y[second] - y[first]) / (x[second] - x[first])
    return float(np.median(slopes)) * int(x[-1] - x[0]) if len(slopes) else 0.0


def _make_project(site: Site) -> None:
    copy_project(site.project)
    for name in ("prefect.toml", "prefect.yaml", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, site.project / name)
    set_params(site.project, SMALLEST)
    commit(site.project)
    for key, value in (("name", "tests"), ("email", "tests@example.com")):
        run(["git", "config", f"user.{key}", value], site.project)


def _exchange_photos(site: Site, number: int) -> None:
    """Let the oldest photos go and new ones come: in round 1 the first, in each later one `NEW` of either class."""
    shutil.rmtree(site.photos, ignore_errors=True)
    site.drop_photos((number - 1) * NEW % MOST, PHOTOS)


def _retrain(site: Site, worker: int) -> str:
    """Ask for a run, wait until it is over and its process gone, and return how it ended."""
    api = f"http://127.0.0.1:{site.port}/api"
    session = requests.Session()  # that tries again where the database is busy, as Prefect's own clients do
    patient = Retry(total=8, backoff_factor=0.5, status_forcelist=[503], allowed_methods=None)
    session.mount(api, HTTPAdapter(max_retries=patient))
    deployment = session.get(f"{api}/deployments/name/retrain/retrain", timeout=60).json()["id"]
    asked = session.post(f"{api}/deployments/{deployment}/create_flow_run", json={}, timeout=60)
    asked.raise_for_status()

    def over() -> dict[str, str] | None:
        run: dict[str, dict[str, str]] = session.get(f"{api}/flow_runs/{asked.json()['id']}", timeout=60).json()
        return run["state"] if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    state = wait_for(over, "the end of a retraining", [], seconds=PATIENCE_SECONDS)
    wait_for(lambda: not psutil.Process(worker).children(), "the end of its process", [], seconds=PATIENCE_SECONDS)
    return state["name"] if state["type"] == "COMPLETED" else f"{state['name']}: {state['message']}"


def _look(site: Site, pids: dict[str, int], outside: dict[str, Path]) -> dict[str, Any]:
    """Return the figures of a `Round` that can be seen from outside."""
    trees = {name: [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)] for name, pid in pids.items()}
    known = {process.pid for tree in trees.values() for process in tree}
    worktree = site.project.parent / f".{site.project.name}-retrain"
    unfinished = [path for path in site.project.rglob("*unfinished*") if ".git" not in path.parts]
    temporary = [*outside["tmp"].rglob("*"), *worktree.rglob("*"), *site.project.glob(".pawline/*/*"), *unfinished]
    parts = {"cache": ".dvc", "git": ".git", "prefect": ".prefect", "reports": "reports"}
    disk = {part: _bytes(site.project / name) / MB for part, name in parts.items()}
    rest = (_bytes(site.project) + _bytes(worktree) + sum(map(_bytes, outside.values()))) / MB - sum(disk.values())
    return {
        "rss_mb": {name: sum(one.memory_info().rss for one in tree) / MB for name, tree in trees.items()},
        "fds": {name: sum(one.num_fds() for one in tree) for name, tree in trees.items()},
        "threads": sum(one.num_threads() for tree in trees.values() for one in tree),
        "processes": len(_processes_in(site.project.parent) - known),
        "temporary": len(temporary),
        "cached": sum(path.is_file() for path in outside["cache"].rglob("*")),
        "disk_mb": {part: round(size, 3) for part, size in {**disk, "rest": rest}.items()},
        "versions_mb": _needed_by_versions(site.project) / MB,
    }


def _processes_in(folder: Path) -> set[int]:
    """Return the processes whose current folder is the place or in it, whoever their parent is."""
    found = set()
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.add(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found - {os.getpid()}


def _bytes(folder: Path) -> int:
    """Return what the files of a folder take on the disk; several names of one file count once."""
    files = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found = path.stat()
            files[found.st_ino] = found.st_blocks * 512
    return sum(files.values())


def _needed_by_versions(project: Path) -> int:
    """Return the bytes of the cache that registered versions need."""
    from lineage.runs import Project
    from registry import places, retention

    checkout = Project(project)
    with places.opened(checkout.store) as opened:
        plan = retention.make_plan(checkout, opened, drop_experiments=True)
    kept = [keeper for keeper in plan.keepers if any(name.startswith("v") for name in keeper.names)]
    needed = {md5 for keeper in kept for md5 in keeper.md5s}
    return sum(plan.here.get(md5, 0) for md5 in needed)


def load(path: Path) -> list[Round]:
    """Return the rounds of a `rounds.jsonl`, also of one that is still being written."""
    return [Round.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main(argv: list[str] | None = None) -> None:
    """Soak, and print what grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--folder", type=Path, required=True, help="not there yet, or of a soak to carry on")
    parser.add_argument("--gc-every", type=int, default=ROUNDS_BETWEEN_GC, metavar="ROUNDS")
    parser.add_argument("--pause", type=Path, metavar="FILE", help="begin no round while it is there")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round after so many")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what it starts is ended by it, also in the background
    data = Path(os.environ.get("PAWLINE_SHARED_DATA", ROOT / ".." / "shared" / "data")).resolve()
    until = time.time() + args.minutes * 60
    rounds = soak(args.folder.resolve(), data, args.rounds, gc_every=args.gc_every, until=until, pause=args.pause)
    print(json.dumps(judge(rounds), indent=2))  # noqa: T201 - a command


if __name__ == "__main__":
    main()
