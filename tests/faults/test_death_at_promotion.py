"""Prefect, DVC and git, killed around a promotion: the champion is the old or the new one, whole and verified."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lineage.runs import Project, find_run
from registry.champion import promote
from registry.register import find_registered, register
from tests.faults.champions import (
    Command,
    champion_name,
    is_whole,
    make_contested,
    pawline,
    put_back,
    refs,
    run_killed,
)
from tests.faults.conftest import FULL, Report, Tries
from tests.faults.results import Fault
from tests.flows.conftest import processes_in
from tests.flows.served import wait_for
from tests.once import made_once
from tests.plumbing import git_in

# Git runs it while it holds the lock of a ref: kills that git, or its process group, at the n-th.
HOOK = """\
#!/bin/sh
test "$1" = prepared || exit 0
n=$(($(cat "$COUNT") + 1)); echo $n > "$COUNT"
test "$n" = "$KILL_AT" && kill -9 {whom}
exit 0
"""
LONGEST_SECONDS = 6.0  # after a marker
TRANSACTIONS = 4  # a version's branch and tag, a champion's branch and tag
OLD, NEW = "v1.0.0", "v2.0.0"

KillingGit = Callable[[str, int], None]


@pytest.fixture
def registered(three_runs: Path, tmp_path: Path) -> Path:
    """A project with a champion, and a run to replace it."""
    project = Project(three_runs)
    register(project, find_run(project, "HEAD~2"), reason="")
    promote(project, find_run(project, OLD), reason="")
    return three_runs


def replace_champion(folder: Path) -> None:
    """Register the run and promote it, as a retraining does at its end."""
    project = Project(folder)
    challenger = find_run(project, "HEAD~1")
    if find_registered(project, challenger.commit or "") is None:
        register(project, challenger, reason="")
    promote(project, find_run(project, NEW), reason="")


@pytest.fixture
def killing_git(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KillingGit]:
    """Choose whom git kills when: `$PPID`, itself, or `0`, its group."""
    hook = registered / ".git/hooks/reference-transaction"
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    monkeypatch.setattr("lineage.git.DEAD_LOCK_SECONDS", 0.5)

    def choose(whom: str, number: int) -> None:
        hook.write_text(HOOK.format(whom=whom))
        hook.chmod(0o755)
        (tmp_path / "count").write_text("0")
        monkeypatch.setenv("KILL_AT", str(number))

    yield choose
    hook.unlink(missing_ok=True)


@pytest.mark.parametrize("whom", ["$PPID", "0"], ids=["git", "git and pawline"])
def test_killed_while_git_holds_a_lock(whom: str, registered: Path, killing_git: KillingGit, report: Report) -> None:
    """The lock file stays behind; whoever comes next removes it."""
    if not FULL and whom != "0":
        pytest.skip("`make faults` runs it")
    before, held, locks = refs(registered), 0, 0
    numbers = range(1, TRANSACTIONS + 1) if FULL else [TRANSACTIONS - 1]
    for number in numbers:
        killing_git(whom, number)
        code, _ = run_killed(lambda: replace_champion(registered))
        assert code == (-signal.SIGKILL if whom == "0" else 0)
        locks += len([path for path in (registered / ".git/refs").rglob("*.lock")])
        whole = champion_name(registered) in (OLD, NEW) and is_whole(registered, interrupted=True)
        replace_champion(registered)
        ends_well = champion_name(registered) == NEW and is_whole(registered)
        held += whole and ends_well and not [*(registered / ".git/refs").rglob("*.lock")]
        put_back(registered, before)
    who = "git killed while it held the lock of a ref" + (", and Pawline with it" if whom == "0" else "")
    seen = f"{locks} lock files were left, and the next one removed them" if whom == "0" else "Pawline removed the lock"
    report(Fault.DEATH, f"{who}, at each of a promotion's refs", tries=len(numbers), held=held, seen=seen)


@pytest.mark.usefixtures("whole_suite_only")
def test_killed_at_a_random_moment_of_a_promotion(
    registered: Path, tries: Tries, chance: random.Random, report: Report
) -> None:
    before = refs(registered)
    code, seconds = run_killed(lambda: replace_champion(registered))
    assert (code, champion_name(registered)) == (0, NEW)
    put_back(registered, before)
    wanted, held, killed, found = tries(2, 20), 0, 0, {OLD: 0, NEW: 0}
    for number in range(3 * wanted):
        code, _ = run_killed(lambda: replace_champion(registered), chance.uniform(0, seconds), alone=number % 2 == 0)
        if code == 0:
            put_back(registered, before)
            continue
        killed += 1
        wait_for(60, lambda: processes_in(registered) == [])
        found[champion_name(registered) or ""] += 1
        whole = is_whole(registered, interrupted=True)
        replace_champion(registered)
        held += whole and champion_name(registered) == NEW and is_whole(registered)
        put_back(registered, before)
        if killed == wanted:
            break
    seen = f"within {seconds:.1f} s; the old champion {found[OLD]} times, the new one {found[NEW]} times, each verified"
    report(Fault.DEATH, "Pawline killed while it registers and promotes", tries=wanted, held=held, seen=seen)


MARKERS = ("report     | ", "score: ")  # in the log: the last stage; the models have answered
VICTIMS = ("pawline", "Prefect's server", "DVC or the models' process", "all of them")


@pytest.mark.usefixtures("whole_suite_only")
def test_a_retraining_killed_on_its_way_to_a_promotion(
    three_runs_made: Path,
    shared_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chance: random.Random,
    report: Report,
) -> None:
    """One retraining after another is killed, each carries on; the last one ends, and promotes."""
    folder = contested_copy(three_runs_made, shared_folder, tmp_path, monkeypatch)
    kills, held, tried, champions = 0, 0, 0, []
    for number in range(2 * len(VICTIMS)):
        victim = VICTIMS[number % len(VICTIMS)]
        with Command(folder, "retrain") as at_work:
            if not at_work.wait_for(MARKERS[number % len(MARKERS)]) or champion_name(folder) != OLD:
                break
            end_after(at_work, chance.uniform(0, LONGEST_SECONDS), victim)
            code, said = at_work.end()
            wait_for(600, lambda: processes_in(tmp_path) == [])  # the temporary server, too
        kills += code != 0
        assert "Traceback" not in said or code < 0, said
        champions.append(champion_name(folder))
        tried += 1
        held += champions[-1] in (OLD, NEW) and is_whole(folder, interrupted=True)
        if champions[-1] == NEW:
            break
    code, said = pawline(folder, "retrain")
    assert code == 0, said
    assert champion_name(folder) == NEW, said
    assert is_whole(folder)
    assert git_in(folder, "worktree", "list", "--porcelain").count("worktree ") == 1
    seen = f"{kills} ended by it, {', '.join(VICTIMS)} in turn; the champion was {OLD} until the end, and {NEW} then"
    report(Fault.DEATH, "`pawline retrain` killed on its way to a promotion", tries=tried, held=held, seen=seen)


def contested_copy(three_runs_made: Path, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the project whose champion is at stake."""
    made = made_once(shared_folder / "contested", lambda folder: make_contested(three_runs_made, folder))
    subprocess.run(["cp", "-a", str(made / "project"), str(made / "config"), str(tmp_path)], check=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "project"


def end_after(at_work: Command, seconds: float, victim: str) -> None:
    """Kill one of a retraining's processes after some seconds, if it is still at work."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and at_work.process.poll() is None:
        time.sleep(0.02)
    for process in chosen(at_work.process.pid, victim):
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def chosen(pid: int, victim: str) -> list[psutil.Process]:
    """Return the processes of a retraining that are to die."""
    try:
        main = psutil.Process(pid)
        children = main.children(recursive=True)
        server = [child for child in children if "uvicorn" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []
    if victim == VICTIMS[0]:
        return [main]
    if victim == VICTIMS[1]:
        return server
    if victim == VICTIMS[2]:
        return [child for child in children if child not in server]
    return [main, *children]
