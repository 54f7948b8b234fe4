"""Progress: sparse lines where there is no terminal, a bar where there is one."""

import io
import sys

import pytest

from tasks import progress
from tasks.progress import Progress, track


def test_nothing_is_said_about_short_work(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("ingest", total=10) as counter:
        counter.advance(10)
    assert capsys.readouterr().err == ""


def test_a_line_with_count_share_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 104.0, 110.0, 110.0, 110.0])
    monkeypatch.setattr("tasks.progress.time.monotonic", lambda: next(clock))
    with Progress("features", total=4000, unit="views") as counter:
        counter.advance(400)  # after 4 s: too soon for a line
        counter.advance(600)
    assert capsys.readouterr().err == "features: 1,000/4,000 views (25%), 100/s, 30 s left\n"


def test_a_line_without_a_total(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 20.0, 20.0, 20.0])
    monkeypatch.setattr("tasks.progress.time.monotonic", lambda: next(clock))
    with Progress("download", total=None, unit="MB") as counter:
        counter.advance(50)
    assert capsys.readouterr().err == "download: 50 MB, 2/s\n"


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    assert list(track("abc", "ingest", total=3)) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" images")[0] for line in lines] == ["ingest: 1/3", "ingest: 2/3", "ingest: 3/3"]


class Terminal(io.StringIO):
    """A terminal, as far as `Progress` can see."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track(range(5), "ingest", total=5)) == [0, 1, 2, 3, 4]
    shown = terminal.getvalue()
    assert "ingest:" in shown
    assert "0/5" in shown
    assert "\n" not in shown  # it rewrites one line and clears it
