"""A run followed back: every fact is the one in the file it comes from, and what is not here is named."""

import json
import shutil
from pathlib import Path

import pytest

from lineage import prefect_runs
from lineage.records import Lineage, RunRecord
from lineage.runs import Project, find_run
from lineage.store import file_md5
from lineage.trace import trace
from tasks.stage import PawlineError
from tests.test_pipeline import STAGES, outputs, run, set_params

MAKERS = ["source", "ingest", "validate", "preprocess", "backbone", "features", "train_head", "fine_tune"]
JUDGES = ["evaluate", "export", "label_errors", "probe", "report"]
# What is read for facts and lies in no folder of the workspace's git: all but what a clone has.
FACTS = {
    "data/features/manifest.json",
    "data/source.json",
    "models/backbone/origin.json",
    "reports/metrics/evaluation.json",
    "reports/metrics/validation.json",
}


def read(path: str) -> object:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def trace_here(folder: Path, what: str | None = None) -> Lineage:
    project = Project(folder)
    return trace(project, find_run(project, what))


def test_the_facts_are_those_of_the_files_and_stages_of_the_run(three_runs: Path) -> None:
    lineage = trace_here(three_runs)
    assert lineage.missing == lineage.uncommitted == []
    assert (lineage.kind, lineage.version, lineage.model.stage) == ("workspace", None, "fine_tune")
    assert lineage.model.md5 == file_md5(Path("models/classifier.keras"))
    assert lineage.model.bytes == Path("models/classifier.keras").stat().st_size
    assert lineage.commit is not None
    assert lineage.commit.subject == "Take more photos, and leave the last layers as they are"
    assert (lineage.commit.author, lineage.commit.email) == ("tests", "tests@example.com")

    assert [stage.name for stage in lineage.stages][: len(MAKERS)] == MAKERS
    assert sorted(stage.name for stage in lineage.stages[len(MAKERS) :]) == JUDGES
    for stage in lineage.stages:
        declared = STAGES[stage.name]
        assert sorted(artifact.path for artifact in stage.outputs) == sorted(outputs(declared))
        assert sorted(artifact.path for artifact in stage.code + stage.inputs) == sorted(declared["deps"])
        assert stage.description == declared["desc"]
    head = lineage.stage("train_head")
    assert {artifact.path: artifact.stage for artifact in head.inputs} == {
        "data/features": "features",
        "models/backbone": "backbone",
    }
    assert all(artifact.stage is None and artifact.path.startswith("tasks/") for artifact in head.code)
    assert head.params["train_head.learning_rate"] == 0.0005

    assert lineage.source.params["data.synthetic_images"] == 90
    assert lineage.source.fingerprint == read("data/source.json")
    assert lineage.counts is not None
    validation = read("reports/metrics/validation.json")
    assert isinstance(validation, dict)
    assert lineage.counts.model_dump().items() <= validation.items()
    assert lineage.weights == read("models/backbone/origin.json")
    assert lineage.metrics == read("reports/metrics/evaluation.json")
    assert lineage.environment.packages["keras"]
    assert lineage.environment.lock_file is not None
    assert lineage.environment.lock_file.md5 == file_md5(Path("requirements.lock"))
    assert Lineage.model_validate_json(lineage.model_dump_json()) == lineage


def test_each_run_has_its_own_lineage(three_runs: Path) -> None:
    run(["git", "tag", "classifier@v1.0.0", "HEAD~1"], three_runs)
    first, second, third = (trace_here(three_runs, what) for what in ("HEAD~2", "v1", "HEAD"))
    rates = [lineage.stage("train_head").params["train_head.learning_rate"] for lineage in (first, second, third)]
    assert rates == [0.001, 0.0005, 0.0005]
    assert [lineage.source.params["data.synthetic_images"] for lineage in (first, second, third)] == [80, 80, 90]
    assert len({lineage.model.md5 for lineage in (first, second, third)}) == 3
    assert [lineage.version for lineage in (first, second, third)] == [None, "v1.0.0", None]
    assert second == trace_here(three_runs, "HEAD~1").model_copy(update={"name": "v1.0.0", "kind": "version"})

    run(["git", "checkout", "--quiet", "--detach", "HEAD~1"], three_runs)
    detached = trace_here(three_runs, "HEAD")
    assert detached.stages == second.stages
    set_params(three_runs, {"train_head.epochs": 3})
    run(["git", "mv", "tasks/backbone_layers/VGG16.txt", "tasks/backbone_layers/moved.txt"], three_runs)
    assert trace_here(three_runs).uncommitted == [
        "params.yaml",
        "tasks/backbone_layers/VGG16.txt",
        "tasks/backbone_layers/moved.txt",
    ]


def test_a_prefect_run_is_found_by_what_the_stage_read_and_wrote(three_runs: Path) -> None:
    project = Project(three_runs)
    record = RunRecord(
        flow_run_id="1", flow_run_name="calm-otter", task_run_id="2", started="2026-01-01T00:00:00Z", ended="later"
    )
    prefect_runs.write_record(project, project.lock(find_run(project, "HEAD"))["train_head"], record)
    assert trace_here(three_runs).stage("train_head").run == record
    assert trace_here(three_runs).stage("features").run is None
    assert trace_here(three_runs, "HEAD~2").stage("train_head").run is None, "another learning rate, another run"


def test_what_is_not_here_is_named_and_the_rest_still_told(three_runs: Path, tmp_path: Path) -> None:
    whole = trace_here(three_runs)
    shutil.rmtree(".dvc/cache")
    lineage = trace_here(three_runs)
    assert set(lineage.missing) >= FACTS
    assert (lineage.counts, lineage.weights, lineage.metrics, lineage.source.fingerprint) == (None, None, None, None)
    assert lineage.environment.packages == {}
    assert (lineage.stages, lineage.model, lineage.source.params) == (whole.stages, whole.model, whole.source.params)

    run(["git", "clone", "--quiet", "--depth", "1", f"file://{three_runs}", str(tmp_path / "shallow")], three_runs)
    assert trace_here(tmp_path / "shallow", "HEAD").stages == whole.stages
    shutil.rmtree(".git")
    without_git = trace_here(three_runs)
    assert (without_git.commit, without_git.uncommitted, without_git.stages) == (None, [], whole.stages)

    graph = Path("dvc.yaml").read_text()
    for stages in ("stages: 5", "stages: [a]", "stages: {export: 5}", "{}"):
        Path("dvc.yaml").write_text(stages)
        with pytest.raises(PawlineError, match=r"^dvc\.yaml of workspace declares no stages as DVC reads them"):
            trace_here(three_runs)
    Path("dvc.yaml").write_text(graph)
    lock = Path("dvc.lock")
    lock.write_text(lock.read_text().replace("path: models/classifier.keras", "path: models/other.keras"))
    with pytest.raises(PawlineError, match=r"workspace has no models/classifier.keras: its run was not finished"):
        trace_here(three_runs)
    lock.write_text("<<<<<<< HEAD\n")
    with pytest.raises(PawlineError, match=r"^dvc.lock of workspace"):
        trace_here(three_runs)
    lock.unlink()
    with pytest.raises(PawlineError, match=r"^workspace has no dvc.lock"):
        trace_here(three_runs)
