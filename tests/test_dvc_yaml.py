"""dvc.yaml tells the whole truth: code dependencies, parameters and paths."""

from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.code import import_closure
from tests.conftest import ROOT

STAGES: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


@pytest.mark.parametrize("name", STAGES)
def test_code_dependencies_are_the_import_closure(name: str) -> None:
    declared = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert declared == {path.as_posix() for path in import_closure(f"tasks.{name}")}


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_runs_its_own_module_and_says_what_it_does(name: str) -> None:
    assert STAGES[name]["cmd"] == f"python -m tasks.{name}"
    assert STAGES[name]["desc"]


def test_every_output_is_cached() -> None:
    for stage in STAGES.values():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            options = next(iter(out.values())) if isinstance(out, dict) else {}
            assert options.get("cache", True), out
