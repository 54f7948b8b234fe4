"""What the machine lacks: room on the disk, the right to write, open files, memory, and a clock that stays right.

A stage is tried on a small disk of its own: what it reads is linked from a real run, what it wrote before is copied.
"""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT
from tests.faults import small_disk
from tests.faults.conftest import FULL, Report, Tries
from tests.faults.results import Fault
from tests.faults.small_disk import SmallDisk
from tests.test_pipeline import STAGES, files_of, outputs, run, set_params

PAGE = os.sysconf("SC_PAGE_SIZE")
LIGHT = ("source", "ingest")  # no stage that takes seconds to start
CHOSEN = tuple(STAGES) if FULL else LIGHT
SAYS_WHAT_FAILED = "reports/validation/"  # is replaced even if it fails
Files = dict[str, bytes]


@pytest.fixture(scope="session")
def finished(three_runs_made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run; the one that fine-tunes, where all stages are tried."""
    if not FULL:
        return three_runs_made / "project"
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(three_runs_made / "project", folder, symlinks=True)
    run(["git", "reset", "--quiet", "--hard", "HEAD~1"], folder)
    run(["dvc", "checkout", "--quiet"], folder)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk.mounted(tmp_path / "disk", megabytes=400) as mounted:
        yield mounted


class Place:
    """A stage on a small disk, with what it reads and what it wrote before."""

    def __init__(self, name: str, finished: Path, disk: SmallDisk) -> None:
        self.name, self.disk, self.folder = name, disk, disk.inside / name
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

    def files(self) -> Files:
        """The outputs as they are."""
        return {name: content for name, content in files_of(self.folder).items() if name.startswith(self.outs)}

    def run(self, limits: Mapping[int, int] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the stage, as DVC does."""
        env = {"TMPDIR": str(self.disk.folder / self.name / "tmp"), "PYTHONPATH": str(ROOT)}
        return self.disk.run(sys.executable, "-m", f"tasks.{self.name}", place=self.name, env=env, limits=limits)

    def wrong_after_fault(self, done: subprocess.CompletedProcess[str]) -> str:
        """Return what is wrong with how the stage ended and with what it left; nothing if all is well."""
        if done.returncode == 0:
            return "it ended well"
        if done.returncode != 1 or not is_one_line(done):
            return f"exit code {done.returncode}, {(done.stdout + done.stderr)[-2000:]}"
        unfinished = [path.name for path in self.folder.rglob("*unfinished*") if ".pawline" not in path.parts]
        if unfinished:
            return f"it left {unfinished}"
        after = self.files()
        changed = [
            name
            for name in self.before
            if after.get(name) != self.before[name] and not name.startswith(SAYS_WHAT_FAILED)
        ]
        return f"earlier outputs are gone or changed: {changed}" if changed else ""

    def wrong_afterwards(self) -> str:
        """Run the stage without a fault, and return what is wrong then."""
        done = self.run()
        if done.returncode != 0:
            return f"afterwards: exit code {done.returncode}, {done.stderr[-2000:]}"
        after = self.files()
        other = sorted(name for name in {*after, *self.before} if after.get(name) != self.before.get(name))
        return f"afterwards: other bytes in {other}" if other else ""


def is_one_line(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether an error is told in one line, the last one, and in no traceback."""
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return len(told) == 1 and done.stderr.endswith(f"{told[0]}\n") and "Traceback" not in done.stdout + done.stderr


def pages(folder: Path) -> int:
    """Return how many pages of a tmpfs the files of a folder, or one file, take."""
    files = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // PAGE) for path in files)


def test_a_full_disk(finished: Path, disk: SmallDisk, chance: random.Random, tries: Tries, report: Report) -> None:
    """As full as the largest output does not fit, somewhere between its first page and its last."""
    wrong, tried = [], 0
    for name in CHOSEN:
        place = Place(name, finished, disk)
        largest = max(pages(place.folder / path) for path in place.outs)
        for _ in range(tries(1, 2)):
            tried += 1
            disk.fill(chance.randrange(largest) * PAGE)
            done = place.run()
            problem = place.wrong_after_fault(done) or ("" if done.returncode else "it found room")
            disk.make_room()
            problem = problem or place.wrong_afterwards()
            wrong += [f"{name}: {problem}"] if problem else []
    report(
        Fault.RESOURCES,
        f"a full disk under {len(CHOSEN)} stages",
        tries=tried,
        held=tried - len(wrong),
        seen=seen(wrong),
    )


def test_a_disk_that_cannot_be_written(finished: Path, disk: SmallDisk, report: Report) -> None:
    places = [Place(name, finished, disk) for name in CHOSEN]
    disk.set_read_only(True)
    wrong = {
        place.name: place.wrong_after_fault(done) if (done := place.run()).returncode else "no error"
        for place in places
    }
    disk.set_read_only(False)
    wrong = {place.name: wrong[place.name] or place.wrong_afterwards() for place in places}
    told = [f"{name}: {problem}" for name, problem in wrong.items() if problem]
    what = f"a read-only disk under {len(places)} stages"
    report(Fault.RESOURCES, what, tries=len(places), held=len(places) - len(told), seen=seen(told))


def seen(wrong: list[str], otherwise: str = "the same bytes afterwards") -> str:
    """Return what a report says was seen."""
    return "; ".join(wrong) or otherwise


class Command(NamedTuple):
    """A command that writes, what has to be changed before it has anything to do, and whether it did it.

    Attributes:
        words: Of the command line.
        prepare: Is called with the project's folder.
        is_done: With the disk.
    """

    words: tuple[str, ...]
    prepare: Callable[[Path], object]
    is_done: Callable[[SmallDisk], bool]


def lose_outputs(project: Path) -> None:
    for name in ("data", "models"):
        shutil.rmtree(project / name)


def champions(disk: SmallDisk) -> str:
    return disk.run("git", "tag", "--list", "classifier#*", place=PROJECT).stdout


COMMANDS = (
    Command(
        ("pawline", "promote", "HEAD", "--reason", "better"),
        lambda project: None,
        lambda disk: bool(champions(disk)),
    ),
    Command(
        ("dvc", "checkout"), lose_outputs, lambda disk: (disk.inside / PROJECT / "models/classifier.keras").is_file()
    ),
    Command(
        ("dvc", "repro", "ingest"),
        lambda project: set_params(project, {"data.synthetic_images": 95}),
        lambda disk: "95" in (disk.inside / PROJECT / "data/source.json").read_text(),
    ),
)
PROJECT = "project"
MOST_ROOM = 4**8  # pages: a gigabyte


def test_commands_on_a_disk_that_cannot_be_written(
    three_runs_made: Path, disk: SmallDisk, tmp_path: Path, report: Report
) -> None:
    """On a read-only disk; then on one with no room at all, and with ever more until it is enough."""
    project = disk.inside / PROJECT
    shutil.copytree(three_runs_made / "project", project, symlinks=True)
    for command in COMMANDS[: None if FULL else 1]:
        command.prepare(project)
        before = champions(disk)
        disk.set_read_only(True)
        done = type_on(disk, command, tmp_path)
        disk.set_read_only(False)
        wrong, tried, room = [wrong_with(done) or ("" if done.returncode else "it ended well")], 1, 0
        while True:
            disk.fill(room * PAGE)
            done = type_on(disk, command, tmp_path)
            disk.make_room()
            if done.returncode == 0:
                break
            tried += 1
            wrong.append(wrong_with(done) or ("" if champions(disk) == before else "another champion"))
            room = max(1, 4 * room)
            assert room <= MOST_ROOM, done.stdout + done.stderr
        assert disk.run("git", "fsck", "--strict", place=PROJECT).returncode == 0
        assert command.is_done(disk), done.stdout + done.stderr
        found = [one for one in wrong if one]
        what = f"`{' '.join(command.words)}` on a read-only disk, and on one with too little room"
        otherwise = f"done as soon as {room * PAGE / 1e6:.1f} MB were free"
        report(Fault.RESOURCES, what, tries=tried, held=tried - len(found), seen=seen(found, otherwise))


def type_on(disk: SmallDisk, command: Command, folder: Path) -> subprocess.CompletedProcess[str]:
    """Type a command in the project on a disk; the user's own settings are on another."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "DVC_NO_ANALYTICS": "1", "XDG_CONFIG_HOME": str(folder), "PYTHONPATH": "."}
    return disk.run(*command.words, place=PROJECT, env=env)


def wrong_with(done: subprocess.CompletedProcess[str]) -> str:
    """Return what is wrong with how a command failed; nothing if it said why in one line, and DVC maybe in another."""
    lines = done.stderr.splitlines()
    told = [sum(line.startswith(who) for line in lines) for who in ("error: ", "ERROR: ")]
    bad = done.returncode != 0 and (sum(told) == 0 or max(told) > 1 or "Traceback" in done.stdout + done.stderr)
    return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-3000:]}" if bad else ""
