import pytest
from scipy.stats import binomtest

from benchmarks import seed_page
from benchmarks.seed_page import Results, Row, Run, Side
from benchmarks.seed_table import read_preset


def side(chosen: float, seconds: float, *, val: int = 200, stage2: bool = False) -> Side:
    return {
        "train": 1000,
        "val": val,
        "stage1": chosen - 0.01 if stage2 else chosen,
        "stage2": chosen if stage2 else None,
        "chosen": chosen,
        "last_epoch": chosen - 0.02,
        "seconds": seconds,
    }


def row(pawline: list[tuple[float, float]], plain: list[tuple[float, float]], *, stage2: bool = False) -> Row:
    runs: list[Run] = [
        {"seed": seed, "pawline": side(*ours, stage2=stage2), "plain": side(*theirs, val=199, stage2=stage2)}
        for seed, (ours, theirs) in enumerate(zip(pawline, plain, strict=True), 1)
    ]
    return {"recipe": "160 px", "machine": "2 cores", "runs": runs}


RESULTS: Results = {
    "s4": row([(0.985, 80), (0.975, 90), (0.98, 50)], [(0.97, 160), (0.96, 200), (0.965, 150)], stage2=True),
    "s1": row([(0.98, 60)], [(0.97, 90)]),
}


def test_table_shows_means_each_seed_intervals_and_median_times() -> None:
    lines = seed_page.render(RESULTS).splitlines()
    s1, s4 = (next(line for line in lines if line.startswith(f"| {name} ")) for name in ("s1", "s4"))
    assert lines.index(s1) < lines.index(s4)
    assert "| 1,000 + 200 | stage 1 85-90 %, stage 2 92-96 %; 10-30 min on a GPU, 1-3 h on a CPU |" in s4
    assert "| 98.0 % (95.0-99.2)<br>98.5, 97.5, 98.0 | 97.0 → 98.0 | 80 s |" in s4
    assert s4.endswith("| 95.5 → 96.5 | 160 s | 2.00 |")
    assert s1.count("→") == 0
    header = next(line for line in lines if line.startswith("| preset"))
    assert {line.count("|") for line in (header, s1, s4)} == {12}


def test_interval_counts_each_photo_once() -> None:
    sides = [side(0.985, 1), side(0.975, 1), side(0.98, 1)]
    expected = binomtest(196, 200).proportion_ci(method="wilson")
    assert seed_page.interval(sides) == pytest.approx((expected.low, expected.high))


def test_notes_give_the_last_epochs_and_what_was_left_out() -> None:
    page = " ".join(seed_page.render(RESULTS).split())
    assert "By their last epochs, Pawline has s1 96.0 %, s4 96.0 %." in page
    assert "cannot read are left out of it: s1 1, s4 1." in page
    assert "1,000 training photos where" in page


def test_rows_of_two_machines_say_which() -> None:
    assert "Measured on 2 cores.\n" in seed_page.render(RESULTS)
    other = seed_page.render({**RESULTS, "s3": {**RESULTS["s1"], "machine": "64 cores"}})
    assert "Measured on 2 cores: s1, s4.\n" in other
    assert "Measured on 64 cores: s3.\n" in other


def failed(results: Results) -> list[str]:
    return [text for passed, text in seed_page.bars(results) if not passed]


def test_bars_pass_and_fail() -> None:
    assert failed(RESULTS) == []
    assert len(list(seed_page.bars(RESULTS))) == 3 + 5
    assert failed({"s1": row([(0.94, 60)], [(0.95, 90)])}) == ["s1 accuracy: 0.9400, at least 0.9500"]
    assert failed({"s2": row([(0.94, 91)], [(0.95, 90)])}) == ["s2 time: 91.0 s, plain Keras 90.0 s"]
    worse = failed({"s1": row([(0.955, 60)], [(1.0, 90)])})
    assert [text.partition(":")[0] for text in worse] == ["s1 accuracy against the interval of plain Keras"]
    s4 = row([(0.955, 60)], [(0.95, 90)], stage2=True)
    assert failed({"s4": s4}) == ["s4 stage2: 0.9550, at least 0.9600"]
    s4["runs"][0]["pawline"] |= {"stage1": 0.98, "stage2": 0.97}
    assert failed({"s4": s4}) == ["s4 stage2 against stage1: 0.9700, at least 0.9800"]


@pytest.mark.parametrize("preset", seed_page.AUTHORS_STATE)
def test_every_recipe_can_be_said_in_words(preset: str) -> None:
    params = read_preset(preset)
    words = seed_page.describe(params)
    assert words.startswith(f"{params['image']['size_px']} px; ")
    assert ("then the last" in words) == bool(params["fine_tune"]["unfrozen_layers"])


def test_a_recipe_in_words() -> None:
    assert seed_page.describe(read_preset("s4")) == (
        "224 px; flip, rotation ±10°, zoom 0.1; GAP, Dropout(0.2), Dense(1, sigmoid); Adam 0.001, 3 epochs of batches "
        "of 32; then the last 100 layers, Adam 1e-05, 3 epochs of batches of 32"
    )
    assert seed_page.describe(read_preset("s2")) == (
        "224 px; GAP, Dense(2, softmax); Adam 0.001, 3 epochs of batches of 32, early stopping (patience 2)"
    )
