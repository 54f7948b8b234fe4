"""What nobody needs goes, and nothing else: checked against DVC's own `dvc gc`."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.repo import Repo

from lineage import prefect_runs
from lineage.records import RunRecord
from lineage.runs import Project, find_run
from registry import branch, decisions, ledger, places, retention
from registry.retention import Plan
from tasks.stage import PawlineError
from tests.registry.test_places import add_remote, at_work, writing


def run(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def dvc(*arguments: str, cwd: Path | None = None) -> str:
    return run(sys.executable, "-m", "dvc", *arguments, cwd=cwd)


def keep_as_experiment(commit: str, name: str) -> None:
    """Name a commit as DVC names an experiment's: refs/exps/<the commit it started from>/<name>."""
    base = run("git", "rev-parse", "HEAD").strip()
    run("git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)


def plan_for(project: Project, **options: str | bool) -> Plan:
    with places.opened(project.store) as opened:
        return retention.make_plan(project, opened, **options)  # type: ignore[arg-type]


def object_of(path: str) -> str:
    return "".join(Path(path).parts[-2:])


def test_what_goes_is_what_dvc_would_remove_and_every_version_still_checks_out(three_runs: Path) -> None:
    run("git", "tag", "classifier@v1.0.0", "HEAD~1")
    Path("notes.bin").write_bytes(b"kept by dvc add")
    with Repo() as repo:
        repo.add("notes.bin")
    project = Project(three_runs)
    plan = plan_for(project)
    assert {keeper.names[0] for keeper in plan.keepers} == {"workspace", "v1.0.0", "master"}
    shown = dvc("gc", "-w", "--all-branches", "--all-tags", "--all-experiments", "--dry").splitlines()
    assert set(plan.free[places.CACHE]) == {object_of(line) for line in shown if line.startswith("Removing ")} != set()
    locked = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(f"stages: []\n# {' '.join(plan.free[places.CACHE])}\n")
    run("git", "commit", "--quiet", "--message", "Damaged", "dvc.lock")
    run("git", "reset", "--quiet", "--soft", "HEAD~1")
    Path("dvc.lock").write_text(locked)
    run("git", "add", "dvc.lock")
    lots = retention.describe(project, plan.free[places.CACHE])
    assert sum(lot.bytes for lot in lots) == sum(plan.free[places.CACHE].values())
    first = run("git", "rev-parse", "--short=10", "HEAD~2").strip()
    assert f"models/stage1 of commit {first} 'First run'" in {lot.what for lot in lots}
    with places.opened(project.store) as opened:
        assert retention.carry_out(project, opened, plan) > 0
    for md5 in set().union(*(keeper.md5s for keeper in plan.keepers)):
        content = project.store.object_path(md5).read_bytes()
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")
    assert not any(plan_for(project).free.values())
    clone = three_runs.parent / "clone"
    run("git", "clone", "--quiet", "--branch", "classifier@v1.0.0", str(three_runs), str(clone))
    (clone / ".dvc/config.local").write_text(f"[cache]\n    dir = {three_runs / '.dvc/cache'}\n")
    dvc("checkout", "--quiet", cwd=clone)
    assert (clone / "models/classifier.keras").stat().st_size > 0
    with pytest.raises(PawlineError, match=r"the cache is .*, outside of this project.* --projects OTHER"):
        plan_for(Project(clone))


def test_experiments_are_kept_unless_they_are_dropped(three_runs: Path) -> None:
    keep_as_experiment("HEAD~2", "wide-head")
    keep_as_experiment("HEAD~1", "slow-head")
    project = Project(three_runs)
    kept = plan_for(project)
    assert {name for keeper in kept.keepers for name in keeper.names} >= {"wide-head", "slow-head"}
    assert not any(kept.free.values())
    dropped = plan_for(project, drop_experiments=True)
    lots = retention.describe(project, dropped.free[places.CACHE])
    assert {"models/stage1 of experiment wide-head", "models/stage1 of experiment slow-head"} <= {
        lot.what for lot in lots
    }
    ours = next(keeper for keeper in kept.keepers if "wide-head" in keeper.names)
    needed, alone = kept.needs(ours)
    assert 0 < alone < needed == sum(project.store.object_path(md5).stat().st_size for md5 in ours.md5s)


def test_notes_on_prefect_runs_go_with_the_last_who_keeps_their_stage(three_runs: Path) -> None:
    keep_as_experiment("HEAD~2", "wide-head")
    project = Project(three_runs)
    ours, theirs = (project.lock(find_run(project, name))["train_head"] for name in ("HEAD", "HEAD~2"))
    record = RunRecord(flow_run_id="1", flow_run_name="calm-otter", task_run_id="2", started="now", ended="later")
    stages = (ours, theirs, replace(ours, command="python -m tasks.of_nobody"))
    for stage in stages:
        prefect_runs.write_record(project, stage, record)
    kept, by_experiment, by_nobody = (prefect_runs.record_path(project, stage) for stage in stages)
    assert plan_for(project).run_records == [by_nobody]
    plan = plan_for(project, drop_experiments=True)
    assert plan.run_records == sorted([by_experiment, by_nobody])
    with places.opened(project.store) as opened:
        retention.carry_out(project, opened, plan)
    assert prefect_runs.record_paths(project) == {kept}
    lock = Path("dvc.lock")
    lock.write_text(lock.read_text().replace(" size: ", " etag: ", 1))
    by_nobody.touch()
    assert plan_for(project).run_records == [], "whose it is cannot be told"


def test_an_unknown_need_deletes_nothing_and_a_list_of_files_is_fetched(three_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(".dvc/cache/files", tmp_path / "backup/files")
    add_remote(three_runs, "backup", tmp_path / "backup")
    run("git", "tag", "classifier@v1.0.0", "HEAD~1")
    project = Project(three_runs)
    plan = plan_for(project)
    version = next(keeper for keeper in plan.keepers if keeper.names == ("v1.0.0",))
    others = set().union(*(keeper.md5s for keeper in plan.keepers if keeper is not version))
    for md5 in version.md5s - others:
        project.store.object_path(md5).unlink()
    again = plan_for(project, remote="backup")
    assert again.keepers == plan.keepers
    assert {md5 for md5 in version.md5s - others if project.store.has(md5)} == {
        md5 for md5 in version.md5s - others if md5.endswith(".dir")
    }
    assert again.free["backup"] == plan.free[places.CACHE], "the remote has what the cache had"
    shutil.move(tmp_path / "backup", tmp_path / "unplugged")
    next(project.store.object_path(md5) for md5 in version.md5s - others if md5.endswith(".dir")).unlink()
    with pytest.raises(PawlineError, match=r"nothing is deleted: v1\.0\.0 needs the folder .* is neither in the cache"):
        plan_for(Project(three_runs))
    with pytest.raises(PawlineError, match=r"the remote backup cannot be freed: .*backup is not there"):
        plan_for(Project(three_runs), remote="backup")


def test_a_branch_that_cannot_be_read_deletes_nothing(three_runs: Path) -> None:
    """Git passes over it as if it were not there."""
    run("git", "branch", "feature", "HEAD~1")
    needed = plan_for(Project(three_runs)).free[places.CACHE]
    (three_runs / ".git/refs/heads/feature").write_bytes(b"")
    with pytest.raises(PawlineError, match=r"^git cannot read a branch or tag"):
        plan_for(Project(three_runs))
    (three_runs / ".git/refs/heads/feature").unlink()
    assert len(plan_for(Project(three_runs)).free[places.CACHE]) > len(needed)


def test_what_git_takes_is_no_obstacle(one_run: Path) -> None:
    """Names that are no UTF-8, tags of files, and subjects in which Python sees several lines."""
    latin = os.fsdecode(b"caf\xe9")
    Path(latin).touch()
    run("git", "add", latin)
    run("git", "commit", "--quiet", "--message", "Name")
    Path(f"{latin}.dvc").write_text("outs: []\n")
    run("git", "branch", latin)
    blob = run("git", "hash-object", "dvc.lock").strip()
    run("git", "tag", "a-file", blob)
    run("git", "tag", "--annotate", "--message", "It", "an-annotated-file", "a-file")
    run("git", "tag", "--annotate", "--message", "It", "a-nested-tag", "an-annotated-file")
    Path("data/raw/raw-00000.parquet").write_bytes(b"other photos")
    dvc("commit", "--force", "--quiet", "ingest")
    run("git", "commit", "--quiet", "--all", "--message", "Two\u2028lines")
    run("git", "reset", "--quiet", "--hard", "HEAD~1")
    project = Project(one_run)
    plan = plan_for(project)
    assert {name for keeper in plan.keepers for name in keeper.names} == {"workspace", "main", "caf\\xe9"}
    lots = retention.describe(project, plan.free[places.CACHE])
    assert [lot.what[-12:] for lot in lots] == [" 'Two\u2028lines'"]


def add_unneeded(cache: Path) -> Path:
    path = cache / "files/md5/d4/1d8cd98f00b204e9800998ecf8427e"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_remote_called_cache_is_freed_only_if_it_is_named(one_run: Path, tmp_path: Path) -> None:
    add_remote(one_run, "cache", tmp_path / "backup")
    here, there = add_unneeded(one_run / ".dvc/cache"), add_unneeded(tmp_path / "backup")
    project = Project(one_run)
    for remote, left in ((None, [there]), ("cache", [])):
        with places.opened(project.store) as opened:
            retention.carry_out(project, opened, retention.make_plan(project, opened, remote=remote))
        assert [path for path in (here, there) if path.exists()] == left


def register(project: Project, version: str, commit: str) -> None:
    """Put a registration on record, and nothing else of it."""
    with decisions.deciding(project):
        book = ledger.load(project.root)
        plan = decisions.Plan("register", version, commit, f"classifier@{version}", "")
        decisions.decide(book, plan, decisions.load_key(book))


def test_what_the_registry_took_in_is_kept_without_its_tag(three_runs: Path) -> None:
    project = Project(three_runs)
    commit = run("git", "rev-parse", "HEAD~1").strip()
    register(project, "v1.0.0", commit)
    tagged = plan_for(project)
    run("git", "tag", "--delete", "classifier@v1.0.0")
    untagged = plan_for(project)
    assert [keeper.names for keeper in untagged.keepers if "v1.0.0" in keeper.names] == [("v1.0.0",)]
    assert {keeper.md5s for keeper in untagged.keepers} == {keeper.md5s for keeper in tagged.keepers}
    assert untagged.free == tagged.free
    with at_work() as pid, places.opened(project.store) as opened:
        Path(".dvc/tmp/rwlock").write_text(writing("data/raw", pid))
        with pytest.raises(PawlineError, match=r"is at work here \(pid \d+\): wait for it to end and run this again"):
            retention.carry_out(project, opened, untagged)
        assert opened.cache.sizes(untagged.free[places.CACHE]) == untagged.free[places.CACHE] != {}
    clone = three_runs.parent / "clone"
    run("git", "clone", "--quiet", "--depth", "1", "--no-single-branch", f"file://{three_runs}", str(clone))
    shutil.copytree(".dvc/cache", clone / ".dvc/cache")
    with pytest.raises(PawlineError, match=f"nothing is deleted: v1.0.0 needs what its commit {commit[:10]} names"):
        plan_for(Project(clone))
    branch.append(ledger.load(three_runs), {"decisions/0002.json": b"{"}, "damaged")
    with pytest.raises(
        PawlineError, match=r"tampered: decisions/0002\.json of the registry is not what Pawline writes"
    ):
        plan_for(Project(three_runs))
