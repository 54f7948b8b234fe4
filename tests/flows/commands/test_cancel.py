import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import typer
from typer.testing import CliRunner

from flows import deployments
from flows.commands.cancel import cancel_command
from tasks.stage import PawlineError
from tests.flows.commands.test_worker import at_work
from tests.flows.served import Served, state_of, wait_for

pytest_plugins = ["tests.flows.served"]

# A run that records on a temporary server: all there is of it is its note.
ALONE = """\
import dataclasses, os, psutil, time
from flows import liveness, server
note = liveness.Note("r-1", "lonely-otter", os.getpid(), psutil.Process().create_time())
server.write_json(server.home() / "runs/r-1.json", dataclasses.asdict(note))
time.sleep(60)
"""


def cancel(*arguments: str) -> str:
    """Run the command in this process, and return what it printed."""
    app = typer.Typer()
    app.command()(cancel_command)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout


def test_runs_of_a_worker_and_of_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.in_use(monkeypatch) as client, at_work(served), _alone(served) as alone:
        deployment = deployments.find(client, "retrain") or deployments.deploy(client, "retrain")
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"seconds": 60})
        wait_for(60, lambda: len(served.notes()) == 2)
        listed = rf"{run.name} \(Running since [\d:]+\), lonely-otter \(process {alone.pid}\)"
        with pytest.raises(PawlineError, match=rf"^several runs are at work, name one of them: {listed}$"):
            cancel()
        with pytest.raises(PawlineError, match=rf"^no run nope is at work; at work: {listed}$"):
            cancel("nope")
        assert cancel("r-1") == "cancelling lonely-otter\nlonely-otter is over: its process has ended\n"
        assert (alone.wait(5), state_of(run, client)) == (-signal.SIGTERM, "Running")
        (served.folder / ".prefect/runs/r-1.json").unlink()
        assert cancel() == f"cancelling {run.name}\n{run.name} is over: Cancelled\n"
        assert served.notes() == []
        with pytest.raises(PawlineError, match=r"^no run is at work$"):
            cancel()


@contextmanager
def _alone(served: Served) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", ALONE], cwd=served.folder, env=served.environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        (served.folder / ".prefect/runs/r-1.json").unlink(missing_ok=True)
