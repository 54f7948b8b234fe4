"""A Prefect server for the session, and small real DVC projects."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing import utilities

from tests.once import made_once

ROOT = Path(__file__).parents[2]
QUIET_DVC = "[core]\n    analytics = false\n    check_update = false\n"
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
# `join` stands first: the order must come from what depends on what.
GRAPH = """\
stages:
  join:
    cmd: python -m tasks.join
    deps: [tasks/join.py, left.txt, right.txt]
    params: [train_head]
    outs: [join.txt, join]
  source:
    cmd: python -m tasks.source
    always_changed: true
    deps: [tasks/source.py]
    outs: [source.txt]
  left:
    cmd: python -m tasks.left
    deps: [tasks/left.py, source.txt]
    params: [fine_tune]
    outs: [left.txt]
  right:
    cmd: python -m tasks.right
    deps: [tasks/right.py, source.txt]
    params: [features]
    outs: [right.txt]
metrics: [join/metrics.json]
"""
SCRIPT = """\
import sys
from pathlib import Path

print("{name} at work with", sys.executable)
Path("{name}.txt").write_text("".join(Path(name).read_text() for name in {reads}) + "{name}\\n")
"""
# `join` trains, in a way; one value fails and one takes for ever.
METRICS = """\
import json, time
from ruamel.yaml import YAML

head = YAML(typ="safe", pure=True).load(Path("params.yaml"))["train_head"]
if head["dropout"] == 0.7:
    sys.exit("error: nothing is left to train")
if head["dropout"] == 0.8:
    time.sleep(60)
Path("join").mkdir()
metrics = {"val_accuracy": 1 - head["dropout"], "val_loss": head["learning_rate"], "best": {"epoch": head["epochs"]}}
Path("join/metrics.json").write_text(json.dumps(metrics))
"""
READS = {
    "source": [],
    "left": ["source.txt", "params.yaml"],
    "right": ["source.txt", "params.yaml"],
    "join": ["left.txt", "right.txt"],
}
# What a stage's script does when a test wants it to misbehave.
FAILS = "import sys\nprint('trying')\nsys.stderr.write('error: no photos in x: set data.path\\n')\nsys.exit(1)\n"
SLEEPS = """\
import time
from pathlib import Path

print("asleep")
while not Path("go").exists():
    time.sleep(0.1)
Path("{name}.txt").write_text("slept")
"""
# A stage that ends well only if another runs at the same time.
MEETS = """\
import time
from pathlib import Path

Path("{name}.here").touch()
deadline = time.monotonic() + 20
while not Path("{other}.here").exists():
    assert time.monotonic() < deadline, "alone"
    time.sleep(0.01)
time.sleep(0.3)
Path("{name}.txt").write_text("met")
"""


def meets(name: str, other: str) -> str:
    """Return the script of a stage that waits for another to run."""
    return MEETS.format(name=name, other=other)


def with_meta(project: Path, stage: str, meta: str, *, desc: str = "") -> None:
    """Give a stage of a project a `meta` and a purpose."""
    command = f"    cmd: python -m tasks.{stage}\n"
    more = f"    meta: {meta}\n" + (f"    desc: {desc}\n" if desc else "")
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace(command, command + more))


def empty_database(shared_folder: Path) -> Path:
    """Return a database as a Prefect server makes it, which takes it most of its first start, for others to begin with.

    Args:
        shared_folder: The fixture of this name.
    """

    def make(folder: Path) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, cwd=folder, env=env | {"PREFECT_HOME": str(folder)}, check=True, capture_output=True)

    return made_once(shared_folder / "prefect_database", make) / "prefect.db"


@pytest.fixture(scope="session")
def prefect_url(shared_folder: Path) -> Iterator[str]:
    """A Prefect server of the session's own, in use by this process."""

    def folder_with_database() -> str:
        folder = tempfile.mkdtemp()
        shutil.copy(empty_database(shared_folder), Path(folder, "prefect-test.db"))
        return folder

    # Without heartbeats a flow ends a second sooner.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", folder_with_database)
        with (
            utilities.prefect_test_harness(server_startup_timeout=120),
            temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        ):
            yield PREFECT_API_URL.value()


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=folder, check=True)
    for key in ("name", "email"):
        subprocess.run(["git", "config", f"user.{key}", "tests@localhost"], cwd=folder, check=True)
    (folder / ".dvc/config").write_text(QUIET_DVC)
    (folder / ".gitignore").write_text("/.prefect/\n/*.txt\n/join/\n/reports/\n__pycache__/\n")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "tasks").mkdir()
    (folder / "tasks/__init__.py").touch()
    for name, reads in READS.items():
        (folder / f"tasks/{name}.py").write_text(SCRIPT.format(name=name, reads=reads))
    with (folder / "tasks/join.py").open("a") as script:
        script.write(METRICS)
    shutil.copy(ROOT / "prefect.toml", folder)
    shutil.copytree(ROOT / "presets", folder / "presets")
    for arguments in (["add", "."], ["commit", "--quiet", "--message", "A project"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def recorded_template(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "project"
    shutil.copytree(project_template, folder, symlinks=True)
    dvc("repro", cwd=folder)
    for arguments in (["add", "dvc.lock"], ["commit", "--quiet", "--message", "Record"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


@contextmanager
def working_copy(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of a project as the current folder; no process may be left in it."""
    folder = tmp_path / "project"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    yield folder
    assert processes_in(folder) == []


@pytest.fixture
def recorded(recorded_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, up to date, with dvc.lock committed."""
    with working_copy(recorded_template, tmp_path, monkeypatch) as folder:
        yield folder


@pytest.fixture
def project(project_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of four stages, the current folder, in which nothing has run yet; no process may outlive the test."""
    with working_copy(project_template, tmp_path, monkeypatch) as folder:
        yield folder


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of other processes at work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            at_work = process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder)
            if at_work and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def dvc(*arguments: str, cwd: Path | None = None) -> str:
    """Run DVC, in the current folder unless told otherwise, and return what it said."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=cwd, env={**os.environ, "PATH": path}
    )
    return done.stdout
