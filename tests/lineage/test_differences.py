"""What differs between three real runs: one of another parameter, one of other photos."""

import json
from pathlib import Path

from lineage.differences import Change, compare, differences, line_changes
from lineage.photo_changes import photo_changes
from lineage.runs import WORKSPACE, Project, find_run
from tests.test_pipeline import run


def test_another_parameter_is_all_that_differs(three_runs: Path) -> None:
    project = Project(three_runs)
    found = differences(project, find_run(project, "HEAD~2"), find_run(project, "HEAD~1"))
    assert not found.identical
    assert found.parameters == [Change(key="train_head.learning_rate", first=0.001, second=0.0005)]
    assert found.first_difference == "train_head"
    differ = {stage.stage: stage.differ for stage in found.outputs if stage.differ}
    assert differ["train_head"] == ["models/stage1"]
    assert "models/classifier.keras" in differ["fine_tune"]
    assert {"source", "ingest", "validate", "preprocess", "backbone", "features"} & set(differ) == set()
    assert found.photos is not None
    assert found.photos.is_empty
    assert (found.code, found.commands, found.counts, found.environment, found.weights, found.missing) == ([],) * 6
    for figure in found.metrics:
        before, after = (metrics_of(project, revision) for revision in ("HEAD~2", "HEAD~1"))
        assert figure.first == value_at(before, figure.key)
        assert figure.second == value_at(after, figure.key)
    assert {"accuracy", "auc", "loss"} <= {figure.key for figure in found.metrics}
    lines = found.lines()
    assert "  train_head.learning_rate: 0.001 -> 0.0005" in lines
    assert "photos: the same" in lines
    assert any(line.startswith("  train_head: models/stage1") and "first to differ" in line for line in lines)


def test_other_photos_are_named(three_runs: Path) -> None:
    project = Project(three_runs)
    first, second = (find_run(project, revision) for revision in ("HEAD~1", "HEAD"))
    found = differences(project, first, second)
    tables = [project.store.read_path(project.lock(each), "data/images.parquet") for each in (first, second)]
    assert tables[0] is not None
    assert tables[1] is not None
    assert found.photos == photo_changes(tables[0], tables[1])
    assert found.photos.added
    assert found.first_difference == "source"
    assert Change(key="images", first=80, second=90) in found.counts
    assert {change.key for change in found.parameters} == {"data.synthetic_images", "fine_tune.unfrozen_layers"}


def test_the_same_bytes_are_said_to_be_identical(three_runs: Path) -> None:
    project = Project(three_runs)
    found = differences(project, find_run(project, "HEAD"), WORKSPACE)
    assert found.identical
    assert found.first_difference is None
    assert "identical classifiers" in found.lines()[0]


def test_code_is_compared_by_lines_where_both_contents_are_known(three_runs: Path) -> None:
    """One line more, that dvc.lock has for two of the three stages that read the file."""
    project = Project(three_runs)
    heads = Path("tasks/heads.py")
    heads.write_text(heads.read_text(encoding="utf-8") + "# one line more\n", encoding="utf-8")
    run(["dvc", "commit", "--force", "--quiet", "train_head", "fine_tune"], three_runs)
    found = differences(project, find_run(project, "HEAD"), WORKSPACE)
    assert [(change.path, change.stages, change.added, change.removed) for change in found.code] == [
        ("tasks/heads.py", ["train_head", "fine_tune"], 1, 0)
    ]
    heads.write_text("# not what ran\n", encoding="utf-8")
    found = differences(project, find_run(project, "HEAD"), WORKSPACE)
    assert [(change.path, change.added, change.removed) for change in found.code] == [("tasks/heads.py", None, None)]


def test_a_lost_table_is_said_and_the_rest_compared(three_runs: Path) -> None:
    project = Project(three_runs)
    before = project.store.find_md5(project.lock(find_run(project, "HEAD~1")), "data/images.parquet")
    assert before is not None
    project.store.object_path(before).unlink()
    found = differences(project, find_run(project, "HEAD~1"), find_run(project, "HEAD"))
    assert found.photos is None
    assert found.missing == ["data/images.parquet"]
    assert found.counts
    assert "  data/images.parquet" in found.lines()


def test_keys_of_one_side_are_told_from_null() -> None:
    changes = compare({"a": 1, "b": None, "c": 1.0}, {"b": 2, "c": 1.0, "d": None})
    assert [change.line() for change in changes] == ["a: 1 -> (none)", "b: null -> 2", "d: (none) -> null"]


def test_lines_are_numbered_in_the_text_that_has_them() -> None:
    assert line_changes(b"a\nb\nc\n", b"new\na\nc\nd\n") == [(1, "+", "new"), (2, "-", "b"), (4, "+", "d")]


def metrics_of(project: Project, revision: str) -> dict[str, object]:
    content = project.store.read_path(project.lock(find_run(project, revision)), "reports/metrics/evaluation.json")
    assert content is not None
    values: dict[str, object] = json.loads(content)
    return values


def value_at(values: dict[str, object], dotted_key: str) -> object:
    value: object = values
    for key in dotted_key.split("."):
        assert isinstance(value, dict)
        value = value[key]
    return value
