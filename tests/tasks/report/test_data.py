from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.image_table import ImageRow
from tasks.report.data import data_facts, label_error_facts
from tasks.stage import write_json


def row(number: int, **facts: object) -> ImageRow:
    given = {"id": f"{number}", "path": f"{number}.jpg", "label": "cat", "format": "JPEG", **facts}
    return ImageRow(**given)  # type: ignore[arg-type]


def test_sizes_and_shapes_are_of_the_kept_photos_and_in_words() -> None:
    sizes = [(100, 100), (105, 100), (300, 200), (200, 300)]
    rows = [row(n, width=width, height=height) for n, (width, height) in enumerate(sizes)]
    facts = data_facts([*rows, row(9, width=9, height=9, reason="too_small"), row(10, reason="empty", format="")])
    assert facts["side_finding"].startswith("Half of the kept photos have a short side of 100 to 200 px (median 150);")
    assert facts["side_finding"].endswith("the smallest has 100 px, the largest 200 px.")
    assert facts["aspect_finding"].startswith("25.0 % are landscape, 25.0 % portrait, 50.0 % about square;")
    assert facts["aspect_finding"].endswith("1.5 times as wide as high, the tallest 1.5 times as high as wide.")
    assert facts["formats"] == [("JPEG", 4)]
    assert facts["reasons"] == {"too_small": 1, "empty": 1}


def test_groups_are_counted_beyond_those_shown() -> None:
    rows = [row(n, width=50, height=50, group=f"group {n // 2:02d}") for n in range(40)]
    facts = data_facts(rows)
    assert facts["near_duplicate_groups"] == 20
    assert facts["near_duplicate_photos"] == 40
    assert len(facts["near_duplicates"]) == 12


@pytest.mark.parametrize(("accuracy", "too_hard"), [(0.799, True), (0.8, False), (None, False)])
def test_a_weak_model_does_not_judge_labels(accuracy: float | None, too_hard: bool, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "label_errors.parquet")
    write_json({"out_of_fold_accuracy": accuracy}, tmp_path / "label_errors.json")
    facts = label_error_facts(tmp_path / "label_errors.parquet", tmp_path / "label_errors.json")
    assert facts["too_hard_to_check"] == too_hard
