import json
from pathlib import Path

import pytest

from benchmarks import commands


def test_every_command_is_started_and_python_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "COMMANDS", dict.fromkeys(["why", "models"]))
    results = tmp_path / "figures.json"
    results.write_text('{"other": 1}')
    commands.main(["--rounds", "1", "--results", str(results)])
    kept = json.loads(results.read_text())
    seconds = kept["commands"]["seconds"]
    assert list(seconds) == ["models", "python", "why"]
    assert 0 < seconds["python"] < seconds["why"]
    assert kept["other"] == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["python", "why", "models"]
