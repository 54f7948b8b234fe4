"""A retraining and the default remote, a bucket behind a real S3 API: there, refusing, away, or none."""

import logging
import shutil
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import sharing
from lineage.runs import Project, find_run
from registry.champion import promote
from registry.register import register
from tasks.stage import PawlineError
from tests.flows.commands.test_push import forget
from tests.kept_runs import keep, keep_run, make_project, md5_of
from tests.s3 import Bucket, free_port
from tests.test_remote_storage import clone, share

pytestmark = pytest.mark.usefixtures("prefect_url")


@pytest.fixture(scope="module")
def promoted_made(three_runs_made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("promoted")
    shutil.copytree(three_runs_made / "project", folder / "project", symlinks=True)
    project = Project(folder / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
        decision = register(project, find_run(project, "HEAD"), reason="the last")
        promote(project, find_run(project, decision.version), reason="the best")
    return folder / "project"


@pytest.fixture
def promoted(
    promoted_made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A project, the current folder, whose last commit is the champion."""
    folder = tmp_path / "three"
    shutil.copytree(promoted_made, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    caplog.set_level(logging.INFO, "flows.sharing")
    return Project(folder)


@flow
def end(project: Project) -> State[None]:
    """The end of a retraining that promoted."""
    return sharing.push_promoted(project, Completed(name="Promoted", message="v1.0.0 is the champion"))


@flow
def begin(project: Project) -> None:
    sharing.pull_missing(project, (project.root / "dvc.lock").read_bytes())


def ended(project: Project) -> str:
    state = end(project, return_state=True)
    assert (state.name, state.is_completed()) == ("Promoted", True)
    return str(state.message)


def test_without_a_remote_nothing_is_said_or_done(promoted: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    assert ended(promoted) == "v1.0.0 is the champion"
    shutil.rmtree(promoted.root / ".dvc/cache")
    begin(promoted)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("flows.")] == []


def test_a_champion_is_pushed_and_a_fresh_clone_has_it_and_the_stages(
    promoted: Project, bucket: Bucket, tmp_path: Path
) -> None:
    share(promoted.root, bucket)
    project = Project(promoted.root)
    bucket.deny("s3:PutObject")
    refused = ended(project)
    assert refused.startswith(
        f"v1.0.0 is the champion; NOT copied to the remote storage ({bucket.url}/pawline refuses "
    )
    assert refused.endswith("): `pawline push` once it is there")
    bucket.allow()
    copied = bucket.objects()
    assert ended(project) == f"v1.0.0 is the champion; {bucket.objects() - copied} files copied to the remote storage"

    other = Project(clone(project.root, tmp_path / "other"))
    begin(other)
    outs = [out for stage in other.lock(find_run(other, "HEAD")).values() for out in stage.outs]
    assert [out.path for out in outs if not other.store.has(out.md5)] == []
    inside = [md5 for out in outs if out.is_folder for md5 in (other.store.list_folder(out) or {}).values()]
    assert all(map(other.store.has, inside))


def test_a_remote_that_is_away_stops_only_who_needs_it(
    promoted: Project, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    share(promoted.root, bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    project = Project(promoted.root)
    assert "; NOT copied to the remote storage (s3://" in ended(project)
    begin(project)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned[-1].startswith(
        f"nothing is fetched from the remote storage ({bucket.url}/pawline cannot be reached ("
    )
    other = Project(clone(project.root, tmp_path / "other"))
    with pytest.raises(PawlineError, match=r"^v1\.0\.0, the champion, is needed \(Could not connect") as error:
        begin(other)
    assert "\n" not in str(error.value)


def test_what_was_forgotten_is_neither_fetched_nor_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    project = make_project(tmp_path / "here", "far")
    version = keep_run(project, {"raw": {"a": b"photos", "b": b"the photo"}}, "v1.0.0")
    project.store.push_outputs(project.lock(version), "far", ())
    forget(project, b"the photo")
    shutil.rmtree(project.root / ".dvc/cache")
    assert sharing.pull.fn(project, "far", (project.root / "dvc.lock").read_bytes()) == 2, "one is the list of files"
    assert not project.store.has(md5_of(b"the photo"))
    shutil.rmtree(tmp_path / "far")
    (tmp_path / "far").mkdir()
    keep(project, b"the photo")
    assert sharing.push.fn(project, version, "far") == 2
