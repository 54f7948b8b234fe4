"""Registering runs: what goes on record, and what is refused."""

import hashlib
import shutil
from pathlib import Path

import pytest

from lineage import lockfile
from lineage.runs import MODEL_PATH, WORKSPACE, Project, Run, find_run
from lineage.trace import trace
from registry import signing
from registry.ledger import load
from registry.records import Entry
from registry.register import hash_run, register
from tasks.stage import PawlineError
from tests.registry.test_branch import git


@pytest.fixture
def project(three_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    return Project(three_runs)


def test_a_version_has_everything_on_record(project: Project, tmp_path: Path) -> None:
    before = git(project.root, "status", "--porcelain=v2", "--branch")
    decision = register(project, WORKSPACE, reason="the first")
    head = git(project.root, "rev-parse", "HEAD")
    assert (decision.version, decision.commit, decision.tag) == ("v1.0.0", head, "classifier@v1.0.0")
    book = load(project.root)
    entry = book.entry("v1.0.0")
    assert entry is not None
    assert entry.commit == head
    check_files(project, entry)
    check_lineage(project, entry)
    assert (book.read("versions/v1.0.0/card.md") or b"").strip()
    check_signature(project, decision.key, tmp_path)
    assert git(project.root, "status", "--porcelain=v2", "--branch") == before

    with pytest.raises(PawlineError, match=r"workspace is registered already: it is the run of v1\.0\.0"):
        register(project, WORKSPACE, reason="")
    experiment = f"refs/exps/{head[:2]}/{head[2:]}/slower"  # where DVC keeps one
    git(project.root, "update-ref", experiment, "HEAD~1")
    assert register(project, find_run(project, "slower"), reason="").version == "v2.0.0"
    assert git(project.root, "rev-parse", "classifier@v2.0.0^{commit}") == git(project.root, "rev-parse", "HEAD~1")


def check_files(project: Project, entry: Entry) -> None:
    """Everything that the stages read and wrote is in the workspace here, so it can be hashed there."""
    lock = project.lock(WORKSPACE)
    paths = {path.path for stage in lock.values() for path in (*stage.deps, *stage.outs)}
    paths |= {"params.yaml", "dvc.yaml", "dvc.lock", "requirements.lock"}
    found = (file for path in paths for file in [project.root / path, *(project.root / path).rglob("*")])
    files = {file for file in found if file.is_file() and "__pycache__" not in file.parts}
    digests = {str(file.relative_to(project.root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert entry.sha256 == digests
    assert {"tasks/stage.py", "models/stage1/summary.json", MODEL_PATH} < set(entry.sha256)


def check_lineage(project: Project, entry: Entry) -> None:
    assert (entry.lineage.name, entry.lineage.kind, entry.lineage.version) == ("v1.0.0", "version", "v1.0.0")
    assert entry.lineage == trace(project, find_run(project, "v1"))
    assert entry.lineage.missing == []


def check_signature(project: Project, key: str, tmp_path: Path) -> None:
    book = load(project.root)
    paths = [tmp_path / name for name in ("renamed.bin", "model.sig", "key.pem")]
    shutil.copyfile(project.root / MODEL_PATH, paths[0])
    paths[1].write_bytes(book.read("versions/v1.0.0/model.sig") or b"")
    paths[2].write_bytes(book.read(f"keys/{key}.pem") or b"")
    signing.verify_file(*paths)
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    with pytest.raises(PawlineError, match=r"^tampered: "):
        signing.verify_file(*paths)


def test_what_is_not_committed_or_did_not_run_is_refused(project: Project) -> None:
    def refused(message: str, run: Run = WORKSPACE) -> None:
        with pytest.raises(PawlineError, match=message) as caught:
            register(project, run, reason="")
        assert "\n" not in str(caught.value)

    params, lock, code = (project.root / name for name in ("params.yaml", "dvc.lock", "tasks/stage.py"))
    settings = params.read_text(encoding="utf-8")
    params.write_text(settings.replace("learning_rate: 0.0005", "learning_rate: 0.0004"), encoding="utf-8")
    refused(r"not committed: params\.yaml: `git add` and `git commit` first, or keep .* \(`pawline run --name NAME`\)")
    git(project.root, "commit", "--quiet", "--all", "--message", "settings that did not run")
    refused(r"cannot be registered, its params train_head is wrong: .*train_head\.learning_rate.*`dvc repro`")
    git(project.root, "reset", "--quiet", "--hard", "HEAD~1")

    code.write_text(code.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    git(project.root, "commit", "--quiet", "--all", "--message", "code that did not run")
    refused(r"its code tasks/stage\.py is wrong")
    git(project.root, "reset", "--quiet", "--hard", "HEAD~1")

    git(project.root, "update-index", "--assume-unchanged", "dvc.lock")
    lock.write_text(lock.read_text(encoding="utf-8").replace("size: ", "size: 1", 1), encoding="utf-8")
    refused(r"not committed: dvc\.lock")
    git(project.root, "update-index", "--no-assume-unchanged", "dvc.lock")
    git(project.root, "reset", "--quiet", "--hard")
    refused(r"HEAD~3 has no dvc\.lock", find_run(project, "HEAD~3"))
    assert load(project.root).tip is None


def test_bytes_that_are_missing_or_changed_are_refused(project: Project) -> None:
    run = find_run(project, "HEAD")
    whole = hash_run(project, run)
    md5 = project.store.find_md5(project.lock(run), "data/source.json")
    assert md5 is not None
    cached = project.store.object_path(md5)
    content = cached.read_bytes()
    cached.unlink()
    assert hash_run(project, run) == whole  # the workspace has the same bytes

    (project.root / "data/source.json").unlink()
    with pytest.raises(
        PawlineError, match=r"data/source\.json of that run is not in DVC's cache.*`dvc pull`.*`dvc repro`"
    ):
        hash_run(project, run)
    (project.root / "data/source.json").write_bytes(content + b" ")
    with pytest.raises(PawlineError, match=r"data/source\.json of that run is not in DVC's cache"):
        hash_run(project, run)
    cached.write_bytes(content + b" ")
    with pytest.raises(
        PawlineError, match=r"^tampered: .*, which is data/source\.json, does not hold what its name says"
    ):
        hash_run(project, run)
    cached.chmod(0o644)
    cached.write_bytes(content)

    folder = lockfile.find_out(project.lock(run), "models/stage1")
    assert folder is not None
    project.store.object_path(folder.md5).unlink()
    with pytest.raises(PawlineError, match=r"models/stage1 of that run is not in DVC's cache"):
        hash_run(project, run)


def test_a_shallow_clone_registers_what_it_has(project: Project, tmp_path: Path) -> None:
    git(project.root, "clone", "--quiet", "--depth=1", f"file://{project.root}", str(tmp_path / "shallow"))
    clone = Project(tmp_path / "shallow")
    for key, value in (("user.name", "Bob"), ("user.email", "bob@example.com")):
        git(clone.root, "config", key, value)
    cache = project.root / ".dvc" / "cache"
    (clone.root / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    decision = register(clone, find_run(clone, "HEAD"), reason="")
    assert decision.by == "Bob <bob@example.com>"
    git(clone.root, "push", "--quiet", "origin", "registry", "--tags")
    entry = load(project.root).entry("v1.0.0")
    assert entry is not None
    assert entry.sha256 == hash_run(project, find_run(project, "v1"))
