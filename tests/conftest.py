"""What the tests share: where the real photos are, and a folder to work in."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SLOWEST = ("test_real_photos.py", "test_pipeline.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: at the end they would keep one of two processes waiting."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real photos, or a skip that says how to provide them."""
    folder = Path(os.environ.get("PAWLINE_SHARED_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not (folder / "petimages.zip").exists():
        pytest.skip("real photos not found: set PAWLINE_SHARED_DATA to the folder that holds petimages.zip")
    return folder


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".user-cache"))
    return tmp_path


@pytest.fixture
def three_runs(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small project with three real runs (tests/three_runs.py), as the current folder."""
    from tests.three_runs import made_once

    shared = (
        tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.getbasetemp()
    )
    with made_once(shared / "three_runs") as template:
        folder = tmp_path / "three"
        shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    return folder
