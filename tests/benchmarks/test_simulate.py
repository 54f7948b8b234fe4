import json
from pathlib import Path

import pytest

from benchmarks import simulate
from benchmarks.cluster_runs import Run
from benchmarks.simulate import Comparison
from benchmarks.simulator import Place
from benchmarks.simulator import simulate as play
from benchmarks.stage_costs import Costs, costs_of, with_growth, work_of
from tasks.stage import PawlineError

# One worker, two photos a second; its first chunk has 0.5 s of imports in it, and the client 0.1 s for each chunk.
RUN = Run(makespan=14.1, chunks=[(2.0, 7.5), (7.5, 10.5), (10.5, 11.5)], leading=0.3, warming=5.5, working=4.0)
COSTS: Costs = {
    "photos": 18,
    "start": 2.0,
    "start_a_photo": 0.0,
    "end": 2.5,
    "end_a_photo": 0.0,
    "serial": 0.1,
    "warm_up": 0.5,
    "warm_up_processors": 1.0,
    "processors": 1.0,
    "chunks": [5.0, 3.0, 1.0],
    "sizes": [10, 6, 2],
}


def test_costs_come_from_a_run_and_predict_it() -> None:
    assert costs_of(RUN, 18, [10, 6, 2]) == COSTS
    assert play(work_of(COSTS), Place(1)).makespan == pytest.approx(RUN.makespan)


def test_a_chunk_that_keeps_two_processors_busy() -> None:
    costs = costs_of(RUN._replace(warming=10.75, working=8.0), 18, [10, 6, 2])
    assert (costs["processors"], costs["warm_up_processors"]) == (2.0, 1.5)


def test_a_run_that_took_chunks_over_tells_no_costs() -> None:
    with pytest.raises(PawlineError, match="3 chunks were done, and 4 expected"):
        costs_of(RUN, 24, [10, 6, 2, 6])


def test_more_photos_are_more_chunks_and_a_longer_end() -> None:
    few: Costs = {**COSTS, "photos": 8, "start": 2.5, "end": 1.5}
    costs = with_growth(COSTS, few)
    assert (costs["start_a_photo"], costs["end_a_photo"]) == (0.0, 0.1)
    work = work_of(costs, 31)
    assert work.chunks == [5.0, 3.0, 1.0, 5.0, 1.5]
    assert work.start == 2.0
    assert work.end == pytest.approx(2.5 + 13 * 0.1)


def comparison(predicted: float, killed_at: float | None = None, others: float = 0.01) -> Comparison:
    return {"workers": 2, "killed_at": killed_at, "others": others, "measured": 10.0, "predicted": predicted}


def test_a_prediction_beyond_the_bar_says_so() -> None:
    assert simulate.describe_comparison("validate", comparison(11.0)) == (
        "validate, 2 workers: measured 10.0 s, predicted 11.0 s (+10%)"
    )
    assert simulate.describe_comparison("validate", comparison(8.0, 4.2)) == (
        "validate, 2 workers, one killed after 4.2 s: measured 10.0 s, predicted 8.0 s (-20%, beyond 15%)"
    )
    assert simulate.describe_comparison("validate", comparison(10.0, others=0.2)).endswith(
        "(+0%); other processes took 20% of the machine"
    )


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    path = tmp_path / "performance.json"
    path.write_text(
        json.dumps({simulate.KEY: {"machine": "m", "stages": {"preprocess": {"costs": COSTS, "runs": []}}}})
    )
    return path


def test_the_command_says_what_comes_out(costs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["preprocess", "--costs", str(costs), "--workers", "6", "--cores", "4", "--photos", "1800"]
    simulate.main(arguments)
    said = capsys.readouterr().out
    assert said.startswith("preprocess of 1,800 photos, 6 workers on 2 machines: ")
    assert ", 0 deaths, 0.0 s lost" in said
    simulate.main([*arguments, "--deaths", "100", "--detected", "1"])
    assert ", 0 deaths" not in capsys.readouterr().out
    simulate.main([*arguments, "--deaths", "5000", "--allowed-failures", "0"])
    assert "never ends" in capsys.readouterr().out


def test_without_costs(costs: Path) -> None:
    with pytest.raises(PawlineError, match="has no costs of features: run `python -m"):
        simulate.main(["features", "--costs", str(costs)])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (119.0, "119.0 s"), (3600.0, "60.0 min"), (9e4, "25.0 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert simulate.duration(seconds) == text


def test_no_workers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        simulate.main(["features", "--workers", "0"])
    assert ended.value.code == 2
    assert "--workers and --cores are 1 or more" in capsys.readouterr().err
