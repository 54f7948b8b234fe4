"""The outputs of a run, file by file, in runs that are made by hand."""

from pathlib import Path

from lineage.lockfile import FOLDER_SUFFIX, find_out
from lineage.runs import WORKSPACE, Run
from lineage.verify import verify
from tests.kept_runs import keep, keep_run, make_project
from tests.plumbing import git_in


def test_a_list_of_files_that_is_none_is_tampered_whatever_its_hash(tmp_path: Path) -> None:
    project = make_project(tmp_path / "here")
    (project.root / "dvc.yaml").touch()
    raw = find_out(project.lock(keep_run(project, {"raw": {"a": b"photos"}}, "v1.0.0")), "raw")
    assert raw is not None
    lock = project.root / "dvc.lock"
    lock.write_text(lock.read_text().replace(raw.md5, keep(project, b"no list", FOLDER_SUFFIX)))
    git_in(project.root, "commit", "--quiet", "--all", "--message", "Forge")
    forged = Run("HEAD", "commit", git_in(project.root, "rev-parse", "HEAD"))
    [link] = [link for link in verify(project, forged) if link.name == "raw"]
    assert link.status == "tampered"
    assert link.detail.startswith("its list of files is none, or names files outside of it: .dvc/cache/files/md5/")


def test_what_no_remote_has_is_made_again_where_its_run_is_checked_out(tmp_path: Path) -> None:
    project = make_project(tmp_path / "here", "far")
    (project.root / "dvc.yaml").touch()
    version = keep_run(project, {"page.html": b"a page"}, "v1.0.0")
    for path in (project.root / ".dvc/cache/files").rglob("??/*"):
        path.unlink()
    for run, advice in (
        (version, f"check {(version.commit or '')[:10]} out and `dvc repro`"),
        (WORKSPACE, "`dvc repro`"),
    ):
        [link] = [link for link in verify(project, run) if link.name == "page.html"]
        assert (link.status, link.detail) == ("missing", f"{advice} (no remote has it)")
