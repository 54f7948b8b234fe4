import hashlib
import json
import shutil
from pathlib import Path

import pytest

from inference import models
from inference.classifier import load
from lineage import lockfile
from lineage.store import Store, file_md5
from tasks.stage import PawlineError
from tests.plumbing import git

LOCK = """\
schema: '2.0'
stages:
  preprocess:
    cmd: python -m tasks.preprocess
    params:
      params.yaml:
        image: {{size_px: 96, resize: squash}}
  export:
    cmd: python -m tasks.export
    outs:
    - path: models/export
      hash: md5
      md5: {md5}
      size: 1
      nfiles: 1
"""


@pytest.fixture
def project(workdir: Path) -> Path:
    """A project in git and DVC with nothing in it."""
    (workdir / ".dvc").mkdir()
    (workdir / ".dvc/config").touch()
    (workdir / "dvc.yaml").touch()
    git("init", "--quiet", ".")
    git("config", "user.name", "tests")
    git("config", "user.email", "tests@example.com")
    return workdir


def keep(project: Path, export_dir: Path) -> lockfile.Lock:
    """Put an export into DVC's cache, and a run that wrote it into git."""
    store = Store(project)
    entries = []
    for path in sorted(path for path in export_dir.rglob("*") if path.is_file()):
        md5 = file_md5(path)
        entries.append({"md5": md5, "relpath": path.relative_to(export_dir).as_posix()})
        store.object_path(md5).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, store.object_path(md5))
    listed = json.dumps(entries).encode()
    md5 = hashlib.md5(listed, usedforsecurity=False).hexdigest() + lockfile.FOLDER_SUFFIX
    store.object_path(md5).parent.mkdir(parents=True, exist_ok=True)
    store.object_path(md5).write_bytes(listed)
    Path("dvc.lock").write_text(LOCK.format(md5=md5))
    git("add", "--force", "dvc.lock", "dvc.yaml")
    git("commit", "--quiet", "--message", "run")
    return lockfile.parse_lock(Path("dvc.lock").read_bytes())


def refusal(model: str | None, here: Path) -> str:
    with pytest.raises(PawlineError) as refused:
        models.find(model, here)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_damaged_output_is_told_from_a_strangers_file(project: Path, colours: Path) -> None:
    keep(project, colours)
    shutil.copytree(colours, project / "models/export")
    damaged, stranger = project / "models/export/classifier.keras", project / "models/stranger.keras"
    for path in (damaged, stranger):
        path.write_bytes(b"damaged")
    cure = "get that back with `dvc checkout --force models/export`; give an export folder"
    for name, here in (("export/../export/classifier.keras", project / "models"), (str(damaged), project)):
        said = refusal(name, here)
        assert "is not what this project's dvc.lock names: it was changed or damaged since its stage ran (" in said
        assert cure in said
    assert "stranger.keras is unknown: no run recorded here" in refusal("models/stranger.keras", project)


def test_the_projects_own_is_found_from_within(project: Path, colours: Path) -> None:
    shutil.copytree(colours, project / "models/export")
    (project / "docs").mkdir()
    found = models.find(None, project / "docs")
    assert (found.name, found.export_dir) == ("workspace", project / "models/export")


def test_an_export_folder_needs_no_project(colours: Path, workdir: Path) -> None:
    assert models.find(str(colours), workdir) == models.Found(str(colours), colours, None)
    assert refusal(None, workdir) == (
        f"no dvc.yaml in {workdir} or above it: change to a checkout of Pawline, or give --model FOLDER"
    )
    assert "no export folder, and no dvc.yaml" in refusal("v2", workdir)


def test_a_projects_folder_means_its_export(colours: Path, workdir: Path) -> None:
    shutil.copytree(colours, workdir / "project/models/export")
    found = models.find("project", workdir)
    assert found == models.Found("project", workdir / "project/models/export", None)


def test_a_model_file_is_that_of_a_run_or_refused(project: Path, colours: Path) -> None:
    """Not answered for by another model that the same run wrote."""
    needed = "give an export folder (it holds export.json), or a project's folder; within a project a version or a run"
    (project / "exported.keras").write_bytes(b"exported")
    (project / "stage1.keras").write_bytes(b"stage 1")
    keep(project, colours)
    assert refusal("exported.keras", project).endswith(f"another project's?; {needed}")
    with Path("dvc.lock").open("a") as lock:
        for name, path in (("exported", "models/classifier.keras"), ("stage1", "models/stage1/classifier.keras")):
            md5 = file_md5(project / f"{name}.keras")
            lock.write(f"    - path: {path}\n      hash: md5\n      md5: {md5}\n      size: 1\n")
    assert load(models.find("exported.keras", project).export_dir).labels == ["red", "green", "blue"]
    assert refusal("stage1.keras", project) == (
        "--model stage1.keras is models/stage1/classifier.keras of workspace, which was not exported; "
        "models/classifier.keras there was"
    )
    (project / "dvc.yaml").unlink()
    said = f"--model exported.keras: a file alone says neither labels nor image size; {needed}"
    assert refusal("exported.keras", project) == said


def test_a_runs_export_comes_out_of_the_cache_once(project: Path, colours: Path) -> None:
    keep(project, colours)
    git("tag", "classifier@v1.0.0")
    found = models.find("v1", project)
    assert found.name == "v1.0.0"
    assert found.run is not None
    assert found.run.commit == git("rev-parse", "HEAD")
    assert found.export_dir.parent == project / ".pawline/models"
    assert load(found.export_dir).labels == ["red", "green", "blue"]
    assert [path.name for path in found.export_dir.parent.iterdir()] == [found.export_dir.name], "nothing half done"
    shutil.rmtree(project / ".dvc/cache")
    assert models.find("HEAD", project).export_dir == found.export_dir


def test_an_older_export_is_brought_up_to_date(project: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    (older / "classifier.keras").write_bytes(b"weights")
    (older / "classifier.h5").write_bytes(b"not wanted")
    (older / "labels.txt").write_text("cat\ndog\n")
    (older / "export.json").write_text('{"formats": {"classifier.keras": {"bytes": 7}}, "tolerance": 1e-05}')
    keep(project, older)
    folder = models.find("HEAD", project).export_dir
    assert not (folder / "classifier.h5").exists()
    assert json.loads((folder / "export.json").read_text()) == {
        "labels": ["cat", "dog"],
        "image": {"size_px": 96, "resize": "squash"},
        "classifier_sha256": hashlib.sha256(b"weights").hexdigest(),
        "formats": {"keras": {"path": "classifier.keras", "bytes": 7}},
    }


def test_what_is_nowhere_or_tampered_with_gets_one_line(project: Path, colours: Path) -> None:
    lock = keep(project, colours)
    exported = lockfile.find_out(lock, models.EXPORT_DIR)
    assert exported is not None
    store = Store(project)
    one = next(iter((store.list_folder(exported) or {}).values()))
    store.object_path(one).write_bytes(b"forged")
    assert refusal("HEAD", project).startswith("tampered: ")
    store.object_path(one).unlink()
    nowhere = "its export is neither in DVC's cache nor in a remote: `dvc push` in a clone that has it, or"
    assert refusal("HEAD", project) == f"HEAD: {nowhere} check {git('rev-parse', 'HEAD')[:10]} out and `dvc repro`"
    assert not (project / ".pawline/models").exists()
    assert "is no file, version, experiment, git revision or hash" in refusal("v9", project)
    assert refusal(".dvc", project).startswith(
        "--model .dvc: neither this folder nor models/export in it has an export"
    )


def test_an_export_whose_list_leads_outside_writes_nothing(project: Path, colours: Path) -> None:
    shutil.copytree(colours, project / "given")
    (project / "given/openvino/evil.txt").write_text("evil")
    keep(project, project / "given")
    [listing] = (project / ".dvc/cache/files/md5").rglob("*.dir")
    inside = json.loads(listing.read_text())
    outside = [entry | {"relpath": entry["relpath"].replace("evil", "../../../../evil")} for entry in inside]
    content = json.dumps(outside).encode()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + lockfile.FOLDER_SUFFIX
    Store(project).object_path(md5).parent.mkdir(parents=True, exist_ok=True)
    Store(project).object_path(md5).write_bytes(content)
    Path("dvc.lock").write_text(LOCK.format(md5=md5))
    git("commit", "--quiet", "--all", "--message", "hostile")
    assert "tampered: a list of files in DVC's cache is not what DVC writes" in refusal("HEAD", project)
    assert list(project.rglob("evil.txt")) == [project / "given/openvino/evil.txt"]
