import json
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows import server
from flows.commands import ui
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


def test_no_foreign_page_drives_the_server(served: Served) -> None:
    asked = f"{served.address}/api/health"
    own = urllib.request.Request(asked, headers={"Origin": served.address})  # noqa: S310 - http
    with urllib.request.urlopen(own, timeout=10) as answer:  # noqa: S310 - http
        assert answer.headers["Access-Control-Allow-Origin"] == served.address
    foreign = urllib.request.Request(asked, headers={"Origin": "https://example.org"})  # noqa: S310 - http
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(foreign, timeout=10)  # noqa: S310 - http
    assert refused.value.headers["Access-Control-Allow-Origin"] is None


def test_reports_stay_within_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("reports/plots", "reports/page", "reports/linked"):
        Path(name).mkdir(parents=True)
    Path("secret.html").write_text("secret")
    Path("reports/page/index.html").write_text("a page")
    Path("reports/inside.html").symlink_to("page/index.html")
    for link in ("reports/outside.html", "reports/linked/index.html"):
        Path(link).symlink_to(tmp_path / "secret.html")
    Path("reports/above").symlink_to(tmp_path)
    Path("reports/circle").symlink_to("circle")
    with ui._reports(free_port()) as address:
        assert [get(f"{address}/{path}") for path in ("page/", "inside.html")] == ["a page", "a page"]
        for path in ("", "plots/", "outside.html", "linked/", "above/secret.html", "circle", "nothing", "%00"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{address}/{path}")
        assert get(f"{address.replace('127.0.0.1', 'localhost')}/page/") == "a page"
        for host in ("example.org", "127.0.0.1.example.org:80"):
            foreign = urllib.request.Request(f"{address}/page/", headers={"Host": host})  # noqa: S310 - http
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(foreign, timeout=10)  # noqa: S310 - http


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
