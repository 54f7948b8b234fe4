"""dvc.yaml tells the whole truth: code dependencies, parameters and paths."""

import ast
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

STAGES: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def module_file(module: str) -> Path | None:
    """The file of a project module, relative to the root; None for a library's."""
    base = Path(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if (ROOT / path).is_file()), None)


def imported_modules(path: Path) -> set[str]:
    """Every module a file names in an import, at any depth, and the packages they lie in."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(parts[:end]) for name in names for parts in [name.split(".")] for end in range(1, len(parts) + 1)}


def import_closure(module: str) -> set[str]:
    """The project files that running a module imports."""
    found: set[Path] = set()
    waiting = [module, module.rpartition(".")[0], f"{module}.__main__"]
    while waiting:
        path = module_file(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting += imported_modules(path)
    return {str(path) for path in found}


@pytest.mark.parametrize("name", STAGES)
def test_code_dependencies_are_the_import_closure(name: str) -> None:
    declared = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert declared == import_closure(f"tasks.{name}")


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_runs_its_own_module_and_says_what_it_does(name: str) -> None:
    assert STAGES[name]["cmd"] == f"python -m tasks.{name}"
    assert STAGES[name]["desc"]


def test_every_output_is_cached() -> None:
    for stage in STAGES.values():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            options = next(iter(out.values())) if isinstance(out, dict) else {}
            assert options.get("cache", True), out
