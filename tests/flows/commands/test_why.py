"""`pawline why` as a user types it."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows.commands.why import why_command
from tasks.stage import PawlineError
from tests.test_pipeline import set_params

app = typer.Typer()
app.command()(why_command)


def why(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_screen_and_the_document_say_the_same(three_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_params(three_runs, {"train_head.dropout": 0.3})
    lock = (three_runs / "dvc.lock").read_bytes()
    monkeypatch.chdir(three_runs / "tasks")  # from within the project
    lines = why().splitlines()
    assert len(lines) == 13
    assert lines[6] == "train_head will run: train_head.dropout 0.2 -> 0.3"
    assert why("train_head").splitlines() == ["train_head will run:", "  train_head.dropout 0.2 -> 0.3"]
    document = json.loads(why("train_head", "--json"))
    assert document["verdict"] == "runs"
    assert [reason["about"] for reason in document["reasons"]] == ["train_head.dropout"]
    assert [stage["stage"] for stage in json.loads(why("--json"))["stages"]][:2] == ["source", "ingest"]
    assert (three_runs / "dvc.lock").read_bytes() == lock, "nothing is run or written"


def test_no_run_and_no_stage(three_runs: Path) -> None:
    with pytest.raises(PawlineError, match=r"unknown stage nope: .* source"):
        why("nope")
    (three_runs / "dvc.lock").unlink()
    assert why() == why("features") == "nothing ran yet: `dvc repro` runs all 13 stages\n"
    with pytest.raises(PawlineError, match="unknown stage nope"):
        why("nope")
