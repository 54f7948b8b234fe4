"""Secrets in every place where somebody may have them, and all that Pawline then writes, searched for them."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from prefect.states import Failed

from flows import notifications
from tasks.params import check_params
from tasks.sources import synthetic
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.faults.canaries import NAMES, canary, forms, leaks
from tests.faults.conftest import FULL, Report
from tests.faults.results import Fault
from tests.flows.served import Served, free_port, wait_for
from tests.flows.test_notifications import retrain
from tests.inference.running import make_export
from tests.s3 import Bucket
from tests.test_pipeline import commit, copy_project, set_params
from tests.three_runs import SMALL

pytest_plugins = ["tests.flows.served"]

PATIENCE_SECONDS = 900.0
PAWLINE = [sys.executable, "-c", "from flows.cli import main; main()"]
REFUSED = (  # what `data.path` may not be; the canary is put in
    "https://me:{}@127.0.0.1:{port}/pets.zip",
    "https://{}@127.0.0.1:{port}/pets.zip",
    "http://127.0.0.1:{port}/pets.zip?token={}",
    "http://127.0.0.1:{port}/pets.zip?X-Amz-Credential=me&X-Amz-Signature={}",
    "http://127.0.0.1:{port}/pets.zip?sv=2024&sig={}",
    "http://127.0.0.1:{port}/pets.zip#access_token={}",
    *(f"http://127.0.0.1:{{port}}/pets.zip?{key}={{}}" for key in ("pass", "jwt", "bearer", "sas", "%74oken")),
    "s3://key:{}@bucket/pets.zip",
    "az://box/pets.zip?sig={}",
    "ftp://me:{}@127.0.0.1/pets.zip",
)


class Place(NamedTuple):
    """A project in which secrets are wherever they belong, and what was said while it was at work.

    Attributes:
        folder: The project and all that it writes.
        project: Its checkout.
        said: What commands printed, a file each.
        secrets: By where they are.
        env: Of a user who has secrets in the environment.
        port: Of a web server that asks for a password.
    """

    folder: Path
    project: Path
    said: Path
    secrets: dict[str, str]
    env: dict[str, str]
    port: int

    def type(self, *arguments: str, fails: bool = False, env: Mapping[str, str] | None = None) -> str:
        """Type a command of `pawline`, or another one, and return the screen."""
        command = [*PAWLINE, *arguments[1:]] if arguments[0] == "pawline" else list(arguments)
        env = {**self.env, **(env or {})}
        done = subprocess.run(
            command, cwd=self.project, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
        screen = done.stdout + done.stderr
        (self.said / f"{len(list(self.said.iterdir()))}.txt").write_text(screen)
        assert (done.returncode != 0) == fails, screen
        return screen

    def leaks(self, *others: Path) -> tuple[int, list[str]]:
        """Search all that was written for all secrets, but the two files that are there to hold some."""
        allowed = frozenset([self.folder / "netrc", self.project / ".dvc/config.local"])
        return leaks(self.secrets, self.folder, *others, allowed=allowed)


class _Web(http.server.BaseHTTPRequestHandler):
    """Has an archive for who knows the password."""

    server: "_Server"

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        if b64decode(given).decode("utf-8", "replace") != f"me:{self.server.password}":
            self.send_error(401, explain=f"wrong password for {self.path}")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def do_POST(self) -> None:
        self.server.posted.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, content: bytes, password: str) -> None:
        self.content, self.password, self.posted = content, password, list[str]()
        super().__init__(("127.0.0.1", 0), _Web)


@contextmanager
def web(content: bytes, password: str) -> Iterator[_Server]:
    """Serve an archive until the block ends."""
    with _Server(content, password) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def draw_archive(path: Path) -> bytes:
    """Write synthetic photos as an archive on the web would have them."""
    with zipfile.ZipFile(path, "w") as archive:
        for record in synthetic.draw(80):
            archive.writestr(record.path, record.content)
    return path.read_bytes()


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    bucket: Bucket | None = request.getfixturevalue("bucket") if FULL else None  # else nobody asks for it
    secrets = {name: canary(name) for name in (*NAMES, "netrc", "config.local", "config.local of the web", "refused")}
    for name in ("netrc", "config.local", "config.local of the web"):  # these formats know no more than ASCII
        secrets[name] = secrets[name].encode("ascii", "replace").decode()
    folder, project, said = tmp_path / "place", tmp_path / "place/project", tmp_path / "place/said"
    for made in (project, said):
        made.mkdir(parents=True)
    copy_project(project)
    shutil.copy(ROOT / ".dvc/.gitignore", project / ".dvc")
    with web(draw_archive(tmp_path / "pets.zip"), secrets["netrc"]) as server:
        port = server.server_port
        source = {"data.source": "archive", "data.path": f"http://localhost:{port}/pets.zip"}
        set_params(project, {**SMALL, **source, "fine_tune.unfrozen_layers": 0})
        commit(project)
        (folder / "netrc").write_text(f"machine localhost login me password {secrets['netrc']}\n")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        env = {
            **{name: secrets[name] for name in NAMES},
            "NETRC": str(folder / "netrc"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "PREFECT_HOME": str(folder / "prefect"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_AUTHOR_NAME": "tests",
            "GIT_AUTHOR_EMAIL": "tests@example.com",
            "GIT_COMMITTER_NAME": "tests",
            "GIT_COMMITTER_EMAIL": "tests@example.com",
        }
        place = Place(folder, project, said, secrets, {**clean, **env}, port)
        configure_remotes(place, bucket.url if bucket else "s3://photos")
        yield place


def configure_remotes(place: Place, bucket: str) -> None:
    """Give DVC a bucket and a web server as remotes, their secrets in the file that git leaves out."""
    own = place.project / ".dvc/config.local"
    own.write_text(
        f"""['remote "storage"']
    access_key_id = testing
    secret_access_key = "{place.secrets["config.local"]}"
    session_token = "{place.secrets["config.local"]}"
['remote "web"']
    url = http://me:{quote(place.secrets["config.local of the web"], safe="")}@127.0.0.1:{place.port}/cache
    auth = basic
    user = me
    password = "{place.secrets["config.local of the web"]}"
"""
    )
    place.type("dvc", "remote", "add", "--default", "storage", f"{bucket}/pawline")
    place.type("git", "commit", "--quiet", "--all", "--message", "Share what is made")
    place.type("git", "check-ignore", ".dvc/config.local")


def say(report: Report, what: str, searched: int, found: list[str]) -> None:
    hits = {line.partition(": ")[0] for line in found}
    seen = "; ".join(sorted(found)[:10]) or "none of them, as it is or encoded"
    report(Fault.SECRETS, what, tries=searched, held=searched - len(hits), seen=seen)


def test_every_way_to_write_a_secret_is_found(tmp_path: Path) -> None:
    secret = canary("x")
    for number, text in enumerate(
        [secret, quote(secret, safe=""), b64encode(f"me:{secret}".encode()).decode(), secret.encode().hex()]
    ):
        (tmp_path / f"{number}.txt").write_text(f"before {text} after")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", secret)
    (tmp_path / "repository").mkdir()
    for command in (["init", "--quiet"], ["hash-object", "-w", "../0.txt"]):
        subprocess.run(["git", *command], cwd=tmp_path / "repository", check=True, capture_output=True)
    _, found = leaks({"x": secret}, tmp_path)
    assert len([line for line in found if not line.startswith("name")]) == 6
    assert len(forms(secret)) > 8


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_with_a_secret_is_refused_and_not_told(url: str, tmp_path: Path) -> None:
    secret = canary("refused")
    as_is = [] if "//{}@" in url else [secret]  # by its slash it would be a host and a path
    for written in (*as_is, quote(secret, safe="")):
        source = "archive" if "sv=" not in url else "directory"
        (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        set_params(tmp_path, {"data.source": source, "data.path": url.format(written, port=1)})
        with pytest.raises(PawlineError) as refused:
            check_params(tmp_path / "params.yaml")
        said = str(refused.value)
        assert not [form for form in forms(secret) if form in said.encode()]
        assert ("in it" in said, "\n" in said) == (True, False), said


def test_nothing_of_a_run_tells_a_secret(place: Place, served: Served, report: Report) -> None:
    api = {"PREFECT_API_URL": f"{served.address}/api"}
    assert "2 of 2 stages run" in place.type("pawline", "run", "ingest", env=api)
    fail_with_photos(place, api)
    searched, found = place.leaks(served.folder)
    say(report, "what a run and commands that fail write, its environment and files full of secrets", searched, found)


def fail_with_photos(place: Place, api: dict[str, str]) -> None:
    """Type what is refused, unreachable or unreadable, with a secret in it."""
    encoded = quote(place.secrets["refused"], safe="")
    wrong = place.folder / "wrong"
    wrong.write_text(f"machine localhost login me password {encoded}\n")
    set_params(place.project, {"data.path": f"http://localhost:{place.port}/others.zip"})
    program = ["pawline", "run"] if FULL else ["dvc", "repro"]
    place.type(*program, "ingest", fails=True, env={**api, "NETRC": str(wrong)})
    if FULL:
        set_params(place.project, {"data.path": f"http://localhost:{free_port()}/others.zip"})
        place.type("dvc", "repro", "ingest", fails=True, env={"NETRC": str(wrong)})
        for url in REFUSED:
            setting = f"data.path={url.format(encoded, port=place.port)}"
            place.type("pawline", "run", "ingest", "--set", setting, fails=True, env=api)
        photo = f"http://me:{encoded}@127.0.0.1:{place.port}/x.jpg?token={encoded}"
        place.type("pawline", "predict", "--model", str(make_export(place.folder / "colours")), photo, fails=True)
    place.type("git", "checkout", "--quiet", "params.yaml")
    wrong.unlink()


def fail_with_remotes(place: Place) -> None:
    """Name, list, check and use remotes that are refused or away."""
    encoded = quote(place.secrets["refused"], safe="")
    away = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    place.type("pawline", "remote", "add", f"s3://key:{encoded}@bucket/x", fails=True)
    assert "***@" in place.type("pawline", "remote", "list")
    place.type("pawline", "remote", "check", "web", fails=True)
    place.type("pawline", "remote", "check", fails=True, env=away)
    place.type("pawline", "push", fails=True, env=away)
    place.type("pawline", "push", "--remote", "web", fails=True)


def test_a_webhook_that_fails_does_not_tell_its_address(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    secret = canary("webhook")
    path = quote(secret, safe="")
    with web(b"", "") as server, served.in_use(monkeypatch) as client:
        before = failed_actions(client.api_url)
        ended = (lambda: failed_actions(client.api_url) > before), (lambda: server.posted)
        for port, is_over in zip((free_port(), server.server_port), ended, strict=True):
            notifications.notify(client, f"http://me:{path}@127.0.0.1:{port}/{path}?key={path}", flow="retrain")
            client.create_flow_run(retrain, state=Failed(message="no photos"), name=f"told-{port}")
            wait_for(PATIENCE_SECONDS, is_over)
        notifications.stop(client, flow="retrain")
    searched, found = leaks({"webhook": secret}, served.folder)
    say(report, "Prefect's database and log after webhooks that nobody answers, or with 404", searched, found)


def failed_actions(api: object) -> int:
    """Return how many actions of automations Prefect says have failed."""
    import httpx

    wanted = {"filter": {"event": {"name": ["prefect.automation.action.failed"]}}}
    count: int = httpx.post(f"{api}events/filter", json=wanted, timeout=60).json()["total"]
    return count


def test_nothing_of_a_models_life_tells_a_secret(whole_suite_only: None, place: Place, report: Report) -> None:
    place.type("pawline", "run")
    place.type("git", "add", "--all")
    place.type("git", "commit", "--quiet", "--message", "Train")
    place.type("pawline", "register")
    place.type("pawline", "promote", "v1", "--reason", "first")
    place.type("pawline", "push")
    for form in ("--json", "--openlineage", "--prov", "--cyclonedx", "--html=lineage.html"):
        place.type("pawline", "lineage", "v1", form)
    for command in ("card v1", "report", "verify v1", "models", "why", "remote check", "lineage"):
        place.type("pawline", *command.split())
    place.type("pawline", "run", "--set", "gate.alpha=0.04", "--name", "stricter")
    place.type("git", "checkout", "--quiet", "params.yaml", "dvc.lock")
    place.type("pawline", "retrain")
    fail_with_remotes(place)
    searched, found = place.leaks()
    say(report, "a run, a version, its documents, an experiment, a retraining and a remote", searched, found)
