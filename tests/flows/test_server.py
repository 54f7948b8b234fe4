import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import server
from flows.server import Server
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.flows.served import Served

pytest_plugins = ["tests.flows.served"]

# Where Prefect is when a command has found the server, and what its children would see.
SHOW = """\
import os, sys
from flows import server
{before}
server.{call}()
from prefect.settings import get_current_settings
os.chdir("reports")
settings = get_current_settings()
print(settings.api.url, settings.home, os.environ["PREFECT_API_URL"], settings.server.analytics_enabled)
"""


def show(project: Served, call: str, before: str = "") -> list[str]:
    """Return what a new process in the project's folder finds."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(call=call, before=before)],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_commands_find_the_projects_server(served: Served) -> None:
    api = f"{served.address}/api"
    expected = [api, str(served.folder / ".prefect"), api, "False"]
    assert show(served, "require") == expected
    # Prefect may have been imported before; its home was fixed then.
    late = show(served, "connect", before="import prefect.client.orchestration")
    assert [late[0], *late[2:]] == [api, api, "False"]


def test_no_server_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.delenv(server.API_VARIABLE, raising=False)
    with pytest.raises(PawlineError, match=r"^no Prefect server: start one with `pawline ui` in another terminal$"):
        server.require()
    monkeypatch.setenv(server.API_VARIABLE, "http://127.0.0.1:9/api")
    with pytest.raises(PawlineError, match=r"^no Prefect server at http://127\.0\.0\.1:9/api: start it, or unset"):
        server.require()


def test_an_address_that_lacks_its_end(served: Served, tmp_path: Path) -> None:
    for call in ("require", "connect"):
        done = subprocess.run(
            [sys.executable, "-c", f"from flows import server; server.{call}()"],
            cwd=tmp_path,
            env={**served.environment, server.API_VARIABLE: f"{served.address}/"},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stderr.splitlines()[-1]
        assert re.search(rf": no Prefect server at {served.address}/?: did you mean .*={served.address}/api\?$", said)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"address": "of another version"}', "\0" * 99])
def test_a_damaged_note_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (tmp_path / server.NOTE).write_text(text)
    assert (server.noted(), server.running()) == (None, None)


def test_a_note_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "note.json", []

    def fsync(file: int) -> None:
        synced.append((os.fstat(file).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    server.write_json(path, {"a": 1})
    assert (synced, json.loads(path.read_text())) == ([(8, False)], {"a": 1})


def test_a_note_that_outlived_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    alive = psutil.Process().create_time()
    (tmp_path / "reports").mkdir()
    for started, found in ((alive, True), (alive - 3600, False)):  # the id is another process's by now
        note = Server(served.address, "http://127.0.0.1:9", str(tmp_path / "reports"), os.getpid(), started)
        server.note(note)
        assert server.running() == (note if found else None)
        page = server.report_url(Path("reports/of a run/index.html"))
        inside = "http://127.0.0.1:9/of%20a%20run/index.html"
        assert page == (inside if found else str(tmp_path / "reports/of a run/index.html"))
    server.note(Server("http://127.0.0.1:9", "", "", os.getpid(), alive))
    assert server.running() is None  # alive, but it does not answer
    assert server.report_url(Path("elsewhere.html")) == str(tmp_path / "elsewhere.html")
    server.note(None)
    assert server.noted() is None


def test_processes_that_are_no_more() -> None:
    process = subprocess.Popen(["sleep", "60"])
    started = psutil.Process(process.pid).create_time()
    assert server.is_alive(process.pid, started)
    process.kill()
    time.sleep(0.2)
    assert not server.is_alive(process.pid, started)  # nobody has waited for it yet
    process.wait()
    assert not server.is_alive(process.pid, started)


def test_prefects_home(tmp_path: Path) -> None:
    shown = "from flows import server; import os, json; server.prepare(); print(json.dumps(dict(os.environ)))"
    for given, expected in (({}, tmp_path / ".prefect"), ({"PREFECT_HOME": "mine"}, tmp_path / "mine")):
        environment = {key: value for key, value in os.environ.items() if key != "PREFECT_HOME"} | given
        done = subprocess.run(
            [sys.executable, "-c", shown], cwd=tmp_path, env=environment, capture_output=True, check=True
        )
        assert Path(json.loads(done.stdout)["PREFECT_HOME"]) == expected


def test_a_home_that_cannot_be_written_is_one_line(workdir: Path) -> None:
    (workdir / "file").touch()
    code = "from flows import server; server.prepare()"
    env = {**os.environ, "PREFECT_HOME": str(workdir / "file/home")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    advice = "Not a directory: Prefect keeps its records there; set PREFECT_HOME to a folder of yours"
    assert done.stderr.splitlines()[-1].endswith(advice)


KILLED = """
import os, signal, subprocess, sys
from flows import server

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", server.SERVER_APP])
server._end_with_this_process()
print(child.pid, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_temporary_server_ends_with_the_process_that_is_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.communicate("now\n", timeout=60)
    assert process.returncode == -signal.SIGKILL
    child.wait(60)
