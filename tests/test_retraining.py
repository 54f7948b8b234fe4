"""Retraining as its users have it: a server, a worker, a schedule, and real photos dropped into a folder."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests

from tests.conftest import ROOT
from tests.flows.conftest import processes_in
from tests.test_pipeline import commit, copy_project, run, set_params

PATIENCE_SECONDS = 300.0
SETTINGS: dict[str, Any] = {
    "data.source": "directory",
    "data.path": "../photos",
    "validate.min_images_per_class": 2,
    "validate.splits": {"train": 0.6, "val": 0.1, "test": 0.3},
    "image.size_px": 96,
    "features.views": 1,
    "train_head.epochs": 3,
    "fine_tune.unfrozen_layers": 0,
    "export.formats": ["keras"],
    # The photos are few: anything may be the first champion.
    "gate.min_accuracy": 0.0,
    "gate.min_recall": 0.0,
    "gate.min_images": 5,
    "gate.max_slice_drop": 0.2,
}
Found = TypeVar("Found")


class Webhook(ThreadingHTTPServer):
    """Takes down what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Listener)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/told"


class Listener(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Site:
    """A project, its photos, its server and its worker."""

    def __init__(self, folder: Path, shared_data: Path, env: dict[str, str] | None = None) -> None:
        self.project, self.photos, self._data = folder / "project", folder / "photos", shared_data
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._env = os.environ | {
            "XDG_CONFIG_HOME": str(folder / "config"),
            "PREFECT_HOME": str(self.project / ".prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            **(env or {}),
        }
        self._env.pop("PREFECT_API_URL", None)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command of `pawline`."""
        command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
        out, err = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(command, cwd=self.project, env=self._env, stdout=out, stderr=err, text=True)

    def type(self, *arguments: str) -> str:
        """Type a command of `pawline`, and return the screen."""
        process = self.start(*arguments)
        screen = process.communicate(timeout=PATIENCE_SECONDS)[0]
        assert process.returncode == 0, screen
        return screen

    @contextmanager
    def running(self, *arguments: str, ready: str) -> Iterator["subprocess.Popen[str]"]:
        """Keep a command running; its output goes on being read."""
        process = self.start(*arguments)
        said: list[str] = []
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
        reader.start()
        try:
            wait_for(lambda: any(ready in line for line in said), f"{ready!r} of {arguments}", said)
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_SECONDS)
            reader.join(10)

    def ask(self, path: str, **filters: object) -> list[dict[str, Any]]:
        """Ask the server."""
        answer = requests.post(f"http://127.0.0.1:{self.port}/api/{path}/filter", json=filters, timeout=30)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def retrainings(self) -> list[dict[str, Any]]:
        """The flow runs of `retrain` that are over, the first one first."""
        runs = self.ask("flow_runs", flows={"name": {"any_": ["retrain"]}}, sort="START_TIME_ASC", limit=200)
        return [run for run in runs if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED")]

    def wait_for_state(self, name: str) -> dict[str, Any]:
        """Return the first retraining that ended in a state and that no earlier call returned.

        A run may crash if it begins to talk to the server while that is away: the next one carries on.
        """
        seen: set[str] = self.__dict__.setdefault("_seen", set())

        def find() -> dict[str, Any] | None:
            try:
                ended = self.retrainings()
            except requests.ConnectionError:  # the server is restarting
                return None
            failed = [run["state"]["message"] for run in ended if run["state_type"] == "FAILED"]
            assert failed == []
            assert len([run for run in ended if run["state_type"] == "CRASHED"]) <= 1
            return next((run for run in ended if run["state_name"] == name and run["id"] not in seen), None)

        found = wait_for(find, f"a retraining that ends as {name}", [])
        seen.add(found["id"])
        return found

    def wait_for_ingested(self, count: int) -> None:
        """Wait until so many runs have taken photos in."""
        ingests = {"name": {"any_": ["ingest"]}, "state": {"name": {"any_": ["Completed"]}}}
        wait_for(lambda: len(self.ask("task_runs", task_runs=ingests)) >= count, f"{count} ingests", [])

    def drop_photos(self, first: int, count: int, *, swap_labels: bool = False) -> None:
        """Put some of the real photos of each class into the folder, where the pipeline looks for them."""
        with (self._data / "petimages_truth.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["expected"] == "keep" and row["defect"] == "none"]
        with zipfile.ZipFile(self._data / "petimages.zip") as archive:
            for label, other in (("cat", "dog"), ("dog", "cat")):
                folder = self.photos / (other if swap_labels else label)
                folder.mkdir(parents=True, exist_ok=True)
                for row in [row for row in rows if row["label"] == label][first : first + count]:
                    (folder / f"{label}{Path(row['path']).name}").write_bytes(archive.read(row["path"]))


def wait_for(
    find: Callable[[], Found | None], what: str, said: list[str], *, seconds: float = PATIENCE_SECONDS
) -> Found:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = find()
        if found:
            return found
        time.sleep(0.5)
    pytest.fail(f"waited in vain for {what}\n{''.join(said)}")


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def site(tmp_path: Path, shared_data: Path) -> Iterator[Site]:
    site = Site(tmp_path, shared_data)
    copy_project(site.project)
    for name in ("prefect.toml", "prefect.yaml", ".dvc/.gitignore"):
        (site.project / name).write_bytes((ROOT / name).read_bytes())
    set_params(site.project, SETTINGS)
    commit(site.project)
    for key, value in (("name", "tests"), ("email", "tests@example.com")):
        run(["git", "config", f"user.{key}", value], site.project)
    yield site
    assert processes_in(tmp_path) == []


def test_a_schedule_retrains_on_new_photos_and_refuses_what_bad_labels_make(site: Site, webhook: Webhook) -> None:
    ui = ("ui", "--port", str(site.port))
    commit_before = run(["git", "rev-parse", "HEAD"], site.project).stdout
    site.drop_photos(0, 80)
    with ExitStack() as stack:
        server = stack.enter_context(ExitStack())
        server.enter_context(site.running(*ui, ready="Prefect's page"))
        assert "every 30s" in site.type("schedule", "--every", "30s", "--webhook", webhook.url)
        stack.enter_context(site.running("worker", ready="at work"))
        site.wait_for_ingested(1)
        server.close()  # in the middle of the run
        server.enter_context(site.running(*ui, ready="Prefect's page"))
        first = site.wait_for_state("Promoted")
        assert "v1.0.0" in first["state"]["message"]
        assert first["auto_scheduled"]
        (verdict,) = site.ask("artifacts", artifacts={"key": {"any_": ["gate"]}})
        assert ": passed" in verdict["data"].splitlines()[0]
        wait_for(lambda: [news for news in webhook.told if "v1.0.0" in news["text"]], "the news", [])
        assert site.wait_for_state("Unchanged")["auto_scheduled"]

    site.drop_photos(80, 80, swap_labels=True)
    refused = site.type("retrain").splitlines()[-1]  # with a server of its own
    assert refused.startswith("refused: "), refused
    assert "photos known to the champion" in refused
    champion = [line for line in site.type("models").splitlines() if "*" in line]
    assert len(champion) == 1
    assert champion[0].startswith("v1.0.0")
    assert "verified" in site.type("verify", "champion")
    assert '"gate"' in run(["git", "show", "registry:decisions/0002.json"], site.project).stdout
    assert "known to the champion" in (site.project / "reports/retrain/retrain-2/gate.html").read_text(encoding="utf-8")
    assert run(["git", "rev-parse", "HEAD"], site.project).stdout == commit_before
    assert run(["git", "status", "--porcelain"], site.project).stdout == ""
    run(["git", "fsck", "--strict"], site.project)
    run(["dvc", "status"], site.project)
