"""200 retrainings in one place (tests/faults/soak.py). With PAWLINE_SOAK, the folder of a soak, those it has made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.conftest import Report
from tests.faults.results import Fault
from tests.faults.soak import Round, judge, load, warmed_up

ROUNDS = 200
ENDS = ("Promoted", "Refused")  # photos are new in each round: whoever finds nothing to train has missed them
SOAKED = "PAWLINE_SOAK"


@pytest.mark.usefixtures("whole_suite_only")
def test_nothing_grows(tmp_path: Path, shared_data: Path, report: Report) -> None:
    folder = Path(os.environ.get(SOAKED, tmp_path / "soak"))
    if SOAKED not in os.environ:
        command = [sys.executable, "-m", "tests.faults.soak", "--rounds", str(ROUNDS), "--folder", str(folder)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PAWLINE_SHARED_DATA": str(shared_data)}, check=True)
    rounds = load(folder / "rounds.jsonl")
    ended = {end: sum(one.ended == end for one in rounds) for end in ENDS}
    other = sorted({one.ended for one in rounds} - set(ENDS))
    seconds = sorted(one.seconds for one in rounds)[len(rounds) // 2]
    seen = ", ".join([*(f"{end}: {count}" for end, count in ended.items() if count), f"median {seconds:.0f} s", *other])
    starts = len({one.start for one in rounds})
    seen += "" if len(rounds) >= ROUNDS else f"; {ROUNDS} are the full number"
    records = rounds[-1].disk_mb["prefect"] - rounds[0].disk_mb["prefect"]
    seen += f"; Prefect's records, which go after 90 days, grew by {records / len(rounds):.1f} MB a round"
    seen += f"; server and worker were started {starts} times" if starts > 1 else ""
    what = "retrainings through one server and one worker, new and removed photos each time"
    report(Fault.SOAK, what, tries=len(rounds), held=sum(ended.values()), seen=seen)
    after = len(warmed_up(rounds))
    for name, (grew, may) in judge(rounds).items():
        held = after if grew <= may else 0
        seen = f"{grew:+.1f} over the rounds after the warm-up; {may:.1f} is allowed"
        report(Fault.SOAK, f"growth of: {name}", tries=after, held=held, seen=seen)


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
        disk_mb={"cache": 50 + 10 * noise + 10 * leak * number, "prefect": float(number), "rest": 10.0},
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


def test_a_new_server_begins_small_and_hides_no_growth() -> None:
    def carried_on(leak: float) -> list[str]:
        rounds = [made(number, leak=leak, start=1 + number // 60) for number in range(1, 121)]
        return [name for name, (grew, may) in judge(rounds).items() if grew > may]

    assert carried_on(0.0) == []
    assert "memory of the server (MB)" in carried_on(0.5)
