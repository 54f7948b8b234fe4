"""Every comparison, one after the other, and docs/performance.md from what came out: hours on two cores.

    python -m benchmarks.run_all                     all of them
    python -m benchmarks.run_all features stage2     some; the others keep their figures

Comparisons that need a finished run on real photos get one: the two-stage recipe (preset s4) on the archive, in a clone
of the last commit. The machine should have nothing else to do.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import performance_page, seed_table
from benchmarks.seed_table import ROOT, Workplace
from tasks.stage import PawlineError

REPEATED_FILES = 5140  # four fifths of the good ones are 4,000 training photos
RUN = "{run}"  # where an argument names the finished run
OF_THE_RUN = ("--params", f"{RUN}/params.yaml", "--backbone-dir", f"{RUN}/models/backbone")
COMPARISONS: dict[str, list[list[str]]] = {
    "limits": [["limits", *OF_THE_RUN]],
    "features": [["features", *OF_THE_RUN, "--tfrecords-dir", f"{RUN}/data/tfrecords", "--images", "1024"]],
    "stage2": [
        [
            *("stage2", *OF_THE_RUN, "--table", f"{RUN}/data/images.parquet"),
            *("--features-dir", f"{RUN}/data/features", "--stage1-dir", f"{RUN}/models/stage1"),
        ]
    ],
    "validation": [["validation"]],
    "tfrecords": [["tfrecords"]],
    "whole": [["whole"], ["whole", "--files", str(REPEATED_FILES), "--seeds", "1", "--head-rounds", "1"]],
    "nothing": [["nothing"]],
    "new_photos": [["new_photos"], ["new_photos", "--among"]],
    "where": [["where"]],
    "commands": [["commands"]],
    "growth": [["growth", "--again"]],
    "leading": [["leading"]],
    "simulate": [["simulate", "--check"]],
}


def finish_run(folder: Path) -> Path:
    """Run the two-stage recipe on the archive; return the project."""
    workplace = Workplace(folder)
    seed_table.make_clone(workplace)
    archive = seed_table.SHARED_DATA / "petimages.zip"
    seed_table.apply_preset(workplace.clone / "params.yaml", seed_table.read_preset("s4"), archive, 1)
    seed_table.run_timed([sys.executable, "-m", "dvc", "repro", "evaluate"], workplace, cwd=workplace.clone)
    return workplace.clone


def main(argv: list[str] | None = None) -> None:
    """Run the comparisons and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMPARISONS))
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "performance.json", metavar="FILE")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.names) - set(COMPARISONS))
    if unknown:
        parser.error(f"there is no comparison {unknown[0]}; there are {', '.join(COMPARISONS)}")
    chosen = [command for name in args.names or COMPARISONS for command in COMPARISONS[name]]
    with tempfile.TemporaryDirectory(prefix="pawline-benchmarks-") as folder:
        try:
            seed_table.check_ready(["s4"])
            needs_run = any(RUN in argument for command in chosen for argument in command)
            run = str(finish_run(Path(folder))) if needs_run else ""
        except PawlineError as error:
            parser.exit(1, f"error: {error}\n")
        for name, *arguments in chosen:
            filled = [argument.replace(RUN, run) for argument in arguments]
            command = [sys.executable, "-m", f"benchmarks.{name}", *filled, "--results", str(args.results.resolve())]
            if subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603 - fixed commands
                parser.exit(1, f"error: benchmarks.{name} failed; the figures before it are in {args.results}\n")
    performance_page.main(["--results", str(args.results), "--page-out", str(args.results.with_suffix(".md"))])


if __name__ == "__main__":
    main()
