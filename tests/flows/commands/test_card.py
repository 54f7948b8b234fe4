import os
from pathlib import Path

import pytest
import typer
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from flows.commands.card import card_command
from tasks.stage import PawlineError
from tests.plumbing import git, keep_in_registry

SIGNED = "---\nlicense: unknown\n---\n\n# As it was signed\n"


def card(*arguments: str, within: Path) -> str:
    """Run the command as from a folder within the project, and return what it printed."""
    os.chdir(within)
    app = typer.Typer()
    app.command()(card_command)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout


def test_cards_of_runs_versions_and_the_champion(three_runs: Path) -> None:
    workspace = card(within=three_runs)
    assert ModelCard(workspace).data["library_name"] == "keras"
    assert "# Pawline classifier (workspace)\n" in workspace
    assert "# Pawline classifier (HEAD\\~1)\n" in card("HEAD~1", within=three_runs)

    data = three_runs / "data"
    assert card("--out", "c.md", "--html", "c.html", within=data) == (
        "c.md: the card of workspace\nc.html: the card of workspace; open it in a browser\n"
    )
    assert (data / "c.md").read_text(encoding="utf-8") == workspace
    assert "<h1>Pawline classifier (workspace)</h1>" in (data / "c.html").read_text(encoding="utf-8")
    (data / "c.md").rename(data / "elsewhere.md")
    (data / "c.md").symlink_to("elsewhere.md")
    card("HEAD~1", "--out", "c.md", within=data)
    assert "(HEAD\\~1)" in (data / "elsewhere.md").read_text(encoding="utf-8"), "a link is written through"
    (data / "c.md").unlink()
    with pytest.raises(PawlineError, match=r"^--out c\.html/c\.md: .*: choose another place$"):
        card("--out", "c.html/c.md", within=data)
    with pytest.raises(PawlineError, match=r"^nothing is no file, version, experiment, git revision or hash"):
        card("nothing", within=data)

    git("tag", "-a", "classifier@v1.0.0", "-m", "v1", "HEAD~2")
    git("tag", "-a", "classifier@v2.0.0", "-m", "v2", "HEAD~1")
    keep_in_registry("versions/v2.0.0/card.md", SIGNED)
    assert card("v2", within=data) == SIGNED
    assert "# Pawline classifier v1.0.0\n" in card("v1", within=data)  # tagged without Pawline: made now
    assert card("../models/classifier.keras", within=data) == workspace
    git("tag", "-a", "classifier#champion#1", "-m", "champion", "HEAD~1")
    assert card(within=data) == card("champion", within=data) == SIGNED
