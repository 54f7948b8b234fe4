"""A stage on a small disk of its own, and what a fault makes of it.

What it reads is linked from a real run, what it wrote before is copied.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from tasks.parallel import available_processors
from tests.conftest import ROOT
from tests.faults import small_disk
from tests.faults.small_disk import SmallDisk
from tests.test_pipeline import STAGES, files_of, outputs

PAGE = os.sysconf("SC_PAGE_SIZE")
MEGABYTES = 400
SAYS_WHAT_FAILED = "reports/validation/"  # is replaced even if it fails
OF_A_LIBRARY = re.compile(r"memory|alloc|Resource temporarily unavailable", re.IGNORECASE)
Files = dict[str, bytes]
Done = subprocess.CompletedProcess[str]


class End(StrEnum):
    """How a stage ended under a fault."""

    WELL = "ended well"
    TOLD = "told it in one line"
    LIBRARY = "ended by a library, with its own line"
    KILLED = "killed by a signal, which DVC tells"
    WRONG = "wrong"


class Trial(NamedTuple):
    """What a stage made of a fault; `wrong` is empty if all is well."""

    stage: str
    end: End
    wrong: str


class Place:
    """A stage on a small disk, with what it reads and what it wrote before."""

    def __init__(self, name: str, finished: Path, disk: SmallDisk) -> None:
        self.name, self.disk, self.folder = name, disk, disk.inside / name
        self.chance = random.Random(name)  # noqa: S311 - not a secret
        self.outs = tuple(outputs(STAGES[name]))
        (self.folder / "tmp").mkdir(parents=True)
        for path in [*STAGES[name]["deps"], "params.yaml"]:
            if not path.startswith("tasks/"):
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / path).symlink_to(finished / path)
        for path in self.outs:
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (finished / path).is_dir() else shutil.copy
            copy(finished / path, self.folder / path)
        self.before = self.files()

    @property
    def largest_output(self) -> int:
        """Bytes that the largest of the outputs takes on the disk."""
        sizes = dict.fromkeys(self.outs, 0)
        for name, content in self.before.items():
            out = next(out for out in self.outs if name.startswith(out))
            sizes[out] += -(-len(content) // PAGE) * PAGE
        return max(sizes.values())

    def files(self) -> Files:
        """The outputs as they are."""
        return {name: content for name, content in files_of(self.folder).items() if name.startswith(self.outs)}

    def run(self, limits: Mapping[int, int] | None = None, env: Mapping[str, str] | None = None) -> Done:
        """Run the stage, as DVC does."""
        own = {"TMPDIR": str(self.disk.folder / self.name / "tmp"), "PYTHONPATH": str(ROOT), **(env or {})}
        return self.disk.run(sys.executable, "-m", f"tasks.{self.name}", place=self.name, env=own, limits=limits)

    def judge(self, done: Done, allowed: Iterable[End]) -> Trial:
        """Say how the stage ended, and what is wrong with that or with what it left."""
        end = _end(done)
        if end not in allowed:
            return Trial(self.name, end, f"{end}: exit code {done.returncode}, {(done.stdout + done.stderr)[-2000:]}")
        unfinished = [path.name for path in self.folder.rglob("*unfinished*") if ".pawline" not in path.parts]
        if unfinished and end is not End.KILLED:
            return Trial(self.name, end, f"{end}: it left {unfinished}")
        after = self.files()
        kept = [name for name in self.before if end is End.WELL or not name.startswith(SAYS_WHAT_FAILED)]
        changed = [name for name in kept if after.get(name) != self.before[name]]
        return Trial(self.name, end, f"{end}: gone or changed: {changed}" if changed else "")

    def wrong_afterwards(self) -> str:
        """Run the stage without a fault, and return what is wrong then."""
        done = self.run()
        if done.returncode != 0:
            return f"afterwards: exit code {done.returncode}, {done.stderr[-2000:]}"
        after = self.files()
        other = sorted(name for name in {*after, *self.before} if after.get(name) != self.before.get(name))
        return f"afterwards: other bytes in {other}" if other else ""


def _end(done: Done) -> End:
    said = done.stdout + done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode == 0:
        return End.WELL
    if done.returncode < 0:
        return End.KILLED
    if len(told) == 1 and done.stderr.endswith(f"{told[0]}\n") and "Traceback" not in said:
        return End.TOLD
    return End.LIBRARY if not told and "Traceback" not in said and OF_A_LIBRARY.search(said) else End.WRONG


def try_stages(
    names: Sequence[str], finished: Path, folder: Path, faults: Callable[[Place], Iterable[Done]], *allowed: End
) -> list[Trial]:
    """Bring faults about in stages, and let each run undisturbed afterwards: it has to give the bytes of before.

    Args:
        names: The stages.
        finished: A project with a finished run.
        folder: For their disks.
        faults: Runs a stage several times, each time under a fault.
        allowed: How it may end then.
    """

    def try_one(name: str) -> list[Trial]:
        with small_disk.mounted(folder / name, megabytes=MEGABYTES) as disk:
            place = Place(name, finished, disk)
            found = [place.judge(done, allowed) for done in faults(place)]
            afterwards = place.wrong_afterwards()
        return [trial._replace(wrong=trial.wrong or afterwards) for trial in found]

    with ThreadPoolExecutor(available_processors()) as pool:
        return [trial for trials in pool.map(try_one, names) for trial in trials]


def seen(trials: Sequence[Trial]) -> str:
    """Say in a line what was seen: what went wrong, or else how the stages ended."""
    wrong = [f"{trial.stage}: {trial.wrong}" for trial in trials if trial.wrong]
    ends = ", ".join(f"{count} {end}" for end, count in Counter(trial.end for trial in trials).most_common())
    return "; ".join(wrong) or f"{ends}; afterwards the same bytes"
