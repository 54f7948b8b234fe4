"""DVC, killed at random moments of its own work and with its stages: the next run ends as if nothing had been."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.mending import mend
from lineage.lockfile import parse_lock
from tests.faults.conftest import FULL, Report, Tries
from tests.faults.results import Fault
from tests.faults.small_graph import contents, environment, make_small_project
from tests.faults.stages import listing
from tests.flows.conftest import processes_in
from tests.flows.served import wait_for
from tests.once import made_once
from tests.test_pipeline import STAGES, run

CHANGES = 80  # that `dvc repro` makes to the small project's files, and more
LONGEST_SECONDS = 6.0  # into a stage


@pytest.fixture
def small(shared_folder: Path, tmp_path: Path) -> Path:
    """A small project in which nothing has run."""
    made = made_once(shared_folder / "small_graph", lambda folder: make_small_project(folder / "project"))
    shutil.copytree(made / "project", tmp_path / "project", symlinks=True)
    return tmp_path / "project"


def repro_killed(folder: Path, moment: str, number: int, *, alone: bool) -> bool:
    """Run `dvc repro` that dies at a moment; return whether it came to that."""
    who = "alone" if alone else "group"
    command = [sys.executable, "-m", "tests.faults.killed_dvc", moment, str(number), who, "repro"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, check=False, text=True, start_new_session=True
    )
    assert done.returncode in (0, -9), done.stdout + done.stderr
    return done.returncode != 0


def is_undisturbed(folder: Path, expected: dict[str, bytes], lock: bytes, *, mended: bool = False) -> bool:
    """Run what is next, and say whether everything is as it must be and DVC would run nothing but `source`."""
    wait_for(60, lambda: processes_in(folder) == [])
    if mended:
        subprocess.run([sys.executable, "-P", "-m", "flows.mending"], cwd=folder, env=environment(), check=True)
    done = run_dvc(folder, "repro")
    same = contents(folder) == expected and (folder / "dvc.lock").read_bytes() == lock
    return (
        done.returncode == 0 and same and '"source": ["always changed"]}' in run_dvc(folder, "status", "--json").stdout
    )


def run_dvc(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["dvc", *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def undisturbed(folder: Path) -> tuple[dict[str, bytes], bytes]:
    """Run an equal project, and return its outputs and its dvc.lock."""
    other = folder.with_name("undisturbed")
    shutil.copytree(folder, other, symlinks=True)
    assert run_dvc(other, "repro").returncode == 0
    return contents(other), (other / "dvc.lock").read_bytes()


def afresh(folder: Path, number: int) -> Path:
    """Return another copy of the small project."""
    copy = folder.with_name(f"try{number}")
    shutil.copytree(folder, copy, symlinks=True)
    return copy


@pytest.mark.usefixtures("whole_suite_only")
def test_killed_before_any_change_that_it_makes(
    small: Path, tries: Tries, chance: random.Random, report: Report
) -> None:
    expected, lock = undisturbed(small)
    wanted, held, at, number = tries(1, 20), 0, list[int](), 0
    while len(at) < wanted:
        number += 1
        folder, change = afresh(small, number), chance.randint(1, CHANGES)
        if repro_killed(folder, "change", change, alone=number % 2 == 0):
            at.append(change)
            held += is_undisturbed(folder, expected, lock)
        shutil.rmtree(folder)
        assert number < 5 * wanted + 10
    seen = f"before its change number {', '.join(map(str, sorted(at)))}; every other time its stages were spared"
    report(Fault.DEATH, "DVC killed at its own work, four small stages", tries=wanted, held=held, seen=seen)


@pytest.mark.parametrize("file", ["lock", "rwlock"])
def test_killed_in_the_middle_of_a_file_of_its_own(
    file: str, small: Path, tries: Tries, chance: random.Random, report: Report
) -> None:
    """Which no DVC command reads any more: `make repro` and `pawline run` mend it."""
    if not FULL and file == "rwlock":
        pytest.skip("`make faults` runs it")
    expected, lock = undisturbed(small)
    wanted, held, refused = tries(1, 10), 0, 0
    for number in range(wanted):
        folder = afresh(small, number)
        part = 0 if number == 1 else chance.randint(5, 95)
        assert repro_killed(folder, file, part, alone=number % 2 == 0)
        wait_for(60, lambda folder=folder: processes_in(folder) == [])  # type: ignore[misc]
        refused += run_dvc(afresh(folder, 1000 + number), "repro").returncode != 0
        held += is_undisturbed(folder, expected, lock, mended=True)
    name = {"lock": "dvc.lock", "rwlock": ".dvc/tmp/rwlock"}[file]
    seen = f"`dvc repro` alone would have failed {refused} times; mended, it carries on"
    report(Fault.DEATH, f"DVC killed while it wrote `{name}`", tries=wanted, held=held, seen=seen)


@pytest.mark.usefixtures("whole_suite_only")
def test_killed_with_each_stage_of_the_real_graph(
    three_runs_made: Path, tmp_path: Path, chance: random.Random, report: Report
) -> None:
    """One run from nothing, whose DVC is killed in every stage; every other time the stage is not told."""
    folder = tmp_path / "project"
    shutil.copytree(three_runs_made / "project", folder, symlinks=True)
    run(["git", "reset", "--quiet", "--hard", "HEAD~2"], folder)
    expected = parse_lock((folder / "dvc.lock").read_bytes())
    for path in ("data", "models", "reports", ".dvc/cache", ".dvc/tmp", "dvc.lock"):
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
    run(["git", "checkout", "--quiet", "HEAD", "--", "reports"], folder)
    killed: list[str] = []
    for number in range(3 * len(STAGES)):
        mend(folder)
        stage = repro_until_killed(folder, killed, chance.uniform(0, LONGEST_SECONDS), alone=number % 2 == 0)
        if stage is None:
            break
        killed.append(stage)
    wait_for(60, lambda: processes_in(folder) == [])
    lock = parse_lock((folder / "dvc.lock").read_bytes())
    held = sum(lock.get(stage) == expected[stage] for stage in STAGES)
    left = [path for path in listing(folder) if "unfinished" in path or path.startswith(".pawline")]
    assert left == []
    status = run(["dvc", "status", "--json"], folder).stdout
    assert '"source": ["always changed"]}' in status
    assert set(killed) == set(STAGES)
    seen = f"{len(killed)} kills on the way of one run from nothing, each amid a stage; dvc.lock is the same"
    report(Fault.DEATH, "DVC killed with each stage of the real graph", tries=len(STAGES), held=held, seen=seen)


def repro_until_killed(folder: Path, spared: list[str], seconds: float, *, alone: bool) -> str | None:
    """Run `dvc repro`, and kill it in the first stage that is not spared; return which, or None if none was."""
    env = environment() | {"PYTHONPATH": str(folder)}
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        running = re.match(r"Running stage '(\w+)'", line)
        if running and running[1] not in spared:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.01)
            process.kill() if alone else os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return running[1]
    assert process.wait() == 0, "".join(said)
    return None
