import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.events import Event, Resource
from prefect.states import Completed, Crashed, Failed

from flows import notifications
from tasks.stage import PawlineError
from tests.flows.served import Served

pytest_plugins = ["tests.flows.served"]

Received = queue.Queue[tuple[str, dict[str, str]]]
TRICKY = 'no photos in "../räume\\{{ flow.id }}": <none>'


@pytest.fixture
def hook() -> Iterator[tuple[str, Received]]:
    """The address of a receiver, and what it received."""
    received: Received = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.put((self.headers["Content-Type"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{receiver.server_address[1]}/hook", received
        receiver.shutdown()


@flow
def retrain() -> None:
    """Named as the flow whose failures are told."""


@flow
def another() -> None:
    """Nobody is told of this one."""


def test_failures_and_promotions_are_told(
    served: Served, monkeypatch: pytest.MonkeyPatch, hook: tuple[str, Received]
) -> None:
    url, received = hook
    with served.in_use(monkeypatch) as client:
        for address in ("http://127.0.0.1:9/of-yesterday", url, url):
            notifications.notify(client, address, flow="retrain")
        assert notifications.is_on(client, flow="retrain")
        assert len(client.read_automations()) == 2

        for told in (another, retrain):
            run = client.create_flow_run(told, state=Failed(message=TRICKY), name=f"run-of-{told.name}")
        kind, message = received.get(timeout=120)
        address = f"{served.address}/runs/flow-run/{run.id}"
        assert kind == "application/json"
        assert message.pop("occurred")
        assert message == {
            "text": f"retrain run-of-retrain: Failed: {TRICKY} {address}",
            "event": "prefect.flow-run.Failed",
            "flow": "retrain",
            "run": "run-of-retrain",
            "state": "Failed",
            "message": TRICKY,
            "url": address,
        }
        _finish(client, received)
        assert notifications.stop(client, flow="retrain")
        assert not notifications.is_on(client, flow="retrain")
        assert (client.read_automations(), notifications.stop(client, flow="retrain")) == ([], False)


def test_one_flow_of_two_is_told_no_more(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.in_use(monkeypatch) as client:
        for name in ("retrain", "pipeline"):
            notifications.notify(client, "http://127.0.0.1:9", flow=name)
        stopped = []
        for name in ("pipeline", "pipeline", "retrain"):
            told = notifications.stop(client, flow=name)
            stopped.append((told, sorted(one.name for one in client.read_automations())))
        left = [notifications.PROMOTED, "pawline: retrain failed"]
        assert stopped == [(True, left), (False, left), (True, [])]


def _finish(client: SyncPrefectClient, received: Received) -> None:
    """A run that ends well, one that crashes, and a new champion."""
    client.create_flow_run(retrain, state=Completed())
    client.create_flow_run(retrain, state=Crashed(message="killed"), name="dead")
    assert received.get(timeout=120)[1]["text"].startswith("retrain dead: Crashed: killed http")
    resource = {"prefect.resource.id": "pawline.champion", "prefect.resource.name": "v7"}
    # As `emit_event` does it in the end; but that goes to the first server that this process has used.
    event = Event(
        event="pawline.promoted", resource=Resource(resource), payload={"text": 'v7 is the champion: "0.93" > 0.91'}
    )
    requests.post(f"{client.api_url}events", json=[event.model_dump(mode="json")], timeout=30).raise_for_status()
    _, message = received.get(timeout=120)
    assert message.pop("occurred")
    assert message == {
        "text": 'v7 is the champion: "0.93" > 0.91',
        "event": "pawline.promoted",
        "version": "v7",
    }
    assert received.empty()


def test_what_is_shown_of_an_address() -> None:
    assert notifications.origin("https://me:secret@example.org:8000/a/secret?key=secret") == "https://example.org:8000"


def test_what_is_no_address() -> None:
    notifications.check_url("https://example.org/hook")
    for wrong in ("example.org", "ftp://example.org", "https://"):
        secret = "" if wrong.endswith("/") else "/a/secret?key=secret"
        with pytest.raises(PawlineError, match=rf"^--webhook {wrong}: no web address; it begins with https:// or"):
            notifications.check_url(wrong + secret)
