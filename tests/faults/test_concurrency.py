"""Two at once: who comes second waits or is refused clearly, and nothing is corrupted."""

import json
import random
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.champions import Command, champion_name, is_whole, pawline
from tests.faults.conftest import Report, Tries
from tests.faults.results import Fault
from tests.faults.small_graph import contents, environment, make_small_project
from tests.faults.test_death_at_promotion import NEW, OLD, contested_copy
from tests.flows.conftest import SLEEPS, processes_in
from tests.flows.served import wait_for
from tests.once import made_once
from tests.plumbing import git_in
from tests.test_pipeline import run

AUDITS = (("verify", "champion"), ("lineage", "champion", "--json"), ("models", "--json"), ("verify", "v1"))


@pytest.fixture
def small(shared_folder: Path, tmp_path: Path) -> Path:
    """A small project in which nothing has run."""
    made = made_once(shared_folder / "small_graph", lambda folder: make_small_project(folder / "project"))
    shutil.copytree(made / "project", tmp_path / "project", symlinks=True)
    return tmp_path / "project"


def start_dvc(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["dvc", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_settled(folder: Path, expected: dict[str, bytes]) -> bool:
    """Say whether the next `dvc repro` ends well, with the right outputs, and leaves nothing to do."""
    again = start_dvc(folder, "repro")
    again.communicate()
    status = json.loads(start_dvc(folder, "status", "--json").communicate()[0])
    return again.returncode == 0 and contents(folder) == expected and status == {"source": ["always changed"]}


def test_a_second_dvc_repro_is_refused_while_a_stage_runs(small: Path) -> None:
    (small / "tasks/left.py").write_text(SLEEPS.format(name="left"))
    first = start_dvc(small, "repro")
    wait_for(60, lambda: any("tasks.left" in command for command in processes_in(small)))
    second = start_dvc(small, "repro", "left")
    refused, _ = second.communicate(timeout=120)
    (small / "go").touch()
    said, _ = first.communicate(timeout=120)
    assert second.returncode != 0
    assert is_clear(refused)
    assert first.returncode == 0, said
    assert is_settled(small, contents(small))


@pytest.mark.usefixtures("whole_suite_only")
def test_two_dvc_repro_at_once(small: Path, tries: Tries, chance: random.Random, report: Report) -> None:
    shutil.copytree(small, small.with_name("alone"), symlinks=True)
    assert start_dvc(small.with_name("alone"), "repro").wait() == 0
    expected = contents(small.with_name("alone"))
    wanted, held, refused = tries(1, 20), 0, 0
    for number in range(wanted):
        folder = small.with_name(f"try{number}")
        shutil.copytree(small, folder, symlinks=True)
        first = start_dvc(folder, "repro")
        time.sleep(chance.uniform(0, 2))
        second = start_dvc(folder, "repro")
        said = [process.communicate(timeout=300)[0] for process in (first, second)]
        codes = [process.returncode for process in (first, second)]
        clear = all(code == 0 or is_clear(text) for code, text in zip(codes, said, strict=True))
        refused += codes.count(255)
        held += clear and is_settled(folder, expected)
    seen = f"{refused} of {2 * wanted} refused, in DVC's words; no run was corrupted"
    report(Fault.CONCURRENCY, "two `dvc repro` at once", tries=wanted, held=held, seen=seen)


def is_clear(said: str) -> bool:
    """Say whether DVC said who is in the way, and no more."""
    reasons = ("is busy, it is being blocked by:", "Unable to acquire lock.")
    return "Traceback" not in said and any(reason in said for reason in reasons)


@pytest.mark.usefixtures("whole_suite_only")
def test_two_retrainings_gc_and_audits_at_once(
    three_runs_made: Path, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    folder = contested_copy(three_runs_made, shared_folder, tmp_path, monkeypatch)
    audits, wrong, seen_champions = 0, list[str](), set[str | None]()
    with ExitStack() as stack:
        first = stack.enter_context(Command(folder, "retrain"))
        assert first.wait_for("retrain-1: new:")
        second = stack.enter_context(Command(folder, "retrain"))
        assert second.wait_for("waiting for it to end")
        skipping = stack.enter_context(Command(folder, "retrain", "--overlap", "skip"))
        collecting = stack.enter_context(Command(folder, "gc", "--yes"))
        while first.process.poll() is None:
            arguments = AUDITS[audits % len(AUDITS)]
            seen_champions.add(champion_name(folder))
            code, said = pawline(folder, *arguments)
            audits += 1
            if code != 0:
                wrong.append(f"{arguments}: {said}")
        ended = [command.end() for command in (first, second, skipping, collecting)]
    assert [code for code, _ in ended] == [0, 0, 0, 0], ended
    assert "promoted: v2.0.0" in ended[0][1]
    assert "unchanged: " in ended[1][1]
    assert "skipped: another retraining is at work" in ended[2][1]
    assert "waiting for it to end" in ended[3][1]
    assert wrong == [], "\n".join(wrong)
    assert seen_champions <= {OLD, NEW}
    assert champion_name(folder) == NEW
    assert is_whole(folder)
    assert processes_in(tmp_path) == []
    assert '"source": ["always changed"]' in run(["dvc", "status", "--json"], folder).stdout
    assert git_in(folder, "status", "--porcelain") == ""
    seen = f"the second retraining waited, `gc` waited, one was skipped; {audits} audits meanwhile, all verified"
    report(
        Fault.CONCURRENCY,
        "two retrainings, `pawline gc` and audits at once",
        tries=audits + 4,
        held=audits + 4,
        seen=seen,
    )


@pytest.mark.usefixtures("whole_suite_only")
def test_an_audit_of_the_workspace_while_dvc_works_in_it(
    three_runs_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    """What is being replaced is not called tampered: the audit says that a run is at work."""
    folder = tmp_path / "project"
    shutil.copytree(three_runs_made / "project", folder, symlinks=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    run(["git", "checkout", "--quiet", "HEAD~1", "--", "params.yaml"], folder)
    working = start_dvc(folder, "repro")
    audits, wrong = 0, list[str]()
    while working.poll() is None:
        for arguments in (("verify",), ("lineage",), ("verify", "HEAD")):
            code, said = pawline(folder, *arguments)
            audits += 1
            lines = said.splitlines()
            refused = code == 1 and (lines[-1].startswith("error: ") or "UNCOMMITTED" in lines[-1])
            if "Traceback" in said or "TAMPERED" in said or not (code == 0 or refused):
                wrong.append(f"{arguments}: {code}: {said}")
    assert working.returncode == 0, working.communicate()[0]
    assert pawline(folder, "verify")[0] in (0, 1)
    seen = f"{audits} audits while `dvc repro` restored another run; each verified, or said that a run is at work"
    assert wrong == [], "\n".join(wrong)
    report(Fault.CONCURRENCY, "audits of a workspace in which DVC works", tries=audits, held=audits, seen=seen)
