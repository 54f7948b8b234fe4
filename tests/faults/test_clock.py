"""A clock that leaps under Prefect's server and its worker."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows import deployments
from tests.faults import faked_clock
from tests.faults.conftest import Report
from tests.faults.results import Fault
from tests.flows.served import make_project, wait_for

PATIENCE_SECONDS = 900.0
LEAPS = ("+0", "+1d", "+0")


def finished(client: SyncPrefectClient) -> int:
    return sum(run.state_name == "Completed" for run in client.read_flow_runs())


@pytest.mark.usefixtures("whole_suite_only")
def test_a_schedule_goes_on_when_the_clock_leaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    """A day on, and a day back; what was planned in between is not started all at once."""
    clock = faked_clock.make(tmp_path / "clock")
    for name, value in clock.env.items():
        monkeypatch.setenv(name, value)
    project = make_project(tmp_path)
    project.start()
    with project.in_use(monkeypatch) as client, ExitStack() as stack:
        stack.callback(project.stop)
        every = deployments.parse_schedule(None, "30s", "UTC")
        assert every is not None
        deployments.set_schedule(client, deployments.deploy(client, "pipeline"), every, {"seconds": 0})
        worker = stack.enter_context(project.popen("worker"))
        stack.callback(worker.terminate)
        counts = [0]
        for shift in LEAPS:
            clock.set(shift)
            wait_for(PATIENCE_SECONDS, lambda: finished(client) >= counts[-1] + 2)
            counts.append(finished(client))
        worker.terminate()
        said = worker.communicate(timeout=100)[0]
    held = [counts[1] >= 2, "missed runs cancelled" in said, "pipeline: planned anew" in said]
    seen = f"runs until then: {counts[1:]}; on: one run makes up for what was missed; back: all is planned anew"
    what = "a schedule of 30 s, while the clock leaps a day on and a day back"
    report(Fault.RESOURCES, what, tries=3, held=sum(held), seen=seen if all(held) else said)
