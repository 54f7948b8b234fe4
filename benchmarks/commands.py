"""What it costs to start each command: `pawline NAME --help`, imports included, against Python with nothing to do.

    python -m benchmarks.commands                    each command three times, in turns
    python -m benchmarks.commands --rounds 5

A command imports what it needs where it needs it: none of them may have loaded TensorFlow by the time it has said how
it is used (tests/flows/test_cli.py).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import describe_machine
from flows.cli import COMMANDS
from tasks import stage
from tasks.progress import Progress

KEY = "commands"
NOTHING = "python"  # -c pass
HELP = "import sys; from flows.cli import main; sys.argv = ['pawline', {name!r}, '--help']; main()"


def measure(rounds: int) -> dict[str, float]:
    """Return the median seconds of each command, and of Python alone."""
    code = {NOTHING: "pass"} | {name: HELP.format(name=name) for name in COMMANDS}
    seconds: dict[str, list[float]] = {name: [] for name in code}
    with Progress("commands", total=rounds * len(code), unit="runs") as progress:
        for _ in range(rounds):
            for name in code:
                seconds[name].append(_run_timed(code[name]))
                progress.advance()
    return {name: round(statistics.median(took), 3) for name, took in seconds.items()}


def _run_timed(code: str) -> float:
    started = time.perf_counter()
    command, environment = [sys.executable, "-c", code], os.environ | {"TERM": "dumb"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - fixed commands
    return time.perf_counter() - started


def main(argv: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(default: 3)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="adds the figures to this JSON file")
    args = parser.parse_args(argv)
    seconds = measure(args.rounds)
    print("\n".join(f"{name:<12}{took:6.2f} s" for name, took in seconds.items()))
    if args.results is not None:
        known = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
        found = {"machine": describe_machine(), "seconds": seconds}
        stage.write_json(known | {KEY: found}, args.results)


if __name__ == "__main__":
    main()
