"""docs/security.md: every line of its tables of threats names a test, and each of them is there."""

import ast
import re
from functools import cache

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def lines() -> list[str]:
    """Return the lines of the tables that say which test holds what, without their heads."""
    tables = re.findall(r"^\| threat \| what holds \| test \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [line for table in tables for line in table.splitlines()]


@cache
def names_in(path: str) -> set[str]:
    """Return the names of a file's tests, without importing it."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_line_names_a_test() -> None:
    assert len(lines()) > 50
    assert [line for line in lines() if not TEST.search(line.split(" | ")[2])] == []
    assert [line for line in lines() if line.count(" | ") != 2] == []


@pytest.mark.parametrize("path", sorted({path for path, _ in TEST.findall(PAGE)}))
def test_the_tests_that_are_named_are_there(path: str) -> None:
    named = {name for found, name in TEST.findall(PAGE) if found == path}
    assert sorted(named - names_in(path)) == []


def test_what_looks_like_a_test_is_written_as_one() -> None:
    assert len(re.findall(r"test_\w+`", PAGE.replace("`tests/test_security_page.py`", ""))) == len(TEST.findall(PAGE))
