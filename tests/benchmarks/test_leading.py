from pathlib import Path

import pytest

from benchmarks import leading
from benchmarks.seed_table import Workplace, make_clone
from tasks import validate, verdicts
from tasks.params import ValidateParams, load_section
from tasks.progress import Progress


def test_nothing_is_left_to_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few bytes are no photos: had they to be looked at, all would be quarantined."""
    workplace = Workplace(tmp_path)
    make_clone(workplace)
    leading.write_project(workplace.clone, 300)
    params = load_section(workplace.clone / "params.yaml", "validate", ValidateParams)
    known = verdicts.read_known(workplace.clone / "data/verdicts", validate._keys(params))
    assert (len(known.verdicts), len(known.pairs)) == (300, 0)
    assert not any(row.reason for row in validate.examine(workplace.clone / "data/raw", params, known).files)
    whole = {name: leading.PARTS[name] for name in ("validate: all of it", "preprocess: photos and shards")}
    monkeypatch.setattr(leading, "PARTS", whole)
    with Progress("parts", total=len(whole), unit="parts") as progress:
        found = leading.measure_parts(workplace, progress)
    assert all(usage["memory"] > 0 for usage in found.values())
    assert (workplace.clone / "data/images.parquet").exists()


def test_a_line_for_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    found: leading.Leading = {
        "machine": "m",
        "photos": [10, 20],
        "parts": {"validate: all of it": {"bytes": 2624.4, "seconds": 79e-6}},
        "outputs": {"images.parquet": 78.0},
    }
    assert [line.split() for line in leading.describe(found)[1:]] == [
        ["validate:", "all", "of", "it", "2,624", "bytes", "79", "us"],
        ["images.parquet", "78", "bytes", "on", "disk"],
    ]
