import http.server
import os
import re
import threading

import pytest
import typer
from typer.testing import CliRunner

from flows.commands.schedule import schedule_command
from tasks.stage import PawlineError
from tests.flows.served import Served

pytest_plugins = ["tests.flows.served"]

TIME = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d"
NO_WORKER = "no worker is at work: start one with `pawline worker`"


def schedule(*arguments: str) -> str:
    """Run the command in this process, and return what it printed."""
    app = typer.Typer()
    app.command()(schedule_command)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout


def test_setting_showing_and_removing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.in_use(monkeypatch):
        assert re.fullmatch(rf"pipeline  .*no schedule\nretrain   .*no schedule\n{NO_WORKER}\n", schedule())
        said = schedule("--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "--overlap", "skip", "--preset", "s4")
        rhythm = re.escape('at "0 3 * * *" Europe/Berlin (overlap=skip, preset=s4)')
        three = ", ".join([r"20\d\d-\d\d-\d\d 03:00:00 CES?T"] * 3)
        assert re.fullmatch(rf"retrain runs {rhythm}: next {three}\n{NO_WORKER} in another terminal\n", said)
        assert re.search(rf"^retrain   {rhythm}; next {TIME} CES?T$", schedule(), re.MULTILINE)

        with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as nobody:
            threading.Thread(target=nobody.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{nobody.server_address[1]}"
            assert (
                schedule("--webhook", f"{url}/a/secret")
                == f"failed runs of retrain and new champions are told to {url}\n"
            )
            nobody.shutdown()
        (served.folder / "below").mkdir(exist_ok=True)
        os.chdir(served.folder / "below")
        assert re.fullmatch(rf"retrain  {rhythm}; next {TIME} CES?T; webhook\n{NO_WORKER}\n", schedule("retrain"))
        assert schedule("--off") == "retrain: its schedule and its webhook removed\n"
        assert schedule("--off") == "retrain had no schedule and no webhook\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nope --every 1h", r"unknown deployment nope: prefect\.yaml has retrain, pipeline"),
        ("--every 1h --cron x", r"--cron and --every: a deployment has one schedule; give one of the two"),
        ("--every 0s", r"--every 0s: a number and a unit, such as 20s, 30m, 1h or 2d"),
        ("--cron x", r'--cron "x": no cron line; .*'),
        ("--preset s4", r"--preset belongs to a schedule: add --cron or --every"),
        ("--every 1h --timezone UTC", r"--timezone belongs to a schedule: add --cron"),
        ("--off --every 1h", r"--off removes the schedule and the webhook: give it alone"),
        ("--webhook x", r"--webhook x: no web address; .*"),
        ("--every 1h --preset nope", r"unknown preset nope: .*"),
        ("--every 1h --set train_head.epochs=none", r"params\.yaml: train_head\.epochs .*"),
        (
            "pipeline --every 1h --overlap skip",
            r"pipeline takes no overlap \(it takes: seconds\): leave the option out",
        ),
    ],
)
def test_mistakes_in_one_line(served: Served, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str) -> None:
    with served.in_use(monkeypatch), pytest.raises(PawlineError, match=f"^{said}$"):
        schedule(*arguments.split())
