"""The suites: what stops the pipeline, and what it says."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tasks.expectations import SuiteRun, first_failure, run_suites
from tasks.image_table import ImageRow
from tasks.params import ValidateParams, load_section
from tests.conftest import ROOT
from tests.tasks.rows import photo

SPLITS = ("train", "val")


def params(**changes: Any) -> ValidateParams:  # noqa: ANN401 - any threshold
    defaults = load_section(ROOT / "params.yaml", "validate", ValidateParams).model_dump()
    thresholds = {"max_reject_share": 0.2, "min_images_per_class": 4, "max_class_ratio": 3.0}
    return ValidateParams.model_validate(defaults | thresholds | changes)


def kept(label: str, count: int) -> list[ImageRow]:
    rows = [photo(f"{label}/{number}.jpg", label=label) for number in range(count)]
    return [replace(row, group=row.id, split=SPLITS[number % 2]) for number, row in enumerate(rows)]


def bad(label: str, count: int) -> list[ImageRow]:
    return [photo(f"{label}/bad{number}.jpg", label=label, reason="truncated") for number in range(count)]


def failure(rows: Sequence[ImageRow], **changes: Any) -> str:  # noqa: ANN401 - any threshold
    return first_failure(run_suites(rows, params(**changes), SPLITS))


def test_good_data_meets_every_expectation() -> None:
    runs: list[SuiteRun] = run_suites(kept("cat", 6) + kept("dog", 6) + bad("dog", 2), params(), SPLITS)
    assert first_failure(runs) == ""
    assert [len(run.result.results) for run in runs] == [3, 1, 2, 5, 1]


def test_too_many_rejects() -> None:
    message = failure(kept("cat", 10) + kept("dog", 10) + bad("dog", 7))
    assert message == (
        "at least 80.0% of the files must be fit to keep; not so for 7 of 27 (25.9%): dog/bad0.jpg (truncated), "
        "dog/bad1.jpg (truncated), dog/bad2.jpg (truncated), dog/bad3.jpg (truncated), dog/bad4.jpg (truncated), "
        "and 2 more; look at the source, or raise validate.max_reject_share"
    )


def test_the_reject_share_is_met_exactly() -> None:
    rows = kept("cat", 4) + kept("dog", 4) + bad("dog", 2)
    assert failure(rows, max_reject_share=0.2) == ""
    assert failure(rows, max_reject_share=0.19) != ""
    assert failure(rows, max_reject_share=1.0) == ""
    assert failure(rows, max_reject_share=0.0) != ""


def test_one_class_only() -> None:
    assert failure(kept("cat", 9)) == (
        "there must be two classes or more; found 1; add a folder with photos of another class"
    )


def test_no_files_at_all() -> None:
    assert failure([]).startswith("there must be two classes or more; found 0")


def test_a_class_with_too_few_files() -> None:
    message = failure(kept("cat", 6) + kept("dog", 3))
    assert message.startswith(
        "every class must have 4 files or more in the source; not so for 1 of 2 (50.0%): dog (3);"
    )


def test_classes_out_of_balance() -> None:
    message = failure(kept("cat", 16) + kept("dog", 5))
    assert "no class may be more than 3 times smaller than the largest; not so for 1 of 2 (50.0%): dog (3.2)" in message
    assert failure(kept("cat", 15) + kept("dog", 5)) == ""


def test_a_class_with_nothing_left() -> None:
    message = failure(kept("cat", 12) + bad("dog", 5))
    assert message.startswith("every class must have photos left after quarantine; not so for 1 of 2 (50.0%): dog (0);")


def test_fewer_images_than_a_split_needs() -> None:
    dogs = [replace(row, split="train") for row in kept("dog", 6)]
    assert failure(kept("cat", 6) + dogs) == (
        "every class must have photos in every split; not so for 1 of 4 (25.0%): dog in val (0); "
        "add photos of that class, or change validate.splits"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"perceptual_hash": ""}, "every kept photo must be decodable; not so for 1 of 12 (8.3%): dog/5.jpg (0)"),
        ({"id": kept("dog", 1)[0].id}, "no kept photo may stand there twice; not so for 2 of 12"),
        ({"split": "tset"}, "every kept photo must be in one split; not so for 1 of 12 (8.3%): dog/5.jpg (tset)"),
        ({"group": kept("dog", 1)[0].id}, "no duplicate group may be in two splits; not so for 2 of 12"),
    ],
)
def test_a_fault_of_the_pipeline_itself_is_caught(change: dict[str, Any], says: str) -> None:
    rows = kept("cat", 6) + kept("dog", 6)
    message = failure([*rows[:-1], replace(rows[-1], **change)])
    assert says in message
    assert "this is a fault of the pipeline" in message


def test_a_path_of_any_characters_is_named_as_it_is() -> None:
    odd = replace(bad("dog", 1)[0], path="a'b\"<b>&$x{0}%s.jpg")
    assert odd.path in failure([*kept("cat", 6), *kept("dog", 6), odd], max_reject_share=0.01)


def test_great_expectations_is_imported_only_to_run_suites() -> None:
    code = "import sys, tasks.validate; sys.exit(any(name in sys.modules for name in ('great_expectations', 'pandas')))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
