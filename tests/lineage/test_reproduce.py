import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lineage.lockfile import LockedPath
from lineage.reproduce import OutputRebuild, Reproduction, compare_output, environment_differences, reproduce
from lineage.runs import Project, find_run
from tasks.stage import PawlineError
from tests.test_pipeline import commit, run

# The last stage stands first: the order is that in which they run.
GRAPH = """\
stages:
  last:
    cmd: python -m tasks.last
    deps: [tasks/last.py, middle.txt]
    outs: [last.txt]
  first:
    cmd: python -m tasks.first
    deps: [tasks/first.py]
    params: [data]
    outs: [first]
  middle:
    cmd: python -m tasks.middle
    deps: [tasks/middle.py, first]
    outs: [middle.txt]
"""
# The photos are outside of git. A log beside them counts the runs. RESTLESS names the stage that misbehaves.
FIRST = """\
import sys
from pathlib import Path
from ruamel.yaml import YAML

data = YAML(typ="safe", pure=True).load(Path("params.yaml"))["data"]
photos = Path(data["path"])
if not photos.exists():
    sys.exit(f"error: data.path {photos} does not exist: correct it in params.yaml")
with photos.resolve().with_name("log").open("a") as log:
    log.write("first ran\\n")
Path("first/b").mkdir(parents=True)
Path("first/b/a.txt").write_text(photos.read_text())
Path("first/environment.json").write_text('{"python": "3.9.1"}')
"""
MIDDLE = """\
import os
from pathlib import Path

chance = os.urandom(9).hex() if os.environ.get("RESTLESS") == "middle" else ""
Path("middle.txt").write_text(Path("first/b/a.txt").read_text().upper() + chance)
"""
LAST = """\
import os, time
from pathlib import Path

if os.environ.get("RESTLESS") == "last":
    Path("first/b/a.txt").write_text("changed afterwards")
if os.environ.get("RESTLESS") == "asleep":
    time.sleep(60)
Path("last.txt").write_text(Path("middle.txt").read_text() * 2)
"""
REBUILD = """\
from pathlib import Path
from lineage.reproduce import reproduce
from lineage.runs import Project, find_run

project = Project(Path.cwd())
try:
    reproduce(project, find_run(project, "HEAD"), log=lambda line: print(line, flush=True))
except KeyboardInterrupt:
    print("interrupted")
"""


def make_project(outside: Path) -> None:
    """Make a project of three stages in a folder, its run committed, and the photos beside it."""
    (outside / "photos.txt").write_text("synthetic photos\n")
    folder = outside / "project"
    (folder / "tasks").mkdir(parents=True)
    for name, code in (("__init__", ""), ("first", FIRST), ("middle", MIDDLE), ("last", LAST)):
        (folder / f"tasks/{name}.py").write_text(code)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "params.yaml").write_text("data: {path: ../photos.txt, views: 0.00003}\n")
    (folder / ".gitignore").write_text("*.txt\n/first\n/reports\n__pycache__/\n")
    run(["git", "init", "--quiet"], folder)
    run(["dvc", "init", "--quiet"], folder)
    run(["dvc", "repro", "--quiet"], folder)
    commit(folder)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outside = tmp_path_factory.mktemp("outside")
    make_project(outside)
    return outside


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    shutil.copytree(template, tmp_path / "outside", symlinks=True)
    monkeypatch.chdir(tmp_path / "outside/project")
    return Project(Path.cwd())


def rebuild(project: Project, what: str | None) -> tuple[Reproduction, list[str]]:
    """Rebuild a run; nothing may be left beside the project."""
    before = sorted(project.root.parent.iterdir())
    lines: list[str] = []
    reproduction = reproduce(project, find_run(project, what), log=lines.append)
    assert sorted(project.root.parent.iterdir()) == before
    return reproduction, lines


def test_a_project_is_rebuilt_whatever_characters_its_path_has(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(template, tmp_path / "cats, dogs #2 %(all)s", symlinks=True)
    monkeypatch.chdir(tmp_path / "cats, dogs #2 %(all)s/project")
    reproduction, _ = rebuild(Project(Path.cwd()), "HEAD")
    assert reproduction.identical


def test_a_commit_is_rebuilt_from_the_photos_and_nothing_else(project: Project) -> None:
    for leftover in ("first", "middle.txt", "last.txt"):  # DVC's cache would serve these
        assert (project.root / leftover).exists()
    status = run(["git", "status", "--porcelain", "--ignored"], project.root).stdout
    reproduction, lines = rebuild(project, "HEAD")
    assert reproduction.identical
    assert reproduction.summary() == "identical, byte for byte: 3 outputs of 3 stages, 0 MB"
    assert [stage.name for stage in reproduction.stages] == ["first", "middle", "last"]
    assert [line.split()[::3] for line in lines[1:]] == [[n, "identical"] for n in ("first", "middle", "last")]
    assert (project.root.parent / "log").read_text() == "first ran\n" * 2
    assert run(["git", "status", "--porcelain", "--ignored"], project.root).stdout == status
    first = reproduction.stages[0].outputs[0]
    assert (first.rebuilt, first.bytes) == (project.lock(find_run(project, "HEAD"))["first"].outs[0].md5, 36)
    assert first.sha256.keys() == {"first/b/a.txt", "first/environment.json"}


def test_the_stage_that_draws_lots_is_named_and_the_environment(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTLESS", "middle")
    reproduction, lines = rebuild(project, "HEAD")
    assert reproduction.first_divergence == "middle"
    said = "diverges first in `middle`: middle.txt; the environment differs: python 3.9.1 (now 3."
    assert reproduction.summary().startswith(said)
    assert [stage.identical for stage in reproduction.stages] == [True, False, False]
    assert [line.split()[-1] for line in lines[1:]] == ["identical", "DIFFERS", "DIFFERS"]


def test_a_file_that_a_later_stage_changes_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTLESS", "last")
    reproduction, _ = rebuild(project, "HEAD")
    assert reproduction.first_divergence == "first"
    assert reproduction.stages[0].outputs[0].differing_files == ["first/b/a.txt"]


def test_the_workspace_is_rebuilt_with_what_is_not_committed(project: Project) -> None:
    shutil.copy(project.root.parent / "photos.txt", project.root)  # ignored by git
    (project.root / "params.yaml").write_text("data: {path: photos.txt}\n")
    (project.root / "tasks/middle.py").rename(project.root / "tasks/centre.py")
    (project.root / "dvc.yaml").write_text(
        GRAPH.replace("tasks/middle", "tasks/centre").replace("s.middle", "s.centre")
    )
    run(["dvc", "repro", "--quiet"], project.root)
    (project.root / "notes.py").touch()
    reproduction, _ = rebuild(project, None)
    assert reproduction.identical
    assert reproduction.commit is None


def test_a_run_of_other_code_or_parameters_is_refused_at_once(project: Project) -> None:
    (project.root / "params.yaml").write_text("data: {path: ../photos.txt, views: 4}\n")
    with pytest.raises(PawlineError, match=r"workspace records `first` with another data\.views: `dvc repro` and"):
        rebuild(project, None)
    run(["git", "checkout", "params.yaml"], project.root)
    (project.root / "tasks/last.py").write_text("# another\n" + LAST)
    commit(project.root)
    with pytest.raises(PawlineError, match=r"HEAD records `last` with another tasks/last\.py: `dvc repro` there, and"):
        rebuild(project, "HEAD")
    assert (project.root.parent / "log").read_text() == "first ran\n"


def test_photos_that_are_gone_are_the_stage_s_own_error(project: Project) -> None:
    (project.root.parent / "photos.txt").unlink()
    with pytest.raises(PawlineError) as caught:
        rebuild(project, "HEAD")
    said = "data.path ../photos.txt does not exist: correct it in params.yaml"
    assert str(caught.value) == f"rebuilding HEAD: stage first failed: {said}"
    shutil.rmtree(project.root / ".git")
    with pytest.raises(PawlineError, match="`git init`, then commit"):
        rebuild(Project(project.root), None)


def test_interrupted_it_leaves_no_process_and_no_folder(project: Project) -> None:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONSAFEPATH": "1", "RESTLESS": "asleep"}
    process = subprocess.Popen([sys.executable, "-c", REBUILD], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("middle"):
        assert process.poll() is None
    beside = f"{project.root.parent}/.project-rebuild-"
    assert [place for place in working_places() if place.startswith(beside)]
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "interrupted\n"
    assert sorted(path.name for path in project.root.parent.iterdir()) == ["log", "photos.txt", "project"]
    assert not [place for place in working_places() if place.startswith(beside)]
    assert len(run(["git", "worktree", "list"], project.root).stdout.splitlines()) == 1


def working_places() -> list[str]:
    """Return the current folders of all processes; Linux adds ` (deleted)` to one that is gone."""
    places = []
    for process in psutil.process_iter():
        try:
            places.append(process.cwd())
        except psutil.Error:
            continue
    return places


def test_a_folder_is_compared_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "out/sub").mkdir(parents=True)
    for name in ("same", "sub/changed", "new"):
        (tmp_path / "out" / name).write_text(name)
    (tmp_path / "out/link").symlink_to("nowhere")  # DVC records files
    (tmp_path / "out/empty").mkdir()
    recorded = {"same": "51037a4a37730f52c8732586d3aaa316", "sub/changed": "0" * 32, "gone": "1" * 32}
    out = LockedPath("out", "2" * 32 + ".dir", 0)
    assert compare_output(tmp_path, out, recorded).differing_files == ["out/gone", "out/new", "out/sub/changed"]
    assert compare_output(tmp_path, out, None).differing_files == []
    nothing = compare_output(tmp_path, LockedPath("other", "2" * 32, 0), {})
    assert nothing == OutputRebuild(
        path="other", recorded="2" * 32, rebuilt=None, identical=False, bytes=0, sha256={}, differing_files=[]
    )


def test_environments_are_compared_in_words() -> None:
    then = {"threads": 2, "processor_features": ["avx2", "sse"], "packages": {"keras": "3.1", "numpy": "2.4"}}
    now = {"threads": 4, "processor_features": ["amx", "avx2"], "packages": {"numpy": "2.4", "scipy": "1.1"}}
    assert environment_differences(then, now) == [
        "threads 2 (now 4)",
        "processor_features without sse",
        "processor_features with amx",
        "keras 3.1 (now absent)",
        "scipy absent (now 1.1)",
    ]
    assert environment_differences(now, now) == []
