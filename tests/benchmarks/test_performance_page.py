import json
from pathlib import Path

import pytest

from benchmarks import performance_page, rounds
from benchmarks.performance_page import BY_HAND


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two comparisons, one beyond its bar; two sizes of which the memory of one stage grows; and a limit."""
    path = tmp_path / "performance.json"
    fast = rounds.make_result([1.0, 2.0], [4.0, 8.0], what="an epoch", against="plain Keras", bar=2.0)
    slow = rounds.make_result([2.0], [2.0], what="TFRecords", against="TFDS", images=100, bar=3.0)
    slow["notes"] = ["ours kept 98"]
    stages = [
        {
            name: {"seconds": photos / 100, "cpu_seconds": 1.0, "memory": memory * factor, "resident": 1, "outputs": 1}
            for name, memory, factor in (("validate", 1e8, 1), ("features", 1e8, photos / 100))
        }
        for photos in (100, 200)
    ]
    sizes = {
        str(photos): {"photos": 10, "outputs": 60, "cache": 30, "settings": {}, "stages": usages}
        for photos, usages in zip((100, 200), stages, strict=True)
    }
    part = {"what": "all", "operations": 6e8, "limit_ms": 1.0, "measured_ms": 4.0}
    limits = {"peaks": {"float32": 2e11}, "parts": [part], "machine": fast["machine"]}
    growth = {"machine": fast["machine"], "sizes": sizes}
    look = {"seconds": 4.0, "shares": {"imports": 0.6, "a (tasks/x.py)": 0.4}, "read_bytes": 10, "written_bytes": 20}
    where = {"machine": fast["machine"], "disk": {"read": 5, "write": 10}, "stages": {"validate": look}}
    starting = {"machine": fast["machine"], "seconds": {"python": 0.01, "why": 0.4}}
    figures = {"epoch": fast, "tfrecords": slow, "growth": growth, "limits": limits}
    path.write_text(json.dumps(figures | {"where": where, "commands": starting}))
    return path


def test_the_page_says_what_is_reached_and_what_is_not(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"old figures\n{BY_HAND}\nWhat was tried.\n")
    performance_page.main(["--results", str(results), "--page-out", str(page)])
    text = page.read_text()
    assert "| an epoch | 1.5 s | plain Keras | 6.0 s | 4.00 | 2 | 2 |" in text
    assert "| TFRecords | 50/s | TFDS | 50/s | 1.00 | 3, **missed** | 1 |" in text
    assert "- TFRecords, against TFDS: ours kept 98" in text
    assert "| features | 1.0 / 2.0 | 1.00 | 100 / 200 | +100% |" in text
    assert "- features: its memory grows by 100%, more than 10%" in text
    assert "- validate" not in text
    assert "| validate | 4.0 | 4.00 | imports 60%, a (tasks/x.py) 40% |" in text
    assert "python 0.01, why 0.40." in text
    assert "| 100 | 6.0 | 3.0 |" in text
    assert "| all | 600 | 1.00 | 4.00 | 25% |" in text
    assert "old figures" not in text
    assert text.endswith(f"{BY_HAND}\nWhat was tried.\n")


def test_a_page_of_one_comparison(results: Path, tmp_path: Path) -> None:
    only = {"epoch": json.loads(results.read_text())["epoch"]}
    text = performance_page.render(only, "")
    assert "an epoch" in text
    assert "## " not in text


def test_without_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        performance_page.main(["--results", str(tmp_path / "none.json")])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: there is no ")
