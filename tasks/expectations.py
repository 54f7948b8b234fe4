"""What the data must live up to, as Great Expectations suites: tolerant of the source, strict on what was kept."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.image_table import SPLITS, ImageRow
from tasks.params import ValidateParams

if TYPE_CHECKING:  # 3 seconds and 260 MB: imported only where a suite is run
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.data_context import EphemeralDataContext
    from great_expectations.datasource.fluent import PandasDatasource
    from great_expectations.expectations.expectation import Expectation

Columns = dict[str, Sequence[str | int | float]]
KEPT = "kept"  # the verdict column's value for a photo without a reason
ROWS_IN_MESSAGE = 5
ADD_PHOTOS = "add photos of it or take the class out of the source"


@dataclass(frozen=True)
class Table:
    """What one suite looks at.

    Attributes:
        name: Of the suite and its page.
        about: One sentence on what a row is.
        columns: Column name to values.
        named_by: The column that names a row in messages.
    """

    name: str
    about: str
    columns: Columns
    named_by: str


@dataclass(frozen=True)
class SuiteRun:
    """A table with Great Expectations' verdict on it."""

    table: Table
    result: "ExpectationSuiteValidationResult"


def run_suites(rows: Sequence[ImageRow], params: ValidateParams, required_splits: Sequence[str]) -> list[SuiteRun]:
    """Run every suite.

    Args:
        rows: The whole image table, splits assigned.
        params: The thresholds.
        required_splits: The splits in which every class must have photos.
    """
    _silence()
    labels = sorted({row.label for row in rows})
    kept = [row for row in rows if not row.reason]
    suites = [  # causes before effects: the first failure is the one a person reads
        (_source_classes(rows, labels), _source_classes_suite(params)),
        (_kept_classes(kept, labels), _kept_classes_suite()),
        (_source_files(rows), _source_files_suite(params)),
        (_kept_photos(kept), _kept_photos_suite(labels)),
        (_kept_splits(kept, labels, required_splits), _kept_splits_suite()),
    ]
    source = _throw_away_context().data_sources.add_pandas("pawline")
    return [_run(table, expectations, source) for table, expectations in suites]


def first_failure(runs: Sequence[SuiteRun]) -> str:
    """Return one line on the first expectation that was not met, or nothing when all were."""
    for run in runs:
        for result in run.result.results:
            if not result.success:
                return _failure_line(run.table, result)
    return ""


def _source_classes(rows: Sequence[ImageRow], labels: Sequence[str]) -> Table:
    files = Counter(row.label for row in rows)
    largest = max(files.values(), default=0)
    columns: Columns = {
        "class": list(labels),
        "files": [files[label] for label in labels],
        "times_smaller": [round(largest / files[label], 3) for label in labels],
    }
    return Table("Source classes", "One row a class, with its files before quarantine.", columns, "class")


def _source_classes_suite(params: ValidateParams) -> "list[Expectation]":
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=2,
            description="there must be two classes or more",
            notes="A classifier of one class has nothing to learn.",
            meta={"cure": "add a folder with photos of another class"},
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="files",
            min_value=params.min_images_per_class,
            description=f"every class must have {params.min_images_per_class:,} files or more in the source",
            notes="Fewer are too few to learn from and to measure with.",
            meta={"cure": f"{ADD_PHOTOS}, or lower validate.min_images_per_class"},
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="times_smaller",
            max_value=params.max_class_ratio,
            description=f"no class may be more than {params.max_class_ratio:g} times smaller than the largest",
            notes="With classes of very different sizes the accuracy says little about the small ones.",
            meta={"cure": "add photos of the small class, or raise validate.max_class_ratio"},
        ),
    ]


def _kept_classes(kept: Sequence[ImageRow], labels: Sequence[str]) -> Table:
    photos = Counter(row.label for row in kept)
    columns: Columns = {"class": list(labels), "photos": [photos[label] for label in labels]}
    return Table("Kept classes", "One row a class of the source, with its photos after quarantine.", columns, "class")


def _kept_classes_suite() -> "list[Expectation]":
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="photos",
            min_value=1,
            description="every class must have photos left after quarantine",
            notes="A class of broken files only cannot be learned.",
            meta={"cure": ADD_PHOTOS},
        )
    ]


def _source_files(rows: Sequence[ImageRow]) -> Table:
    columns: Columns = {"path": [row.path for row in rows], "verdict": [row.reason or KEPT for row in rows]}
    return Table("Source files", "One row a candidate file, before quarantine.", columns, "path")


def _source_files_suite(params: ValidateParams) -> "list[Expectation]":
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=1,
            description="there must be at least one file",
            notes="Files whose names say that they are photos.",
            meta={"cure": "look at the source"},
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="verdict",
            value_set=[KEPT],
            mostly=round(1 - params.max_reject_share, 9),
            description=f"at least {1 - params.max_reject_share:.1%} of the files must be fit to keep",
            notes="A few bad files are normal and are left out; many mean that something happened to the source. "
            "The table lists them by reason.",
            meta={"cure": "look at the source, or raise validate.max_reject_share"},
        ),
    ]


def _kept_photos(kept: Sequence[ImageRow]) -> Table:
    splits_of: dict[str, set[str]] = {}
    for row in kept:
        splits_of.setdefault(row.group, set()).add(row.split)
    columns: Columns = {
        "path": [row.path for row in kept],
        "id": [row.id for row in kept],
        "label": [row.label for row in kept],
        "split": [row.split for row in kept],
        "pixels": [row.width * row.height if row.perceptual_hash else 0 for row in kept],
        "splits_of_its_group": [len(splits_of[row.group]) for row in kept],
    }
    return Table("Kept photos", "One row a photo that is trained on or measured with.", columns, "path")


def _kept_photos_suite(labels: Sequence[str]) -> "list[Expectation]":
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="pixels",
            min_value=1,
            description="every kept photo must be decodable",
            notes="It was decoded in full, to its last pixel.",
        ),
        gxe.ExpectColumnValuesToBeUnique(
            column="id", description="no kept photo may stand there twice", notes="The id is the SHA-256 of its bytes."
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=list(labels), description="every label must be a class of the source"
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="split", value_set=list(SPLITS), description="every kept photo must be in one split"
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="splits_of_its_group",
            min_value=1,
            max_value=1,
            description="no duplicate group may be in two splits",
            notes="A photo whose near-duplicate was trained on would make the test look better than it is.",
        ),
    ]


def _kept_splits(kept: Sequence[ImageRow], labels: Sequence[str], required_splits: Sequence[str]) -> Table:
    photos = Counter((row.label, row.split) for row in kept)
    cells = [(label, split) for label in labels for split in required_splits]
    columns: Columns = {
        "class_and_split": [f"{label} in {split}" for label, split in cells],
        "photos": [photos[cell] for cell in cells],
    }
    return Table("Kept splits", "One row a class and split, with its photos.", columns, "class_and_split")


def _kept_splits_suite() -> "list[Expectation]":
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="photos",
            min_value=1,
            description="every class must have photos in every split",
            notes="Without them the split cannot teach or measure that class.",
            meta={"cure": "add photos of that class, or change validate.splits"},
        )
    ]


def _silence() -> None:
    """Before the import: no telemetry, and of what it logs (hundreds of notes on itself) only the warnings."""
    os.environ.update({"GX_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"})
    logger = logging.getLogger("great_expectations")
    logger.setLevel(logging.WARNING)
    logger.propagate = False  # a logger below sets a level of its own; warnings still reach stderr


def _throw_away_context() -> "EphemeralDataContext":
    """Return a context in memory, without progress bars."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    return context


def _run(table: Table, expectations: "list[Expectation]", source: "PandasDatasource") -> SuiteRun:
    import great_expectations as gx
    import pandas as pd

    asset = source.add_dataframe_asset(table.name)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": pd.DataFrame(table.columns)})
    suite = gx.ExpectationSuite(name=table.name, expectations=expectations)
    rows_by_name = {"result_format": "COMPLETE", "unexpected_index_column_names": [table.named_by]}
    result = batch.validate(suite, result_format=rows_by_name)
    for each in result.results:
        if (each.exception_info or {}).get("raised_exception"):
            raise RuntimeError(f"Great Expectations failed on {each.expectation_config}: {each.exception_info}")
    return SuiteRun(table, result)


def _failure_line(table: Table, result: "ExpectationValidationResult") -> str:
    config = result.expectation_config
    if config is None:
        raise RuntimeError(f"Great Expectations returned a result without its expectation: {result}")
    cure = (config.meta or {}).get("cure", "this is a fault of the pipeline: please report it")
    return f"{config.description}; {_figure(table, result.result)}; {cure}"


def _figure(table: Table, observed: Mapping[str, Any]) -> str:
    if "unexpected_count" not in observed:
        return f"found {observed['observed_value']}"
    count, total = observed["unexpected_count"], observed["element_count"]
    failing = observed["unexpected_index_list"]
    named = [_named_row(table, row) for row in failing[:ROWS_IN_MESSAGE]]
    more = [f"and {len(failing) - ROWS_IN_MESSAGE:,} more"] if len(failing) > ROWS_IN_MESSAGE else []
    return f"not so for {count:,} of {total:,} ({count / total:.1%}): {', '.join(named + more)}"


def _named_row(table: Table, row: Mapping[str, Any]) -> str:
    values = [str(value) for column, value in row.items() if column != table.named_by]
    return f"{row[table.named_by]} ({', '.join(values)})"
