"""200 retrainings (tests/faults/soak.py). With PAWLINE_SOAK, folders of soaks as in PATH, those that they have made."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.faults.conftest import Report
from tests.faults.results import Fault
from tests.faults.soak import ON_RECORD, Round, judge, load, warmed_up

ROUNDS = 200
ENDS = ("Promoted", "Refused")  # photos are new in each round: whoever finds nothing to train has missed them
SOAKED = "PAWLINE_SOAK"


@pytest.mark.usefixtures("whole_suite_only")
def test_nothing_grows(tmp_path: Path, shared_data: Path, report: Report) -> None:
    folders = [Path(folder) for folder in os.environ.get(SOAKED, str(tmp_path / "soak")).split(os.pathsep)]
    if SOAKED not in os.environ:
        command = [sys.executable, "-m", "tests.faults.soak", "--rounds", str(ROUNDS), "--folder", str(folders[0])]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PAWLINE_SHARED_DATA": str(shared_data)}, check=True)
    places = [load(folder / "rounds.jsonl") for folder in folders]
    rounds = [one for place in places for one in place]
    held = sum(one.ended in ENDS for one in rounds)
    report(Fault.SOAK, "retrainings, new and removed photos each time", tries=len(rounds), held=held, seen=seen(places))
    after = [warmed_up(place) for place in places]
    tried = sum(map(len, after))
    for name, grown in most_grown(places).items():
        grew, may = grown
        says = f"{grew:+.1f} over {max(map(len, after))} rounds after the warm-up; {may:.1f} is allowed"
        report(Fault.SOAK, f"growth of: {name}", tries=tried, held=tried if grew <= may else 0, seen=says)


def seen(places: list[list[Round]]) -> str:
    """Say what the rounds of all places were like."""
    rounds = [one for place in places for one in place]
    said = [f"{end}: {count}" for end, count in sorted(Counter(one.ended for one in rounds).items())]
    said.append(f"median {np.median([one.seconds for one in rounds]):.0f} s")
    if len(places) > 1:
        said.append(f"in places of {' and '.join(str(len(place)) for place in places)} rounds")
    starts = sum(len({one.start for one in place}) for place in places)
    said.append(f"servers and workers were started {starts} times" if starts > 1 else "through one server and worker")
    git, prefect = (sum(p[-1].disk_mb[n] - p[0].disk_mb[n] for p in places) / len(rounds) for n in ON_RECORD)
    said.append(f"a round left {git:.2f} MB in git and {prefect:.1f} MB of Prefect's records, which go after 90 days")
    return ", ".join(said) + ("" if len(rounds) >= ROUNDS else f"; {ROUNDS} are the full number")


def most_grown(places: list[list[Round]]) -> dict[str, tuple[float, float]]:
    """Return by figure how much it grew, and may, in the place where it grew most beside what it may."""
    judged = [judge(place) for place in places]
    names = [name for name in judged[0] if all(name in figures for figures in judged)]
    return {name: max((figures[name] for figures in judged), key=lambda grown: grown[0] / grown[1]) for name in names}


def made(number: int, *, leak: float = 0.0, start: int = 1) -> Round:
    noise = (number * 7919 % 13) / 13
    return Round(
        number=number,
        start=start,
        ended="Refused",
        seconds=60.0,
        rss_mb={"server": 400 + 20 * noise + leak * number - 100 * start, "worker": 170.0},
        fds={"server": 30 + number % 3, "worker": 16 + int(leak * number)},
        threads=20 + number % 2,
        processes=0,
        temporary=2 + int(leak * number),
        cached=3,
        disk_mb={"cache": 50 + 10 * noise + 10 * leak * number, "git": 2.0, "prefect": float(number), "rest": 10.0},
        gc=number % 10 == 0,
        versions_mb=20.0,
    )


def test_what_grows_with_the_rounds_is_told_from_noise() -> None:
    grown = judge([made(number) for number in range(1, 101)])
    assert [name for name, (grew, may) in grown.items() if grew > may] == []
    leaking = judge([made(number, leak=0.5) for number in range(1, 101)])
    assert [name for name, (grew, may) in leaking.items() if grew > may] == [
        "memory of the server (MB)",
        "open files of the worker",
        "temporary",
        "disk after `pawline gc` (MB)",
    ]


def test_the_place_that_grew_most_counts() -> None:
    still, leaking = ([made(number, leak=leak) for number in range(1, 101)] for leak in (0.0, 0.5))
    for places in ([still, leaking], [leaking, still]):
        assert most_grown(places) == judge(leaking)
    assert seen([still, leaking]).startswith("Refused: 200, median 60 s, in places of 100 and 100 rounds, servers and ")


def test_a_new_server_begins_small_and_is_judged_by_its_own_rounds() -> None:
    def carried_on(leak: float) -> list[str]:
        rounds = [made(number, leak=leak, start=1 + (number > 50)) for number in range(1, 121)]
        return [name for name, (grew, may) in judge(rounds).items() if grew > may]

    assert carried_on(0.0) == []
    assert "memory of the server (MB)" in carried_on(0.5)
