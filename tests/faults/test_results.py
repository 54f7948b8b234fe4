from pathlib import Path

import pytest

from tests.faults import results
from tests.faults.results import Fault, Found


def found(test: str, what: str, fault: Fault = Fault.DEATH, *, held: int = 20) -> Found:
    return Found(fault=fault, what=what, tries=20, held=held, seen="the same bytes", test=test)


def test_what_a_test_finds_replaces_what_it_found_before(tmp_path: Path) -> None:
    known = [found("soak", "rounds", Fault.SOAK), found("death", "source"), found("death", "a stage that is gone")]
    results.save(found("death", "source", held=19), tmp_path)
    results.save(found("death", "ingest"), tmp_path)
    merged = results.merge(tmp_path, known)
    assert [(one.what, one.held) for one in merged] == [("ingest", 20), ("source", 19), ("rounds", 20)]


def test_the_page_has_every_kind_that_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "JSON_OUT", tmp_path / "reliability.json")
    monkeypatch.setattr(results, "PAGE_OUT", tmp_path / "reliability.md")
    (tmp_path / "found").mkdir()
    results.save(found("death", "`source`"), tmp_path / "found")
    results.main([str(tmp_path / "found")])
    results.main([str(tmp_path / "found")])
    page = (tmp_path / "reliability.md").read_text(encoding="utf-8")
    assert page.count("| `source` | 20 | 20 | the same bytes | `death` |") == 1
    assert "## Sudden death\n" in page
    assert "## Soak\n" not in page


def test_the_page_names_what_was_not_tried_in_full() -> None:
    tests = results.tests_that_say()
    assert "tests/faults/test_soak.py::test_nothing_grows" in tests
    page = results.render(
        "this machine", [found("tests/faults/test_soak.py::test_nothing_grows", "rounds", Fault.SOAK)]
    )
    assert page.count("test_nothing_grows") == 1
    assert page.count("\n- `tests/faults/") == len(tests) - 1
