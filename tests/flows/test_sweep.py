import re
import shutil
from pathlib import Path

import pytest

from flows import presets, sweep
from flows.sweep import Plan, Row
from tasks.stage import PawlineError
from tests.conftest import ROOT

HEAD = "models/stage1/metrics.json"
TAIL = "models/stage2/metrics.json"


@pytest.fixture
def real_graph(project: Path) -> None:
    """The project's own dvc.yaml, in which nothing can run here."""
    shutil.copy(ROOT / "dvc.yaml", project)


def rows(*metrics: dict[str, float]) -> list[Row]:
    return [Row(f"a-{number}", {"k": str(number)}, dict(values)) for number, values in enumerate(metrics)]


@pytest.mark.parametrize(
    ("joined", "values"),
    [
        ("1e-4,3e-4", ["1e-4", "3e-4"]),
        ("[],[128],[256,64]", ["[]", "[128]", "[256,64]"]),
        ("{a: 1, b: [2,3]},null", ["{a: 1, b: [2,3]}", "null"]),
        ("'a,b',\"c,]\"", ["'a,b'", '"c,]"']),
        ("1", ["1"]),
        ("1,", ["1", ""]),
    ],
)
def test_values_are_split_at_the_outer_commas(joined: str, values: list[str]) -> None:
    assert sweep.split_values(joined) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, f"{text}: write KEY=V1,V2,..., such as ") for text in ("k", "k=", "=1", "k=1,,2")),
        *((text, f"{text}: a key or a value is there twice") for text in ("k=1,1", "k=0.1,1e-1")),
        ("k=[1,2", "k: '[1,2' is not readable YAML: "),
    ],
)
def test_what_is_no_sweep_gets_one_line(text: str, message: str) -> None:
    with pytest.raises(PawlineError, match=re.escape(message)) as caught:
        sweep.parse_grid([text], here=Path.cwd())
    assert "\n" not in str(caught.value)


def test_experiments_that_share_features_are_not_done_side_by_side(project: Path) -> None:
    keys = ["train_head.dropout", "fine_tune.epochs"]
    plan = sweep.Plan(shared=[], stages=[], metrics=[], path_keys=[], keys=["fine_tune.epochs", "train_head.dropout"])
    combinations = sweep.combine(dict(zip(keys, (["0", "0.2"], ["3", "1"]), strict=True)), {})
    ordered = [tuple(one.values()) for one in sweep.share_work(combinations, plan)]
    assert ordered == [("0", "3"), ("0.2", "3"), ("0", "1"), ("0.2", "1")]


def test_every_combination_is_made_and_checked(project: Path) -> None:
    grid = sweep.parse_grid(["train_head.dropout=0,0.2", "train_head.hidden_units=[],[256,64]"], here=project)
    combinations = sweep.combine(grid, {"train_head.epochs": 2})
    assert [sweep.in_words(one) for one in combinations] == [
        "train_head.dropout=0 train_head.hidden_units=[]",
        "train_head.dropout=0 train_head.hidden_units=[256,64]",
        "train_head.dropout=0.2 train_head.hidden_units=[]",
        "train_head.dropout=0.2 train_head.hidden_units=[256,64]",
    ]
    assert sweep.settings_of(combinations[1], {})["train_head.hidden_units"] == [256, 64]
    # Each value is possible, the two together are not.
    grid = {"train_head.epochs": ["1", "5"], "train_head.warmup_epochs": ["0", "3"]}
    with pytest.raises(PawlineError, match=r"\(with train_head.epochs=1 train_head.warmup_epochs=3\)$"):
        sweep.combine(grid, {"train_head.schedule": "cosine"})
    with pytest.raises(PawlineError, match=r"^501 combinations are more than 500"):
        sweep.combine({"train_head.seed": [str(seed) for seed in range(501)]}, {})
    digits = [str(number) for number in range(10)]
    with pytest.raises(PawlineError, match=r"^10000000000 combinations are more than 500"):
        sweep.combine({f"key{number}": digits for number in range(10)}, {})


def test_a_swept_path_brings_its_source_along(project: Path) -> None:
    (project / "photos").mkdir()
    shutil.make_archive(str(project / "packed"), "zip", project / "photos")
    combinations = sweep.combine(sweep.parse_grid(["data.path=photos,packed.zip"], here=project), {})
    assert [sweep.settings_of(one, {})["data.source"] for one in combinations] == ["directory", "archive"]
    presets.write_settings({"data.source": "tfds"})
    given = {"data.source": "directory"}
    assert [
        sweep.settings_of(one, given)["data.source"] for one in sweep.combine({"data.path": ["photos"]}, given)
    ] == ["directory"]


@pytest.mark.usefixtures("real_graph")
@pytest.mark.parametrize(
    ("keys", "target", "stages", "shared"),
    [
        (["train_head.dropout"], None, ["train_head"], ["backbone", "features"]),
        (["fine_tune.learning_rate"], None, ["fine_tune"], ["backbone", "features", "train_head"]),
        (["features.views"], None, ["features", "train_head"], ["preprocess", "backbone"]),
        (["fine_tune.unfrozen_layers"], None, ["features", "train_head", "fine_tune"], ["preprocess", "backbone"]),
        (["image.size_px"], None, ["preprocess", "features", "train_head"], ["ingest", "validate", "backbone"]),
        (["backbone.name"], None, ["source", "backbone", "features", "train_head"], ["preprocess"]),
        (["data.synthetic_images"], None, ["source", "ingest", "validate"], []),
        (
            ["train_head.dropout"],
            "evaluate",
            ["train_head", "fine_tune", "evaluate"],
            ["preprocess", "backbone", "features"],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_only_what_reads_a_swept_key_runs(
    keys: list[str], target: str | None, stages: list[str], shared: list[str]
) -> None:
    plan = sweep.make_plan(keys, target)
    assert plan.stages == stages
    assert sorted(plan.shared) == sorted(shared)


@pytest.mark.usefixtures("real_graph")
def test_the_metrics_are_those_of_the_stages_that_run() -> None:
    assert sweep.make_plan(["train_head.dropout"], None).metrics == [HEAD]
    evaluation = "reports/metrics/evaluation.json"
    assert sweep.make_plan(["train_head.dropout"], "evaluate").metrics == [HEAD, TAIL, evaluation]


@pytest.mark.parametrize(
    ("keys", "target", "message"),
    [
        (["image.size_px"], None, "no stage of dvc.yaml reads image.size_px"),
        (["train_head.dropout"], "jion", "unknown stage jion: dvc.yaml has source, left, right, join"),
        (["train_head.dropout"], "left", "--to left: no stage up to it reads train_head.dropout"),
        (["fine_tune.epochs"], "left", r"left has no metrics to compare: use --to \(join have\)"),
    ],
)
def test_an_impossible_plan_gets_one_line(keys: list[str], target: str | None, message: str, project: Path) -> None:
    with pytest.raises(PawlineError, match=f"^{message}$"):
        sweep.make_plan(keys, target)


def test_a_setting_that_the_shared_stages_read_is_noticed(project: Path) -> None:
    plan = sweep.make_plan(["train_head.dropout"], None)
    assert sweep.is_read_before(plan, ["fine_tune.epochs"])
    assert not sweep.is_read_before(plan, ["train_head.epochs"])


def test_relative_paths_are_made_whole_where_they_are_read(project: Path) -> None:
    presets.write_settings({"data.path": "x.zip"})
    told = Plan(shared=[], stages=[], metrics=[], path_keys=["data.path"], keys=["data.path"])
    assert sweep.hydra_overrides(told, {}) == [f"data.path={project / 'x.zip'}"]
    assert sweep.hydra_overrides(told._replace(path_keys=[]), {"a.b": 1}) == ["a.b=1"]
    grid = sweep.parse_grid(["data.path=x.zip,y.zip"], here=project / "docs")
    assert grid == {"data.path": ["docs/x.zip", "docs/y.zip"]}


def test_validation_accuracy_ranks_then_loss() -> None:
    ranked = rows({"accuracy": 1, "loss": 0, "val_loss": 0.3, "val_accuracy": 0.9})
    assert sweep.rank_by(ranked) == ["val_accuracy", "val_loss"]
    assert sweep.rank_by(rows({"stage1.val.accuracy": 0.1, "accuracy": 0.2, "f1": 0.3})) == ["stage1.val.accuracy"]
    assert sweep.rank_by(rows({"kept": 3, "quarantined": 1})) == []
    assert sweep.rank_by(rows({})) == []


def test_the_csv_has_everything(tmp_path: Path) -> None:
    made = [Row("a-2", {"k": "[1,2]"}, {"val_accuracy": 0.5, "selected": "stage1"}), Row("a-1", {"k": "3"}, {"x.y": 1})]
    sweep.write_csv(made, tmp_path / "a.csv")
    expected = 'experiment,k,val_accuracy,selected,x.y\na-2,"[1,2]",0.5,stage1,\na-1,3,,,1\n'
    assert (tmp_path / "a.csv").read_text() == expected
