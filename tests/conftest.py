"""What the tests share: where the real photos are, and a folder to work in."""

import gc
import logging
import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.commands.shared import Terminal
from tests import s3
from tests.once import made_once

ROOT = Path(__file__).parent.parent
# The files that take more than 20 seconds, the longest first.
SLOWEST = (
    "test_real_photos.py",
    "test_retraining.py",
    "test_pipeline.py",  # makes the three runs, while the other process is busy with what does not need them
    "tasks/test_backbones.py",
    "tasks/export/test_export.py",
    "test_docs_exports.py",
    "test_audit.py",
    "test_remote_storage.py",
    "flows/commands/test_certify.py",
    "tasks/test_backbone.py",
    "tasks/test_engines.py",
    "tasks/test_evaluate.py",
    "tasks/test_features.py",
    "tasks/test_strategy.py",
    "tasks/test_training.py",
    "tasks/test_fine_tune.py",
    "tasks/test_validate.py",
    "lineage/test_why.py",
    "lineage/test_verify.py",
)


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start, also where a shell runs them in the background and has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: at the end they would keep one of two processes waiting."""
    position = {ROOT / "tests" / name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: position.get(item.path, len(SLOWEST)))


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what the imports made: it takes an eighth of the time in which Keras builds."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real photos, or a skip that says how to provide them."""
    folder = Path(os.environ.get("PAWLINE_SHARED_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not (folder / "petimages.zip").exists():
        pytest.skip("real photos not found: set PAWLINE_SHARED_DATA to the folder that holds petimages.zip")
    return folder


@pytest.fixture(autouse=True)
def _log_off_the_terminal() -> Iterator[None]:
    """Undo what a command that is called in this process does: its log goes to the terminal, and not to pytest."""
    loggers = [logging.getLogger(name) for name in ("flows", "registry")]
    propagated = [logger.propagate for logger in loggers]
    yield
    for logger, propagate in zip(loggers, propagated, strict=True):
        logger.propagate = propagate
        logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, Terminal)]


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".user-cache"))
    return tmp_path


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all test processes of a session have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def three_runs_made(shared_folder: Path) -> Path:
    """Three real runs (tests/three_runs.py): `project`, which nobody may change, and `ran.json`, what ran."""
    from tests.three_runs import make_project

    return made_once(shared_folder / "three_runs", make_project)


@pytest.fixture
def three_runs(three_runs_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project with three real runs, as the current folder."""
    folder = tmp_path / "three"
    shutil.copytree(three_runs_made / "project", folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    return folder


@pytest.fixture(scope="session")
def one_run_made(shared_folder: Path) -> Path:
    """A project with one small run on record (tests/one_run.py), which nobody may change."""
    from tests.one_run import make_project

    return made_once(shared_folder / "one_run", lambda folder: make_project(folder / "project"))


@pytest.fixture
def one_run(one_run_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project with one run, as the current folder."""
    folder = tmp_path / "one"
    shutil.copytree(one_run_made / "project", folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    return folder


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real S3 API, for the tests of this process."""
    with s3.served(tmp_path_factory.mktemp("s3") / "server.log") as address:
        yield address


@pytest.fixture
def bucket(s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> s3.Bucket:
    """An empty bucket, and an environment that leads to it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    settings = s3.KEYS | {
        "AWS_ENDPOINT_URL": s3_address,
        "AWS_CONFIG_FILE": str(tmp_path / ".aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / ".aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    made = s3.Bucket(s3_address, f"photos-{uuid.uuid4().hex}")
    made.request("PUT")
    return made
