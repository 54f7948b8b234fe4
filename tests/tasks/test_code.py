"""The import closure: what a module names, and what those name."""

from pathlib import Path

import pytest

from tasks import code
from tasks.code import digest_closure, digest_package, import_closure


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "a/__init__.py": "",
        "a/start.py": "import json\nfrom a import middle\n",
        "a/middle.py": "def late():\n    from a.deep.end import thing\n",
        "a/deep/__init__.py": "",
        "a/deep/end.py": "thing = 1\n",
        "a/aside.py": "import a.start\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_imports_are_followed_into_functions_and_packages() -> None:
    found = [path.as_posix() for path in import_closure("a.start")]
    assert found == ["a/__init__.py", "a/deep/__init__.py", "a/deep/end.py", "a/middle.py", "a/start.py"]


def test_a_digest_changes_with_what_it_covers_only(project: Path) -> None:
    before = digest_closure("a.start"), digest_package("a")
    (project / "a/aside.py").write_text("x = 1\n")
    assert digest_closure("a.start") == before[0]
    assert digest_package("a") != before[1]
    (project / "a/deep/end.py").write_text("thing = 2\n")
    assert digest_closure("a.start") != before[0]
