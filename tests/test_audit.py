"""The README's commands about versions and lineage, typed one after another in a project with real runs."""

import re
import shlex
import sys
from contextlib import chdir
from pathlib import Path

from tests.test_pipeline import run
from tests.typed import type_here

PAWLINE = [sys.executable, "-c", "from flows.cli import main; main()"]


def pawline(command: str, folder: Path, *, exit_code: int = 0) -> str:
    """Type a command of the README and return the screen."""
    done = run([*PAWLINE, *_arguments(command)], folder, check=False)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout + done.stderr


def pawline_here(command: str, folder: Path, *, exit_code: int = 0) -> str:
    """Do the same in this process, which need not start first: for a command that asks nothing."""
    with chdir(folder):
        code, screen = type_here(shlex.join(_arguments(command)))
    assert code == exit_code, screen
    return screen


def _arguments(command: str) -> list[str]:
    program, *arguments = shlex.split(command)
    assert program == "pawline"
    return arguments


def test_from_a_run_to_a_champion_and_back(three_runs: Path, tmp_path: Path) -> None:
    assert "v1.0.0" in pawline_here("pawline register", three_runs)
    pawline('pawline promote v1 --reason "first model on real photos"', three_runs)
    pawline_here("pawline promote HEAD~1", three_runs)
    assert re.search(r"v2\.0\.0.*\*|\*.*v2\.0\.0", pawline_here("pawline models", three_runs))
    pawline_here("pawline rollback", three_runs)
    assert re.search(r"v1\.0\.0.*\*|\*.*v1\.0\.0", pawline_here("pawline models", three_runs))
    fetched = tmp_path / "model.keras"
    run(["dvc", "artifacts", "get", ".", "classifier", "--stage", "champion", "--out", str(fetched)], three_runs)
    assert fetched.read_bytes() == (three_runs / "models/classifier.keras").read_bytes()
    card = pawline_here("pawline card v1", three_runs)
    assert card.startswith("---\n")
    assert "synthetic" in card

    assert "v1.0.0" in pawline_here(f"pawline lineage {fetched}", three_runs)
    pawline_here("pawline lineage v1 --html lineage.html", three_runs)
    assert "<svg" in (three_runs / "lineage.html").read_text(encoding="utf-8")
    assert "data.synthetic_images" in pawline_here("pawline lineage v1 v2", three_runs)
    assert "verified: v1.0.0" in pawline("pawline verify v1", three_runs)
    assert "would not run" in pawline_here("pawline why train_head", three_runs)
    assert len(pawline_here("pawline why", three_runs).splitlines()) >= 11
    assert "delete this?" in pawline("pawline gc", three_runs, exit_code=1), "the first run is no version yet"
    pawline_here("pawline register HEAD~2", three_runs)
    assert "nothing" in pawline_here("pawline gc", three_runs)
    assert run(["git", "fsck", "--strict"], three_runs).stdout == ""
    assert run(["dvc", "status"], three_runs).stdout == "source:\n\talways changed\n"


def test_a_clone_fetches_what_a_version_needs_and_verifies_it(three_runs: Path, tmp_path: Path) -> None:
    pawline_here("pawline register HEAD~1", three_runs)
    pawline_here("pawline register", three_runs)
    assert pawline_here("pawline push", three_runs, exit_code=1).startswith("error: no remote is configured")
    add_remote = ["dvc", "remote", "add", "--default", "--local", "store", str(tmp_path / "store")]
    run(add_remote, three_runs)
    assert "store does not exist (" in pawline_here("pawline push", three_runs, exit_code=1)
    (tmp_path / "store").mkdir()
    assert re.search(r"v1\.0\.0: \d+ files copied to store", pawline_here("pawline push", three_runs))
    assert "v1.0.0: no files copied to store" in pawline_here("pawline push", three_runs)

    clone = tmp_path / "clone"
    run(["git", "clone", "--quiet", str(three_runs), str(clone)], tmp_path)
    assert "MISSING" in pawline_here("pawline verify v1", clone, exit_code=1)
    run(add_remote, clone)
    assert "verified: v1.0.0" in pawline_here("pawline verify v1 --fetch", clone)


def test_a_strangers_model_is_unknown(three_runs: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "model.keras"
    stranger.write_bytes((three_runs / "models/classifier.keras").read_bytes() + b"\0")
    said = pawline(f"pawline lineage {stranger}", three_runs, exit_code=1)
    assert said.startswith("error: ")
    assert "unknown" in said
    assert said.count("\n") == 1
