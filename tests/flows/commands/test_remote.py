"""`pawline remote`, typed in a project of its own, against a real S3 API on loopback and folders."""

import importlib.util
import os
from pathlib import Path

import pytest

from flows.cli import app
from flows.commands import remote as command
from flows.commands.push import push_command
from tasks.stage import PawlineError
from tests.s3 import KEYS, Bucket, free_port

DVC_CONFIG = "[core]\n    analytics = false\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text(DVC_CONFIG)
    (folder / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(folder)
    return folder


def config_files(project: Path) -> str:
    return "".join(path.read_text() for path in sorted((project / ".dvc").glob("config*")))


def refusal(project: Path, url: str, **options: str) -> str:
    """Add a remote that is refused, and return why; nothing may have been configured."""
    before = config_files(project)
    with pytest.raises(PawlineError) as error:
        command.add_command(url, **{"name": "storage", **options})
    assert config_files(project) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_bucket_becomes_the_default_remote(
    bucket: Bucket, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    command.add_command(f"{bucket.url}/pawline", name="Storage", endpoint_url=bucket.endpoint, region="us-east-1")
    assert bucket.objects() == 0, "what was written to try it is gone"
    command.list_command()
    command.check_command(None)
    said = capsys.readouterr().out
    assert f"storage is the default remote: {bucket.url}/pawline was written to, read and cleaned up\n" in said
    assert f"* storage  {bucket.url}/pawline  (endpoint-url {bucket.endpoint}, region us-east-1)\n" in said
    assert f"storage: {bucket.url}/pawline was written to, read and cleaned up in " in said
    assert config_files(project) == (
        f"{DVC_CONFIG}    remote = storage\n['remote \"storage\"']\n    url = {bucket.url}/pawline\n"
        f"    endpointurl = {bucket.endpoint}\n    region = us-east-1\n"
    )


def test_a_profile_stays_on_this_machine_and_credentials_are_written_nowhere(
    bucket: Bucket, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    Path(os.environ["AWS_CONFIG_FILE"]).write_text("[profile team]\nregion = us-east-1\n")
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(
        "[team]\naws_access_key_id = a-key\naws_secret_access_key = a-secret\n"
    )
    assert "(Unable to locate credentials): set AWS_PROFILE, or AWS_ACCESS_KEY_ID" in refusal(project, bucket.url)
    command.add_command(bucket.url, name="storage", profile="team")
    assert (project / ".dvc/config.local").read_text() == "['remote \"storage\"']\n    profile = team\n"
    assert "team" not in (project / ".dvc/config").read_text()
    assert "a-secret" not in config_files(project)
    command.add_command(bucket.url, name="storage", profile="team")


def test_what_refuses_is_not_configured(bucket: Bucket, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(project, "s3://no-such-bucket/x").startswith("s3://no-such-bucket/x does not exist (The specified")
    bucket.deny("s3:PutObject")
    assert refusal(project, bucket.url).startswith(f"{bucket.url} refuses access (")
    assert refusal(project, bucket.url).endswith("): set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    bucket.allow()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    nobody = f"http://127.0.0.1:{free_port()}"
    assert refusal(project, bucket.url, endpoint_url=nobody).startswith(f"{bucket.url} cannot be reached (Could not co")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "(The config profile (nobody) could not be found): set AWS_PROFILE" in refusal(project, bucket.url)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        (
            "s3://key:secret@bucket/x",
            {},
            "the URL has credentials or a query in it: take them out, and set AWS_PROFILE",
        ),
        ("az://box/x?sig=secret", {}, "take them out, and set AZURE_STORAGE_ACCOUNT_NAME"),
        ("ssh://me:secret@host/x", {}, "take them out, and use a key of ssh's agent"),
        ("s3://bucket", {"endpoint_url": "http://me:secret@host"}, "the URL has credentials or a query in it"),
        ("ftp://host/x", {}, "ftp://: give s3://, gs://, az://, ssh:// or a folder; DVC has more: `dvc remote add`"),
        ("folder", {"profile": "me"}, "--profile is for s3:// only"),
        ("folder", {"name": 'a "b"'}, "--name 'a \"b\"': take letters, digits"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(
    project: Path, url: str, options: dict[str, str], message: str
) -> None:
    assert message in refusal(project, url, **options)


@pytest.mark.parametrize(("scheme", "plugin", "extra"), [("gs", "dvc_gs", "gcs"), ("az", "dvc_azure", "azure")])
def test_a_missing_plugin_is_named_by_what_installs_it(project: Path, scheme: str, plugin: str, extra: str) -> None:
    if importlib.util.find_spec(plugin) is not None:
        pytest.skip(f"{plugin} is installed here")
    assert refusal(project, f"{scheme}://b/x").endswith(f'is not installed: `pip install "pawline[{extra}]"`')


def test_a_folder_is_made_once_and_missed_when_it_is_gone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    command.add_command("../../share", name="storage")
    assert list((tmp_path / "share").iterdir()) == []
    monkeypatch.chdir(project / "below")
    command.list_command()
    assert f"* storage  {tmp_path / 'share'}\n" in capsys.readouterr().out
    command.add_command(str(tmp_path / "other"), name="other")
    command.list_command()
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"* other    {tmp_path / 'other'}",
        f"  storage  {tmp_path / 'share'}",
    ]
    taken = refusal(project, str(tmp_path / "third"), name="other")
    assert taken == f"the remote other is {tmp_path / 'other'}: `dvc remote remove other` first, or give --name"
    (tmp_path / "other").rmdir()
    with pytest.raises(PawlineError, match=rf"^{tmp_path / 'other'} does not exist \("):
        command.check_command(None)
    with pytest.raises(PawlineError, match=rf"^{tmp_path / 'other'} does not exist \("):
        push_command(None)
    assert not (tmp_path / "other").exists(), "it may be a share that is not mounted"
    with pytest.raises(PawlineError, match=r"^no version is registered here, so there is nothing to copy: `pawline re"):
        push_command("storage")
    with pytest.raises(PawlineError, match=r"^no remote nas is configured; there are other, storage: `pawline remote"):
        command.check_command("nas")


def test_what_is_no_folder_is_called_that(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert refusal(project, str(tmp_path / "file")) == f"{tmp_path / 'file'} is a file: give a folder"
    assert refusal(project, str(tmp_path / "link")) == f"{tmp_path / 'link'} is a link to nothing: give a folder"


def test_it_is_a_command_of_pawline() -> None:
    assert [group.name for group in app.registered_groups] == ["remote"]
