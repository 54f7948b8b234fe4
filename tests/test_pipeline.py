"""The whole graph through `dvc repro` on the synthetic default, made small: what reruns, what each stage reads.

What it costs is the start of TensorFlow, so the runs are those of tests/three_runs.py, which other tests need, too.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

yaml = YAML(typ="safe", pure=True)
STAGES: dict[str, dict[str, Any]] = yaml.load(ROOT / "dvc.yaml")["stages"]


def run(command: list[str], folder: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command with this environment's programs first in the path."""
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "PYTHONPATH": str(folder),
    }
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def stages_run(folder: Path, *targets: str) -> list[str]:
    """Run `dvc repro` and return the stages that really ran."""
    return re.findall(r"Running stage '(\w+)'", run(["dvc", "repro", *targets], folder).stdout)


def set_params(folder: Path, values: dict[str, Any]) -> None:
    params = yaml.load(folder / "params.yaml")
    for dotted_key, value in values.items():
        *sections, key = dotted_key.split(".")
        section = params
        for name in sections:
            section = section[name]
        section[key] = value
    yaml.dump(params, folder / "params.yaml")


@pytest.fixture(scope="module")
def project(three_runs_made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as the first of the three runs left it, in a git repository, with small parameters."""
    folder = tmp_path_factory.mktemp("first") / "project"
    shutil.copytree(three_runs_made / "project", folder, symlinks=True)
    run(["git", "reset", "--quiet", "--hard", "HEAD~2"], folder)
    run(["dvc", "checkout", "--quiet"], folder)
    return folder


def copy_project(folder: Path) -> None:
    """Copy what a checkout needs to run."""
    packages = ("tasks", "flows", "inference", "lineage", "registry", "presets")
    settings = (".dvc/config", ".dvcignore", ".gitignore", "prefect.toml")
    files = ("dvc.yaml", "params.yaml", "requirements.lock", "reports/context.json")
    for name in packages + settings + files:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def commit(folder: Path) -> None:
    """Make a git repository of a folder, as DVC's experiments need one."""
    run(["git", "init", "--quiet"], folder)
    run(["git", "add", "."], folder)
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.com"]
    run(["git", *identity, "commit", "--quiet", "--message", "Begin"], folder)


def test_a_run_runs_what_a_change_concerns(three_runs_made: Path) -> None:
    """A first run, one with another learning rate, and one with more photos."""
    first, slower, more_photos = json.loads((three_runs_made / "ran.json").read_text())
    assert first[0] == "source", "parameters are checked before any other stage works"
    assert sorted(first) == sorted(STAGES)
    assert set(slower) == {"source", "train_head", "fine_tune", "evaluate", "probe", "export", "report"}
    assert sorted(more_photos) == sorted(STAGES.keys() - {"backbone"})


def test_every_declared_output_is_there_and_git_sees_none(project: Path) -> None:
    for stage in STAGES.values():
        for out in outputs(stage):
            assert (project / out).exists(), out
    untracked = run(["git", "status", "--short", "--untracked-files=all"], project).stdout
    assert not re.findall(r"(data|models|reports)/", untracked)


def test_nothing_but_source_runs_again(project: Path) -> None:
    lock = (project / "dvc.lock").read_bytes()
    assert stages_run(project) == ["source"]
    assert (project / "dvc.lock").read_bytes() == lock


def outputs(stage: dict[str, Any]) -> list[str]:
    """The paths a stage declares as outputs."""
    outs = [*stage.get("outs", []), *stage.get("metrics", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in outs]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", STAGES)
def test_stage_is_hermetic_and_reproducible(name: str, project: Path, tmp_path: Path) -> None:
    """A stage needs what it declares, writes what it declares, and writes the same bytes again."""
    stage = STAGES[name]
    for dep in stage["deps"]:
        target = tmp_path / dep
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(project / dep, target) if (project / dep).is_dir() else shutil.copy(project / dep, target)
    yaml.dump(declared_params(stage, yaml.load(project / "params.yaml")), tmp_path / "params.yaml")
    before = files_of(tmp_path)
    run(stage["cmd"].split(), tmp_path)
    after = files_of(tmp_path)
    written = {path: content for path, content in after.items() if "__pycache__" not in path and path not in before}
    assert {path: content for path, content in after.items() if path in before} == before, "a dependency was changed"
    expected = {
        path: content
        for out in outputs(stage)
        for path, content in ({out: (project / out).read_bytes()} if (project / out).is_file() else {}).items()
    } | {
        f"{out}/{path}": content
        for out in outputs(stage)
        if (project / out).is_dir()
        for path, content in files_of(project / out).items()
    }
    assert sorted(written) == sorted(expected)
    assert [path for path in expected if written[path] != expected[path]] == []


def declared_params(stage: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The part of params.yaml that a stage declares; `source` always runs and checks the whole file."""
    if stage.get("always_changed"):
        return params
    declared: dict[str, Any] = {}
    for dotted_key in stage.get("params", []):
        section, _, key = dotted_key.partition(".")
        if key:
            declared.setdefault(section, {})[key] = params[section][key]
        else:
            declared[section] = params[section]
    return declared


@pytest.fixture
def changed(project: Path) -> Iterator[Path]:
    """The project, whose parameters a test may change; they are put back."""
    params = (project / "params.yaml").read_bytes()
    yield project
    (project / "params.yaml").write_bytes(params)


def test_bad_parameters_stop_everything_and_leave_earlier_outputs(changed: Path) -> None:
    before = {out: (changed / out).stat().st_mtime_ns for stage in STAGES.values() for out in outputs(stage)}
    set_params(changed, {"fine_tune.unfrozen_layers": 155})
    done = run(["dvc", "repro"], changed, check=False)
    assert done.returncode != 0
    assert "error: params.yaml: fine_tune.unfrozen_layers is 155: MobileNetV2 has 154 layers" in done.stderr
    assert re.findall(r"Running stage '(\w+)'", done.stdout) == ["source"]
    assert {out: (changed / out).stat().st_mtime_ns for out in before} == before


def test_pawline_run_finds_what_dvc_did(project: Path) -> None:
    done = run(["pawline", "run"], project)
    assert "1 of 13 stages run, 12 cached" in done.stdout
    assert stages_run(project) == ["source"]


def test_a_sweep_of_the_head_runs_nothing_else(project: Path) -> None:
    before = [path.stat().st_mtime_ns for path in sorted((project / "data").rglob("*/*"))]
    keys = ["train_head.learning_rate=1e-4,1e-3", "train_head.dropout=0,0.2"]
    done = run(["pawline", "sweep", *keys, "--name", "head"], project)
    assert "4 experiments, each of train_head" in done.stdout
    rows = list(csv.DictReader((project / "reports/sweeps/head.csv").open(encoding="utf-8")))
    assert len({(row["train_head.learning_rate"], row["train_head.dropout"]) for row in rows}) == 4
    accuracies = [float(row["val_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert (project / "reports/sweeps/head.png").read_bytes().startswith(b"\x89PNG")
    assert [path.stat().st_mtime_ns for path in sorted((project / "data").rglob("*/*"))] == before
    assert stages_run(project) == ["source"], "the workspace is as it was"


def test_presets_of_the_readme(project: Path) -> None:
    lines = run(["pawline", "presets"], project).stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


def test_figures_and_help_of_the_readme(project: Path) -> None:
    assert "accuracy" in run(["dvc", "metrics", "show"], project).stdout
    text = run([sys.executable, "-m", "tasks.validate", "--help"], project).stdout
    assert "data/raw" in text
    assert "data/images.parquet" in text


def test_an_augmentation_concerns_features_alone(changed: Path) -> None:
    """And so, by their dependencies, what follows features; the third of the three runs has that."""
    set_params(changed, {"features.augment": yaml.load(changed / "params.yaml")["features"]["augment"] | {"zoom": 0.2}})
    status = json.loads(run(["dvc", "status", "--json"], changed).stdout)
    assert status == {
        "source": ["always changed"],
        "features": [{"changed deps": {"params.yaml": {"features": "modified"}}}],
    }
    followers = {name for name, stage in STAGES.items() if "data/features" in stage["deps"]}
    assert followers >= {"train_head", "fine_tune", "evaluate"}
