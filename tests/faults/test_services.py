"""`pawline serve` and the server of `pawline ui`: who gets in, what may be asked for, what is made up to break them.

The limits on size, time and number have tests of their own: tests/inference/test_service_limits.py.
"""

import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flows.guarded_server import Guard
from inference.service_limits import LOCAL_HOSTS, own_hosts
from tests.conftest import ROOT
from tests.faults.conftest import Report, Tries
from tests.faults.results import Fault
from tests.flows.served import Served, wait_for
from tests.inference.running import Running, make_export, picture, running

pytest_plugins = ["tests.flows.served"]

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
PATIENCE_SECONDS = 60.0
SECRET = "outside-of-everything"  # noqa: S105 - what a file holds that nobody may have
# Where a path may lead that somebody wrote who knows how servers read them.
UPWARDS = ("..", "%2e%2e", "%2E.", ".%2e", "..%00", "%252e%252e", "..;", "..\\", "%c0%ae%c0%ae", "....")
BETWEEN = ("/", "%2f", "\\", "%5c", "//", "/./")
FOREIGN_ORIGINS = (
    "https://evil.example",
    "http://evil.example:{port}",
    "http://127.0.0.1.evil.example:{port}",
    "http://127.0.0.1:1",
    "http://localhost:{port}",
    "file://",
    "null",
)
PREFLIGHT = {"Method": "POST", "Headers": "content-type", "Private-Network": "true"}
FOREIGN_HOSTS = ("evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.1@evil.example", "")
SOCKETS = ("/api/events/in", "/api/events/out", "/api/logs/out", "/api/task_runs/subscriptions/scheduled")
TARGETS = ("POST /predict", "GET /healthz", "HEAD /", "PUT /predict", "\0 /", "POST http://x/predict", "GET *")
LENGTHS = (
    *(f"Content-Length: {length}" for length in (0, -1, "1e9", 10**30, "5, 5", "5\r\nContent-Length: 6")),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"),
)
KINDS = ("multipart/form-data; boundary=", "image/png; ", "\0")
# A client of the temporary server; the first argument is where the answer goes.
TEMPORARY = """\
import sys
from pathlib import Path
from typing import Any
from flows import server
server.connect()
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    client.hello().raise_for_status()
    Path(sys.argv[1] + ".unfinished").write_text(str(client.api_url))
    Path(sys.argv[1] + ".unfinished").rename(sys.argv[1])
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(make_export(tmp_path_factory.mktemp("colours"))) as service:
        yield service


def ask(
    port: int, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Ask for a path as it is written, with a `Host` of choice; the names of headers are in lower case."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body)), **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def reports_of(served: Served) -> int:
    noted = json.loads((served.folder / ".prefect/server.json").read_text())
    return port_of(noted["reports"])


def listening(process: psutil.Process) -> set[str]:
    """Return the addresses on which a process and those that it started listen."""
    family = [process, *process.children(recursive=True)]
    return {at.laddr.ip for one in family for at in one.net_connections() if at.status == "LISTEN"}


def test_requests_made_up_from_the_openapi_document(service: Running, tries: Tries, report: Report) -> None:
    seen: Counter[int] = Counter()
    schema = openapi.from_url(f"{service.address}/openapi.json")
    for operation in (schema["/predict"]["POST"], schema["/healthz"]["GET"], schema["/metrics"]["GET"]):
        modes = list(GenerationMode) if operation.body else [GenerationMode.POSITIVE]
        for mode in modes:

            @settings(
                max_examples=tries(25, 2500),
                database=None,
                derandomize=True,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def answered_as_described(case: Case[Any]) -> None:
                response = case.call(timeout=PATIENCE_SECONDS)
                seen[response.status_code] += 1
                case.validate_response(response, checks=CHECKS)

            answered_as_described()
    figures = ", ".join(f"{number:,} times {status}" for status, number in sorted(seen.items()))
    assert seen[200] > 10
    assert seen[422] > 10
    report(
        Fault.SERVICES,
        "requests to `pawline serve`, made up by schemathesis from its OpenAPI document",
        tries=seen.total(),
        held=sum(number for status, number in seen.items() if status < 500),
        seen=f"{figures}; every answer as the document has it",
    )


def garbage(chance: random.Random) -> bytes:
    """Return a request in which something is wrong, or nothing but noise."""
    body = picture(chance.choice(["red", "lime"]))
    lines = [
        chance.choice(TARGETS) + chance.choice([" HTTP/1.1", " HTTP/1.0", " HTTP/9.9", "", " HTTP/1.1\nX: y"]),
        chance.choice(["Host: localhost", "Host: localhost\r\nHost: evil.example", "Host : localhost", "Host: \x80"]),
        chance.choice([f"Content-Length: {len(body)}", *LENGTHS]),
        f"Content-Type: {chance.choice(KINDS)}{'x' * chance.randrange(200)}",
        chance.choice(
            ["Expect: 100-continue", "Upgrade: h2c\r\nConnection: Upgrade", "Content-Encoding: gzip", "A: b"]
        ),
    ]
    request = bytearray("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
    for _ in range(chance.choice([0, 0, 1, 20])):
        request[chance.randrange(len(request))] = chance.randrange(256)
    return bytes(request[: chance.choice([len(request), len(request), chance.randrange(len(request))])])


def test_requests_that_are_none(service: Running, chance: random.Random, tries: Tries, report: Report) -> None:
    process, sent = psutil.Process(), tries(300, 5_000)
    held, answers = 0, Counter[str]()
    with service.client() as http:
        assert http.post("/predict", content=picture("red")).status_code == 200
        before = process.num_fds()
        for _ in range(sent):
            answer = b""  # where the connection is reset before all was sent
            with service.connect() as connection, suppress(ConnectionError):
                connection.sendall(garbage(chance))
                connection.shutdown(1)  # nothing more comes: no time is waited for
                answer = b"".join(iter(lambda: connection.recv(65_536), b""))
            statuses = re.findall(rb"HTTP/1\.1 (\d)", answer)
            answers.update(status.decode() + "xx" for status in statuses)
            held += b"5" not in statuses
        assert http.post("/predict", content=picture("red")).status_code == 200
        wait_for(PATIENCE_SECONDS, lambda: process.num_fds() <= before + 2)
    seen = ", ".join(f"{number:,} times {kind}" for kind, number in sorted(answers.items()))
    what = "requests to `pawline serve` that are mutilated, contradict themselves or break off"
    report(Fault.SERVICES, what, tries=sent, held=held, seen=f"{seen}, else no answer; a photo was answered afterwards")


def paths_upwards() -> list[str]:
    starts = ("/", "/api/", "/assets/", "/predict/", "/static/", "http://127.0.0.1/")
    return [
        start + between.join([upwards] * 6 + ["secret.txt"])
        for start in starts
        for upwards in UPWARDS
        for between in BETWEEN
    ]


def test_no_path_leads_out_of_its_folder(service: Running, served: Served, tries: Tries, report: Report) -> None:
    (served.folder / "secret.txt").write_text(SECRET)
    every = paths_upwards()
    asked = [*every[:: tries(6, 1)], f"/{served.folder}/secret.txt", "//etc/passwd", "/file:///etc/passwd"]
    ports = {"serve": service.port, "prefect": served.port, "reports": reports_of(served)}
    got_out, failed = [], []
    for name, port in ports.items():
        for path in asked:
            status, _, body = ask(port, "GET", path, {})
            if SECRET.encode() in body or b"root:" in body:
                got_out.append((name, path))
            if status >= 500:
                failed.append((name, path, status))
    assert failed == []
    report(
        Fault.SERVICES,
        "paths that lead upwards, encoded in sixty ways, asked of `pawline serve`, Prefect's server and the reports",
        tries=len(asked) * len(ports),
        held=len(asked) * len(ports) - len(got_out),
        seen=str(got_out or "no file of another folder, no 5xx"),
    )


def test_no_page_of_another_site_gets_in(service: Running, served: Served, report: Report) -> None:
    answers, photo = {}, picture("red")
    for name, port, path in (
        ("serve", service.port, "/predict"),
        ("serve", service.port, "/healthz"),
        ("serve", service.port, "/openapi.json"),
        ("prefect", served.port, "/api/health"),
        ("prefect", served.port, "/api/flows/filter"),
        ("prefect", served.port, "/"),
        ("reports", reports_of(served), "/a%20page.html"),
    ):
        for origin in (text.format(port=port) for text in FOREIGN_ORIGINS):
            # Over plain http to another machine, browsers send Origin alone.
            for method, site in (("GET", True), ("POST", True), ("POST", False), ("OPTIONS", True)):
                headers = {"Origin": origin} | ({"Sec-Fetch-Site": "cross-site"} if site else {})
                if method == "OPTIONS":
                    headers |= {f"Access-Control-Request-{name}": value for name, value in PREFLIGHT.items()}
                status, answer, _ = ask(port, method, path, headers, photo if method == "POST" else b"")
                # "let in": told that it may read, or taken at its word
                inside = any(header.startswith("access-control-allow") for header in answer)
                inside |= name == "prefect" and status != 403
                inside |= method == "POST" and (status < 400 or (path == "/predict" and status != 403))
                answers[name, path, origin, method, site] = inside
    let_in = [asked for asked, inside in answers.items() if inside]
    what = "requests of pages of other sites, their preflights among them, to both services and the reports"
    seen = str(let_in or "none may be sent that changes anything, or be read")
    report(Fault.SERVICES, what, tries=len(answers), held=len(answers) - len(let_in), seen=seen)
    assert ask(service.port, "POST", "/predict", {"Sec-Fetch-Site": "cross-site"}, photo)[0] == 403, "by itself, too"
    assert ask(service.port, "POST", "/predict", {"Origin": service.address}, photo)[0] == 200, "the page of `serve`"
    own = {"Origin": served.address, "Content-Type": "application/json"}
    flows = httpx.post(f"{served.address}/api/flows/filter", headers=own, json={}, timeout=PATIENCE_SECONDS)
    assert flows.status_code == 200, "Prefect's own page"


def test_no_domain_that_was_pointed_here_gets_in(service: Running, served: Served, report: Report) -> None:
    answers = {}
    for port, path in (
        (service.port, "/"),
        (service.port, "/predict"),
        (service.port, "/openapi.json"),
        (service.port, "/nothing"),
        (served.port, "/"),
        (served.port, "/api/health"),
        (served.port, "/api/admin/settings"),
        (reports_of(served), "/a%20page.html"),
    ):
        for host in (text.format(port=port) for text in FOREIGN_HOSTS):
            for method in ("GET", "POST"):
                status, _, _ = ask(port, method, path, {"Host": host, "Origin": f"http://{host}"})
                answers[port, path, host, method] = status
        for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}"):
            assert ask(port, "GET", path, {"Host": host})[0] in (200, 404, 405), "this machine by its own names"
    # 501: there is no such method here, whoever asks.
    let_in = [asked for asked, status in answers.items() if status not in (403, 501)]
    what = "requests under foreign host names (DNS rebinding) to both services and the reports"
    report(Fault.SERVICES, what, tries=len(answers), held=len(answers) - len(let_in), seen=str(let_in or "403"))


def test_a_service_that_others_reach_has_its_own_names_alone(tmp_path: Path, report: Report) -> None:
    """On an address of a network (192.0.2.0/24 is for examples), `--host pets.lan`; here it listens on loopback."""
    ours = {"192.0.2.5", "192.0.2.5:8000", "Pets.LAN:8000", "localhost:1", socket.gethostname(), socket.getfqdn()}
    foreign = {"evil.example", "192.0.2.6", "192.0.2.5.evil.example", "", "lan"}
    hosts = own_hosts("pets.lan", "192.0.2.5")

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("Prefect")(scope, receive, send)

    prefect = TestClient(Guard(page, hosts))
    with running(make_export(tmp_path / "colours"), hosts=hosts) as service:
        answers = {
            host: {
                ask(service.port, "GET", "/healthz", {"Host": host})[0],
                prefect.get("/", headers={"host": host}).status_code,
            }
            for host in ours | foreign
        }
    assert {host for host, statuses in answers.items() if statuses == {200}} == ours
    held = [host for host in foreign if answers[host] == {403}]
    what = "requests under foreign host names (DNS rebinding) to both services, on an address that others reach"
    report(Fault.SERVICES, what, tries=2 * len(foreign), held=2 * len(held), seen="403")
    assert own_hosts("127.0.0.1", "127.0.0.1") == LOCAL_HOSTS
    assert own_hosts("0.0.0.0", "0.0.0.0") is own_hosts("::", "::") is None, "any, as docs/security.md says"  # noqa: S104


def refused(served: Served, path: str, headers: dict[str, str], host: str | None) -> bool:
    """Say whether a WebSocket is refused before it is open."""
    authority = host or f"127.0.0.1:{served.port}"
    try:
        with connect(
            f"ws://{authority}{path}",
            sock=socket.create_connection(("127.0.0.1", served.port), PATIENCE_SECONDS),
            additional_headers=headers,
            subprotocols=None,
            open_timeout=PATIENCE_SECONDS,
            proxy=None,
        ):
            return False
    except InvalidStatus as error:
        return error.response.status_code == 403


def test_no_foreign_page_opens_a_websocket(served: Served, service: Running, report: Report) -> None:
    let_in = []
    origins = [text.format(port=served.port) for text in FOREIGN_ORIGINS]
    hosts = [f"evil.example:{served.port}", f"127.0.0.1.evil.example:{served.port}"]
    for path in SOCKETS:
        let_in += [(path, origin) for origin in origins if not refused(served, path, {"Origin": origin}, None)]
        let_in += [(path, host) for host in hosts if not refused(served, path, {"Origin": f"http://{host}"}, host)]
        assert not refused(served, path, {}, None), "a worker, which is no page"
        assert not refused(served, path, {"Origin": served.address}, None), "Prefect's own page"
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert ask(service.port, "GET", "/healthz", upgrade)[0] == 200, "`pawline serve` has no WebSockets"
    total = len(SOCKETS) * (len(origins) + len(hosts))
    what = "WebSockets of Prefect's server, opened by pages of other sites and under foreign host names"
    report(Fault.SERVICES, what, tries=total, held=total - len(let_in), seen=str(let_in or "403 before they are open"))


def test_only_this_machine_is_let_in_by_default(served: Served, tmp_path: Path) -> None:
    make_export(tmp_path / "colours")
    command = [sys.executable, "-c", "from flows.cli import main; main()", "serve", "--port", "0", "--model", "colours"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "is served at http://127.0.0.1:" in process.stdout.readline()
        assert listening(psutil.Process(process.pid)) == {"127.0.0.1"}
    finally:
        process.kill()
        process.communicate()
    assert listening(psutil.Process(served.process.pid)) == {"127.0.0.1"}


def test_pages_say_what_a_browser_may_do_with_them(served: Served, service: Running) -> None:
    for port, path in (
        (service.port, "/"),
        (service.port, "/openapi.json"),
        (service.port, "/nothing"),
        (served.port, "/"),
        (served.port, "/api/health"),
        (served.port, "/api/nothing"),
        (reports_of(served), "/a%20page.html"),
        (reports_of(served), "/nothing"),
    ):
        headers = ask(port, "GET", path, {})[1]
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"


def test_a_temporary_server_answers_who_started_it_alone(
    whole_suite_only: None, tmp_path: Path, report: Report
) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env = {**clean, "PREFECT_HOME": str(tmp_path / "home")}
    noted = tmp_path / "api"
    shutil.copy(ROOT / "prefect.toml", tmp_path)  # it has patience with a slow machine
    command = [sys.executable, "-c", TEMPORARY, str(noted)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=env, cwd=tmp_path)
    try:
        wait_for(3 * PATIENCE_SECONDS, lambda: noted.exists() or process.poll() is not None)
        port = port_of(noted.read_text().removesuffix("/api/").removesuffix("/api"))
        answers = [
            ask(port, method, path, {"Origin": "http://evil.example"})
            for path in ("/api/flows/filter", "/api/deployments/filter", "/api/admin/settings", "/api/admin/version")
            for method in ("GET", "POST")
        ]
        assert listening(psutil.Process(process.pid)) == {"127.0.0.1"}
    finally:
        process.communicate(b"")
    held = [status == 401 for status, _, _ in answers]
    what = "requests without its password to the temporary server of `pawline run`"
    report(Fault.SERVICES, what, tries=len(held), held=sum(held), seen="401")
