"""What the machine lacks: room on the disk, the right to write, open files, memory, and a clock that stays right."""

import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT
from tests.faults import faked_clock, little_memory, small_disk
from tests.faults.conftest import FULL, Report, Tries
from tests.faults.faked_clock import FakedClock
from tests.faults.results import Fault
from tests.faults.small_disk import SmallDisk
from tests.faults.stage_place import PAGE, Done, End, Place, Trial, seen, try_stages
from tests.test_pipeline import STAGES, run, set_params

CHOSEN = tuple(STAGES) if FULL else ("source", "ingest")  # else none that takes seconds to start


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
def say(report: Report) -> Callable[[str, list[Trial]], None]:
    """Report trials of stages."""

    def save(what: str, trials: list[Trial]) -> None:
        held = sum(not trial.wrong for trial in trials)
        what = f"{what}, {len(CHOSEN)} stages"
        report(Fault.RESOURCES, what, tries=len(trials), held=held, seen=seen(trials))

    return save


Say = Callable[[str, list[Trial]], None]


def test_a_full_disk(finished: Path, tmp_path: Path, tries: Tries, say: Say) -> None:
    """So full that half of the largest output does not fit; what is linked from earlier outputs takes no room."""

    def fill(place: Place) -> Iterator[Done]:
        for _ in range(tries(1, 2)):
            place.disk.fill(place.chance.randrange(max(1, place.largest_output // 2)))
            yield place.run()
            place.disk.make_room()

    say("a full disk", try_stages(CHOSEN, finished, tmp_path, fill, End.TOLD, End.WELL))


def test_a_read_only_disk(finished: Path, tmp_path: Path, say: Say) -> None:
    def lock(place: Place) -> Iterator[Done]:
        place.disk.set_read_only(True)
        yield place.run()
        place.disk.set_read_only(False)

    say("a read-only disk", try_stages(CHOSEN, finished, tmp_path, lock, End.TOLD))


def test_few_open_files(finished: Path, tmp_path: Path, tries: Tries, say: Say) -> None:
    def limit(place: Place) -> Iterator[Done]:
        for _ in range(tries(1, 2)):
            yield place.run({resource.RLIMIT_NOFILE: place.chance.randrange(5, 10)})

    say("5 to 9 open files", try_stages(CHOSEN, finished, tmp_path, limit, End.TOLD, End.WELL))


def test_little_memory(finished: Path, tmp_path: Path, tries: Tries, say: Say) -> None:
    """From less than the first library takes to about what the largest stage takes."""

    def limit(place: Place) -> Iterator[Done]:
        for _ in range(tries(1, 2)):
            yield place.run({resource.RLIMIT_AS: int(3e7 * 100 ** place.chance.random())})

    ends = (End.TOLD, End.WELL, End.LIBRARY, End.KILLED)
    say("30 MB to 3 GB of addresses", try_stages(CHOSEN, finished, tmp_path, limit, *ends))


LIMITS_MB = (250, 300, 350)  # enough for DVC, and not for the stage


@pytest.mark.usefixtures("whole_suite_only")
def test_the_systems_out_of_memory_killer(finished: Path, tmp_path: Path, report: Report) -> None:
    """It kills the stage, or one of its worker processes; the next run comes to the same end."""
    project = tmp_path / "project"
    shutil.copytree(finished, project, symlinks=True)
    command, wrong = ["dvc", "repro", "--single-item", "--force", "features"], []
    for megabytes in LIMITS_MB:
        with little_memory.limited(megabytes * 10**6) as within:
            done = run([*within, *command], project, check=False)
        killed = "failed to run: python -m tasks.features, exited with -9" in done.stderr
        told = "error: a worker process died" in done.stderr
        run(command, project)
        problem = run(["git", "status", "--porcelain"], project).stdout
        if problem or not (killed or told):
            wrong.append(f"{megabytes} MB: {done.returncode}, {done.stdout}{done.stderr}, {problem}")
    held = len(LIMITS_MB) - len(wrong)
    seen_then = "; ".join(wrong) or "one line that says so; the same `dvc.lock` afterwards"
    what = "the out-of-memory killer under `dvc repro features`"
    report(Fault.RESOURCES, what, tries=len(LIMITS_MB), held=held, seen=seen_then)


@pytest.fixture
def clock(tmp_path: Path) -> FakedClock:
    return faked_clock.make(tmp_path / "clock")


def test_a_clock_that_jumps(finished: Path, tmp_path: Path, clock: FakedClock, say: Say) -> None:
    """A day on and a day back, all the time that a stage is at work."""

    def jump(place: Place) -> Iterator[Done]:
        with clock.jumping():
            yield place.run(env=clock.env)

    say("a clock that jumps by a day, to and fro", try_stages(CHOSEN, finished, tmp_path, jump, End.WELL))


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
MORE_ROOM = 4 if FULL else 16  # times as much for the next try
MOST_ROOM = 4**8  # pages: a gigabyte


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk.mounted(tmp_path / "disk", megabytes=800) as mounted:
        yield mounted


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
            room = max(1, MORE_ROOM * room)
            assert room <= MOST_ROOM, done.stdout + done.stderr
        assert disk.run("git", "fsck", "--strict", place=PROJECT).returncode == 0
        assert command.is_done(disk), done.stdout + done.stderr
        found = [one for one in wrong if one]
        what = f"`{' '.join(command.words)}` on a read-only disk, and on one with too little room"
        otherwise = f"done as soon as {room * PAGE / 1e6:.1f} MB were free"
        report(Fault.RESOURCES, what, tries=tried, held=tried - len(found), seen="; ".join(found) or otherwise)


def type_on(disk: SmallDisk, command: Command, folder: Path) -> Done:
    """Type a command in the project on a disk; the user's own settings are on another."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "DVC_NO_ANALYTICS": "1", "XDG_CONFIG_HOME": str(folder), "PYTHONPATH": "."}
    return disk.run(*command.words, place=PROJECT, env=env)


def wrong_with(done: Done) -> str:
    """Return what is wrong with how a command failed; nothing if it said why in one line, and DVC maybe in another."""
    lines = done.stderr.splitlines()
    told = [sum(line.startswith(who) for line in lines) for who in ("error: ", "ERROR: ")]
    bad = done.returncode != 0 and (sum(told) == 0 or max(told) > 1 or "Traceback" in done.stdout + done.stderr)
    return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-3000:]}" if bad else ""


def test_a_full_disk_under_prefect(disk: SmallDisk, tmp_path: Path, report: Report) -> None:
    """Prefect itself would try for minutes, and then tell of something else."""
    project = disk.inside / PROJECT
    project.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, project)
    disk.fill(PAGE)
    commands = [Command(("pawline", name), lambda _: None, lambda _: True) for name in ("retrain", "ui")]
    ended = {" ".join(command.words): type_on(disk, command, tmp_path) for command in commands[: None if FULL else 1]}
    wrong = [f"{name}: {done.stdout}{done.stderr}" for name, done in ended.items() if not told_of_prefects_home(done)]
    what = f"{', '.join(f'`{name}`' for name in ended)} where Prefect's disk is full"
    held = len(ended) - len(wrong)
    report(Fault.RESOURCES, what, tries=len(ended), held=held, seen="; ".join(wrong) or "one line, at once")


def told_of_prefects_home(done: Done) -> bool:
    one_line = re.fullmatch(r"error: .*: no space left on the disk: Prefect keeps its records there; .*\n", done.stderr)
    return done.returncode == 1 and one_line is not None
