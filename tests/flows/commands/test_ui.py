import json
import re
import socket
import urllib.error
import urllib.request

import psutil
import pytest

from flows import server
from flows.commands.ui import served as serve
from tasks.stage import PawlineError
from tests.flows.served import Served, free_port

pytest_plugins = ["tests.flows.served"]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - http
        return str(answer.read().decode())


def test_page_reports_and_database(served: Served) -> None:
    assert "<title>" in get(served.address)
    assert json.loads(get(f"{served.address}/ui-settings"))["api_url"] == "/api"
    noted = json.loads((served.folder / ".prefect/server.json").read_text())
    assert (noted["address"], noted["pid"]) == (served.address, served.process.pid)
    assert noted["started"] == pytest.approx(psutil.Process(served.process.pid).create_time(), abs=1)
    assert get(f"{noted['reports']}/a%20page.html") == "accuracy"
    for path in ("../prefect.toml", "%2e%2e/prefect.toml", "..%2fprefect.toml"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{noted['reports']}/{path}")
    assert {path.name for path in (served.folder / ".prefect").iterdir()} >= {"prefect.db", "server.log"}

    children = psutil.Process(served.process.pid).children(recursive=True)
    listening = [at.laddr.ip for child in children for at in child.net_connections() if at.status == "LISTEN"]
    assert set(listening) == {"127.0.0.1"}


def test_one_server_a_project_and_one_line_for_a_port_that_is_taken(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert re.fullmatch(
        rf"error: Prefect's server is running here already: {served.address} \(end it with Ctrl-C, or `kill \d+`\)\n",
        served.pawline("ui", "--port", str(free_port())),
    )
    monkeypatch.setattr(server, "running", lambda: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PawlineError, match=rf"^127\.0\.0\.1:{port} cannot be had \(Address already in use\)"):
            serve("127.0.0.1", port).__enter__()
    with pytest.raises(PawlineError, match=r"^192\.0\.2\.1:\d+ cannot be had"):  # an address for documentation
        serve("192.0.2.1", free_port()).__enter__()
