"""Where the time of each stage goes: what its main process is doing, a hundred times a second.

    python -m benchmarks.where                                 every stage, the photos of petimages.zip
    python -m benchmarks.where --stages validate fine_tune     these two; those before them run all the same
    python -m benchmarks.where --flame-graphs flames           a page for each stage besides, to look into

A fresh clone of the last commit runs every stage of dvc.yaml in turn, with the settings of a preset, by the stage's own
command, and py-spy looks at the main thread of its main process. A look counts for what the innermost of Pawline's own
functions was at, or for `imports` while a module was being loaded; with workers at work that is `map_processes`, which
waits for them. Looking slows a stage a little; the seconds are those of the stage being looked at.

How long the disk alone would take is worked out: the bytes of the stage's inputs and outputs (code left out) at the
rates at which this machine wrote and read 256 MB, fsync included and the page cache dropped where that is allowed.
"""

import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

from benchmarks.growth import files_of, output_paths, read_stages, remove_outputs
from benchmarks.machine import describe_machine
from benchmarks.seed_table import SHARED_DATA, Workplace, apply_preset, make_clone, read_preset, run_timed
from tasks import stage
from tasks.progress import Progress

KEY = "where"
LOOKS_PER_SECOND = 100
IMPORTS = "imports"
IMPORTING = "<frozen importlib._bootstrap>"
MAIN_THREAD = re.compile(r'process (\d+):"[^"]*";thread \(\1\)[^;]*;')  # its number is the process's own
OWN_FRAME = re.compile(r"(\S+) \((?!.*/site-packages/)(?:.*/)?(tasks/[\w/]+\.py):\d+\)")
PROBE_BYTES = 256 * 2**20


class Look(TypedDict):
    """What was seen of one stage.

    Attributes:
        seconds: From start to end.
        shares: Of the looks at its main thread, by what it was doing; the largest first.
        read_bytes: Of its inputs, code left out.
        written_bytes: Of its outputs.
    """

    seconds: float
    shares: dict[str, float]
    read_bytes: int
    written_bytes: int


def share_out(lines: Iterable[str]) -> dict[str, float]:
    """Return the share of each activity of the main thread from py-spy's collapsed stacks."""
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, looks = line.rpartition(" ")
        if MAIN_THREAD.match(stack):  # other threads and processes have other beginnings
            counts[_activity(stack.split(";")[2:])] += int(looks)
    return {activity: looks / counts.total() for activity, looks in counts.most_common()}


def _activity(frames: list[str]) -> str:
    if any(IMPORTING in frame for frame in frames):
        return IMPORTS
    own = [match for frame in frames if (match := OWN_FRAME.fullmatch(frame))]
    return f"{own[-1][1]} ({own[-1][2]})" if own else "the interpreter"


def look_at(described: dict[str, Any], workplace: Workplace, flame_graph: Path | None) -> Look:
    """Run a stage of dvc.yaml in the clone and look at it."""
    stacks = workplace.root / "stacks.txt"
    command = shlex.split(described["cmd"])
    seconds = run_timed(_watched(command, "raw", stacks), workplace, cwd=workplace.clone)
    if flame_graph is not None:
        remove_outputs(described, workplace.clone)  # or it would take over what the first run made
        run_timed(_watched(command, "flamegraph", flame_graph), workplace, cwd=workplace.clone)
    inputs = [path for path in described["deps"] if not path.endswith(".py")]
    read, written = (
        sum(file.stat().st_size for file in files_of(paths, workplace.clone))
        for paths in (inputs, output_paths(described))
    )
    return {
        "seconds": round(seconds, 3),
        "shares": share_out(stacks.read_text(encoding="utf-8").splitlines()),
        "read_bytes": read,
        "written_bytes": written,
    }


def _watched(command: list[str], kind: str, out: Path) -> list[str]:
    looking = ["--rate", str(LOOKS_PER_SECOND), "--idle", "--threads", "--subprocesses"]
    if kind == "raw":
        looking.append("--full-filenames")
    program = str(Path(sys.executable).with_name("py-spy"))
    return [program, "record", *looking, "--format", kind, "--output", str(out), "--", *command]


def measure_disk(folder: Path) -> dict[str, float]:
    """Return the bytes a second at which a file is written to the disk and read back from it."""
    path, content = folder / "probe", os.urandom(PROBE_BYTES)
    started = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    dropped = time.perf_counter()
    path.read_bytes()
    rates = {"write": PROBE_BYTES / (written - started), "read": PROBE_BYTES / (time.perf_counter() - dropped)}
    path.unlink()
    return rates


def describe(name: str, look: Look) -> str:
    """Say in one line what a stage was doing."""
    return f"{name}: {look['seconds']:.1f} s: {describe_shares(look['shares'])}"


def describe_shares(shares: dict[str, float], least: float = 0.05) -> str:
    """Name the activities that took a twentieth or more of the time."""
    return ", ".join(f"{activity} {share:.0%}" for activity, share in shares.items() if share >= least)


def main(argv: list[str] | None = None) -> None:
    """Look at the stages from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--archive", str(SHARED_DATA / "petimages.zip"), "photos")
    parser.add_argument("--preset", default="s4", help="settings (default: s4)")
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help="which are shown (default: all)")
    parser.add_argument("--flame-graphs", type=Path, metavar="DIR", help="runs each stage again, for an SVG of it")
    parser.add_argument("--results", type=Path, metavar="FILE", help="adds the figures to this JSON file")
    args = parser.parse_args(argv)
    looks: dict[str, Look] = {}
    with tempfile.TemporaryDirectory(prefix="pawline-where-") as folder:
        workplace = Workplace(Path(folder))
        make_clone(workplace)
        apply_preset(workplace.clone / "params.yaml", read_preset(args.preset), args.archive.resolve(), seed=1)
        stages = read_stages(workplace.clone)
        wanted = args.stages or list(stages)
        for name in sorted(set(wanted) - set(stages)):
            parser.error(f"there is no stage {name}; there are {', '.join(stages)}")
        if args.flame_graphs is not None:
            args.flame_graphs.mkdir(parents=True, exist_ok=True)
        needed = list(stages)[: max(map(list(stages).index, wanted)) + 1]
        with Progress("stages", total=len(needed), unit="stages") as progress:
            for name in needed:
                graph = args.flame_graphs / f"{name}.svg" if args.flame_graphs and name in wanted else None
                looks[name] = look_at(stages[name], workplace, graph.resolve() if graph else None)
                progress.advance()
        disk = measure_disk(workplace.root)
    looks = {name: looks[name] for name in looks if name in wanted}
    print("\n".join(describe(name, look) for name, look in looks.items()))
    if args.results is not None:
        known = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
        found = {"machine": describe_machine(), "disk": disk, "preset": args.preset, "stages": looks}
        stage.write_json(known | {KEY: found}, args.results)


if __name__ == "__main__":
    stage.run(main)
