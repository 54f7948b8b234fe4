import hashlib
import json
import threading
from pathlib import Path

import pytest

from flows import experiments, worktree
from flows.dvc_graph import LOCK_PATH, hold_lock
from lineage import git, lockfile
from lineage.runs import WORKSPACE, Project
from tasks.stage import PawlineError
from tests.flows.conftest import PARAMS, dvc


def head(folder: Path) -> str:
    return git.find_commit(folder, "HEAD") or ""


def test_a_run_in_the_worktree_shares_the_cache_and_leaves_the_working_tree_alone(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (recorded / "params.yaml").write_text(PARAMS.replace("views: 3", "views: 9"))  # somebody is in the middle of it
    project = Project(recorded)
    with worktree.opened(project, head(recorded), None) as folder:
        assert folder.parent == recorded.parent
        assert (folder / "params.yaml").read_text() == PARAMS, "of the commit"
        assert (folder / "join.txt").read_text() == (recorded / "join.txt").read_text(), "outputs from the cache"
        (folder / "params.yaml").write_text(PARAMS.replace("epochs: 6", "epochs: 7"))
        monkeypatch.chdir(folder)
        assert dvc("repro").count("Running stage") == 3
        run = worktree.keep_run(project, folder, base=head(recorded), name="retrain-1", message="Retrain: why not")
        made = (folder / "left.txt").read_text()
        monkeypatch.chdir(recorded)
    assert not folder.exists()
    assert git.git(recorded, "worktree", "list", "--porcelain").count(b"worktree ") == 1
    assert git.git(recorded, "status", "--porcelain").decode() == " M params.yaml\n"
    assert "views: 9" in (recorded / "params.yaml").read_text()
    assert experiments.experiment_names() == {"retrain-1"}
    lock = project.lock(run)
    assert project.store.read_path(lock, "left.txt") == made.encode(), "in the project's own cache"
    assert git.read_commit(recorded, run.commit or "").subject == "Retrain: why not"


def test_it_starts_from_another_lock_as_far_as_its_outputs_are_here(recorded: Path) -> None:
    project, commit = Project(recorded), head(recorded)
    (recorded / "params.yaml").write_text(PARAMS.replace("views: 3", "views: 4"))
    dvc("repro")
    newer = (recorded / "dvc.lock").read_bytes()
    right = (recorded / "right.txt").read_text()
    lost = project.lock(WORKSPACE)["join"].outs[0]
    project.store.object_path(lost.md5).unlink()
    with worktree.opened(project, commit, newer) as folder:
        assert (folder / "right.txt").read_text() == right
        assert (folder / "dvc.lock").read_bytes() == newer


def test_a_list_of_files_that_leads_outside_is_not_followed(recorded: Path) -> None:
    project, commit = Project(recorded), head(recorded)
    out = project.lock(WORKSPACE)["join"].outs[0]
    listing = json.dumps([{"md5": out.md5, "relpath": "../../evil.txt"}]).encode()
    md5 = hashlib.md5(listing, usedforsecurity=False).hexdigest() + lockfile.FOLDER_SUFFIX
    project.store.object_path(md5).parent.mkdir(parents=True, exist_ok=True)
    project.store.object_path(md5).write_bytes(listing)
    hostile = (recorded / "dvc.lock").read_bytes().replace(out.md5.encode(), md5.encode())
    with pytest.raises(PawlineError, match="tampered"), worktree.opened(project, commit, hostile):
        pass
    assert list(recorded.parent.rglob("evil.txt")) == []


def test_what_an_interrupted_run_left_is_carried_on_with(recorded: Path) -> None:
    project, commit = Project(recorded), head(recorded)
    with pytest.raises(KeyboardInterrupt), worktree.opened(project, commit, None) as folder:  # noqa: PT012 - as it is
        (folder / "unfinished").mkdir()
        (folder / "params.yaml").write_text("half: written\n")
        raise KeyboardInterrupt
    with worktree.opened(project, commit, None) as again:
        assert again == folder
        assert (again / "unfinished").is_dir()
        assert (again / "params.yaml").read_text() == PARAMS
    assert not folder.exists()


def test_photos_within_the_project_are_found_from_the_worktree(recorded: Path) -> None:
    photos = recorded / "photos.txt"  # git and DVC leave *.txt alone here
    photos.write_text("a photo")
    (recorded / "params.yaml").write_text(PARAMS.replace("path: null", "path: photos.txt", 1))
    git.git(recorded, "commit", "--quiet", "--all", "--message", "Take photos of the project's own")
    with worktree.opened(Project(recorded), head(recorded), None) as folder:
        assert (folder / "photos.txt").read_text() == "a photo"
    assert photos.read_text() == "a photo"


def test_the_users_own_dvc_settings_hold_in_the_worktree(recorded: Path) -> None:
    (recorded / ".dvc/config.local").write_text('[cache]\n    type = copy\n[remote "backup"]\n    url = /backup\n')
    with worktree.opened(Project(recorded), head(recorded), None) as folder:
        settings = (folder / ".dvc/config.local").read_text()
        assert "/backup" in settings
        assert (folder / "join.txt").stat().st_nlink == 1, "copied, as the user wants it"


def test_nothing_that_shows_a_photo_stays_when_it_is_forgotten(recorded: Path) -> None:
    with pytest.raises(KeyboardInterrupt), worktree.opened(Project(recorded), head(recorded), None):
        raise KeyboardInterrupt
    reports = recorded / worktree.REPORTS_DIR / "retrain-1"
    reports.mkdir(parents=True)
    for name in ("gate.html", "report.html", "gate.json"):
        (reports / name).touch()
    assert worktree.place(recorded).is_dir()
    worktree.delete_pictures(recorded)
    assert not worktree.place(recorded).exists()
    assert [path.name for path in reports.iterdir()] == ["gate.json"]


def test_a_folder_of_somebody_else_is_left_alone(recorded: Path) -> None:
    notes = worktree.place(recorded) / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    for attempt in (
        lambda: worktree.opened(Project(recorded), head(recorded), None).__enter__(),
        lambda: worktree.delete_pictures(recorded),
    ):
        with pytest.raises(PawlineError, match="is in the way, and not Pawline's: a retraining works there; move it"):
            attempt()
    assert notes.read_text() == "mine"


def test_it_waits_for_a_stage_that_outlived_its_run(recorded: Path) -> None:
    with pytest.raises(KeyboardInterrupt), worktree.opened(Project(recorded), head(recorded), None) as folder:
        raise KeyboardInterrupt
    (folder / "params.yaml").write_text("of the run that was killed")
    opened = threading.Event()

    def open_again() -> None:
        with worktree.opened(Project(recorded), head(recorded), None):
            opened.set()

    with hold_lock(folder / LOCK_PATH):  # as the stage's DVC does
        again = threading.Thread(target=open_again)
        again.start()
        assert not opened.wait(1.5)
        assert (folder / "params.yaml").read_text() == "of the run that was killed"
    again.join(20)
    assert opened.is_set()


def test_neither_hooks_nor_what_a_killed_git_left_stop_it(recorded: Path) -> None:
    hook = recorded / ".git/hooks/post-checkout"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(KeyboardInterrupt), worktree.opened(Project(recorded), head(recorded), None) as folder:
        raise KeyboardInterrupt
    (recorded / ".git/worktrees" / folder.name.replace(".", "-", 1) / "index.lock").touch()
    with worktree.opened(Project(recorded), head(recorded), None) as folder:
        assert (folder / "join.txt").exists()
