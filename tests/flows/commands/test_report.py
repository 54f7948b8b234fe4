"""`pawline report`, as a user types it."""

import json
import re
from pathlib import Path

from dvc.repo import Repo

from tests.test_pipeline import run
from tests.typed import type_here


def test_it_says_how_the_run_stands_and_puts_it_on_the_page(three_runs: Path) -> None:
    page = three_runs / "reports/index.html"
    before = page.read_text()
    done = run(["pawline", "report"], three_runs).stdout
    formats = json.loads((three_runs / "models/export/export.json").read_text())["formats"]
    assert re.search(r"^accuracy 0\.\d{4} \(95 % interval 0\.\d{4} to [01]\.\d{4}\) on \d+ photos of test$", done, re.M)
    assert re.search(r" the previous run [0-9a-f]{10}, which was right on \d+\.\d % of \d+ images", done)
    for name in formats:
        assert re.search(rf"^{name} +\d+\.\d MB +\d+\.\d ms ", done, re.M)
    assert page.read_text() != before
    context = json.loads((three_runs / "reports/context.json").read_text())
    assert context["against"]["name"] in page.read_text()
    assert context["latency_ms"].keys() == formats.keys()
    times = context["latency_ms"]
    assert type_here("report --no-times")[0] == 0
    assert json.loads((three_runs / "reports/context.json").read_text())["latency_ms"] == times
    with Repo() as repo:
        assert "report" not in [stage.name for stage in repo.reproduce("report", dry=True)]


def test_without_a_run_it_says_what_to_do(three_runs: Path) -> None:
    (three_runs / "models/export/export.json").unlink()
    code, said = type_here("report")
    assert code == 1
    assert said.startswith("error: models/export/export.json is missing: `dvc repro` makes it")
