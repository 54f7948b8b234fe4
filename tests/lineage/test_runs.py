"""Which run WHAT means: files by content, versions, the champion, experiments, revisions, and what is none of these."""

import hashlib
import shutil
from pathlib import Path

import pytest

from lineage.lockfile import find_out
from lineage.runs import (
    MODEL_PATH,
    WORKSPACE,
    Project,
    Run,
    all_runs,
    champion,
    experiments,
    find_from,
    find_run,
    is_file,
    versions,
)
from lineage.store import file_md5
from tasks.stage import PawlineError
from tests.test_pipeline import run


def git(folder: Path, *arguments: str) -> str:
    return run(["git", *arguments], folder).stdout.strip()


def commits(folder: Path) -> list[str]:
    """The three runs' commits, the first one first."""
    return git(folder, "log", "--reverse", "--format=%H", "--", "dvc.lock").split()


def classifier_of(folder: Path, commit: str) -> Path:
    """Where DVC's cache keeps the classifier of a commit."""
    project = Project(folder)
    md5 = next(
        out.md5
        for stage in project.lock(Run(commit, "commit", commit)).values()
        for out in stage.outs
        if out.path == MODEL_PATH
    )
    return project.store.object_path(md5)


def test_what_can_be_asked_for_by_name(three_runs: Path) -> None:
    first, second, third = commits(three_runs)
    project = Project(three_runs)
    with pytest.raises(PawlineError, match=r"no champion yet: `pawline promote VERSION`; none is known here$"):
        find_run(project, "champion")
    for tag in ("classifier@v1.0.0", "classifier@v10.0.0", "classifier@v2.0.0", "classifier@vague", "other@v3.0.0"):
        git(three_runs, "tag", tag, first if "v1.0.0" in tag else second)
    git(three_runs, "tag", "classifier#champion#2", first)
    git(three_runs, "tag", "classifier#champion#10", second)
    git(three_runs, "update-ref", f"refs/exps/{first[:2]}/{first[2:]}/wide-head", second)
    git(three_runs, "update-ref", "refs/exps/exec/EXEC_HEAD", second)

    assert [run.name for run in versions(project)] == ["v1.0.0", "v2.0.0", "v10.0.0"]
    for what in ("v1", "1", "v1.0.0", "classifier@v1.0.0"):
        assert find_run(project, what) == Run("v1.0.0", "version", first)
    found = champion(project)
    assert found is not None
    assert found.commit == second, "the tag with the highest number decides, 10 after 2"
    assert experiments(project) == [Run("wide-head", "experiment", second)]
    assert find_run(project, "wide-head") == experiments(project)[0]
    assert find_run(project, "HEAD~2") == Run("HEAD~2", "commit", first)
    assert find_run(project, third[:8]) == Run(third[:8], "commit", third)
    assert find_run(project, None) == find_run(project, "workspace") == WORKSPACE
    names = [run.name for run in all_runs(project)]
    assert names == ["v1.0.0", "v2.0.0", "workspace", third[:10]], "each commit once"
    for what in ("v3", "nonsense", "", "models", "--all"):
        with pytest.raises(PawlineError, match=r"is no file.*known here: v1.0.0, v2.0.0, v10.0.0, wide-head$"):
            find_run(project, what)


def test_a_damaged_tag_is_named_and_no_earlier_champion_believed(three_runs: Path) -> None:
    for number, commit in enumerate(commits(three_runs), start=1):
        git(three_runs, "tag", f"classifier@v{number}.0.0", commit)
        git(three_runs, "tag", f"classifier#champion#{number}", commit)
    for tag, what in (("classifier#champion#3", "champion"), ("classifier@v2.0.0", "v2")):
        path = three_runs / ".git/refs/tags" / tag
        before = path.read_text()
        for damage in ("", before[:7], "0123456789" * 4):
            path.write_text(damage)
            with pytest.raises(PawlineError, match=f"git cannot read a branch or tag .*refs/tags/{tag}"):
                find_run(Project(three_runs), what)
        path.write_text(before)
        assert find_run(Project(three_runs), what).kind == "version"


def test_a_file_is_known_by_its_content_whatever_its_name(three_runs: Path, tmp_path: Path) -> None:
    first, second, third = commits(three_runs)
    project = Project(three_runs)
    copy = tmp_path / "somebody's download"
    shutil.copyfile(MODEL_PATH, copy)
    assert find_run(project, str(copy)) == Run("workspace", "workspace", None, found=MODEL_PATH)
    assert file_md5(copy) == file_md5(Path("models/stage1/classifier.keras")), "the case that has two answers"
    shutil.copyfile(classifier_of(three_runs, second), copy)
    assert find_run(project, str(copy)) == Run(second[:10], "commit", second, found=MODEL_PATH)
    git(three_runs, "tag", "classifier@v1.0.0", second)
    assert find_run(project, str(copy)) == Run("v1.0.0", "version", second, found=MODEL_PATH)
    inside = "models/export/export.json"
    assert find_run(project, inside) == Run("workspace", "workspace", None, found=inside)

    copy.write_bytes(b"a stranger's model")
    with pytest.raises(PawlineError, match=rf"is unknown: .*\(md5 {file_md5(copy)}\); another project's\?$"):
        find_run(project, str(copy))
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{three_runs}", "shallow")
    shutil.copyfile(classifier_of(three_runs, first), copy)
    with pytest.raises(PawlineError, match=r"this is a shallow clone: `git fetch --unshallow --tags`"):
        find_run(Project(tmp_path / "shallow"), str(copy))
    assert commits(tmp_path / "shallow") == [third]


def test_a_hash_is_known_as_dvc_lock_has_it_and_the_classifiers_sha256_too(three_runs: Path) -> None:
    project, middle = Project(three_runs), commits(three_runs)[1]
    run_of_middle = find_run(project, middle)
    content = project.store.read_path(project.lock(run_of_middle), MODEL_PATH) or b""
    sha256, md5 = hashlib.sha256(content).hexdigest(), hashlib.md5(content, usedforsecurity=False).hexdigest()
    for digest in (sha256, md5):
        found = find_run(project, digest)
        assert (found.commit, found.found, found.given) == (run_of_middle.commit, MODEL_PATH, None)
    listing = find_out(project.lock(WORKSPACE), "data/tfrecords")
    assert listing is not None
    assert find_run(project, listing.md5).found == "data/tfrecords"
    with pytest.raises(PawlineError, match=r"^0{64} is no file, version, experiment, git revision or hash; "):
        find_run(project, "0" * 64)


def test_a_version_comes_before_a_file_and_a_file_before_all_else(three_runs: Path) -> None:
    first, second, _ = commits(three_runs)
    project, here = Project(three_runs), three_runs / "tasks"
    git(three_runs, "update-ref", f"refs/exps/{first[:2]}/{first[2:]}/wide-head", second)
    for name in ("v1", "champion", "wide-head", "HEAD"):
        shutil.copyfile(MODEL_PATH, here / name)
    assert find_from(project, "v1", here).found == MODEL_PATH, "there is no such version"
    git(three_runs, "tag", "classifier@v1.0.0", first)
    git(three_runs, "tag", "classifier#champion#1", first)
    for what in ("v1", "champion"):
        assert find_from(project, what, here) == Run("v1.0.0", "version", first)
    workspace = Run("workspace", "workspace", None, found=MODEL_PATH)
    for what in ("./v1", str(here / "v1"), "../tasks/champion", "wide-head", "HEAD", "../models/classifier.keras"):
        assert find_from(project, what, here) == workspace
        assert find_from(project, what, here).given == (here / what).absolute()
    assert find_run(project, "wide-head").kind == "experiment", "the file is in another folder"
    assert find_run(project, "tasks/wide-head") == workspace


def test_a_text_that_can_be_no_name_names_no_file(three_runs: Path) -> None:
    assert is_file("params.yaml")
    for text in ("x" * 300, "x/" * 5000, "params\0yaml", "params.yaml/more", "\udfff", ""):
        assert not is_file(text)
    with pytest.raises(PawlineError, match=r"^x{300} is no file"):
        find_run(Project(three_runs), "x" * 300)


def test_a_shallow_clone_names_no_champion_unless_it_has_the_registry(three_runs: Path, tmp_path: Path) -> None:
    first, second, third = commits(three_runs)
    for number, made in enumerate((third, first), 1):
        git(three_runs, "tag", f"classifier@v{number}.0.0", made)
        git(three_runs, "tag", f"classifier#champion#{number}", made)
    assert champion(Project(three_runs)) == Run("v2.0.0", "version", first)
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{three_runs}", "clone")
    clone = tmp_path / "clone"
    assert git(clone, "tag").split() == ["classifier#champion#1", "classifier@v1.0.0"], "the latest did not come along"
    for find in (champion, lambda project: find_run(project, "champion")):
        with pytest.raises(PawlineError, match=r"this is a shallow clone: `git fetch --unshallow --tags`"):
            find(Project(clone))
    git(clone, "fetch", "--quiet", "--unshallow", "--tags")
    assert champion(Project(clone)) == Run("v2.0.0", "version", first)
    git(three_runs, "branch", "registry", second)
    git(tmp_path, "clone", "--quiet", "--depth", "1", "--no-single-branch", f"file://{three_runs}", "branches")
    assert champion(Project(tmp_path / "branches")) == Run("v2.0.0", "version", first)


def test_without_git_there_is_only_the_workspace(three_runs: Path) -> None:
    shutil.rmtree(".git")
    project = Project(three_runs)
    assert [run.name for run in all_runs(project)] == ["workspace"]
    assert find_run(project, MODEL_PATH).found == MODEL_PATH
    with pytest.raises(PawlineError, match=r"^v1 is no file.*there is no git repository here"):
        find_run(project, "v1")
    Path("dvc.lock").unlink()
    with pytest.raises(PawlineError, match=r"workspace has no dvc.lock: nothing ran there yet; `dvc repro`"):
        project.lock(WORKSPACE)
