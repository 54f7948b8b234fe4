import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale_page
from benchmarks.simulate import STAGES
from tasks.stage import PawlineError
from tests.benchmarks.test_simulate import COSTS


def usages(seconds: float, outputs: int) -> dict[str, Any]:
    names = {*scale_page.ONE_PROCESS, *scale_page.STORING}
    return {"stages": {name: {"seconds": seconds, "outputs": outputs} for name in names}}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    run = {"workers": 2, "killed_at": 4.0, "others": 0.0, "measured": 10.0, "predicted": 11.0}
    known = {
        "simulation": {"machine": "m", "stages": {name: {"costs": COSTS, "runs": [run]} for name in STAGES}},
        "leading": {"parts": {"validate: all of it": {"bytes": 2600.0, "seconds": 8e-5}}},
        "growth": {"sizes": {"2000": usages(5.0, 1000), "8000": usages(11.0, 601_000)}},
    }
    path = tmp_path / "performance.json"
    path.write_text(json.dumps(known))
    return path


def test_what_stands_between_the_marks_is_written(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale_page, "PLACES", [(900, 1), (900, 2)])
    page = tmp_path / "scale.md"
    page.write_text(f"before\n{scale_page.BEGIN}old\n{scale_page.END}after\n")
    scale_page.main(["--results", str(results), "--page", str(page)])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| validate | 2, one killed after 4.0 s | 10.0 s | 11.0 s | +10% |" in text
    assert "| features | 500.00 | 16.667 | 0.000 |" in text  # 9 s and three times 0.1 s for 18 photos
    assert "| validate: all of it | 2,600 | 80 |" in text
    assert "| photos | machines | validate | preprocess | features |" in text
    # 50 times 9 s among eight workers are 56.3 s; 0.5 s of imports, 2 before, 2.5 and 0.1 after.
    smooth = re.search(r"\| 900 \| 1 \| ([0-9.]+) s; [0-9.]+ (?:s|min), [0-9]+% used \| ", text)
    assert smooth is not None
    assert float(smooth[1]) == pytest.approx(61.4, rel=0.1)
    assert "| ingest | 1.00 | 100.0 s | 2.8 h | 11.6 d |" in text
    assert "| preprocess | 100 | 0.0 GB | 1.0 GB | 100 GB |" in text
    assert "| together | 400 | 0.0 GB | 4.0 GB | 400 GB |" in text
    svg = tmp_path.joinpath("scale.svg").read_bytes()
    scale_page.main(["--results", str(results), "--page", str(page)])
    assert (page.read_text(), tmp_path.joinpath("scale.svg").read_bytes()) == (text, svg)


def test_what_is_missing_is_named(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "scale.md"
    page.write_text("a page\n")
    with pytest.raises(PawlineError, match="has no place for the figures"):
        scale_page.main(["--results", str(results), "--page", str(page)])
    with pytest.raises(PawlineError, match="no figures of simulation"):
        scale_page.main(["--results", str(tmp_path / "none.json"), "--page", str(page)])
