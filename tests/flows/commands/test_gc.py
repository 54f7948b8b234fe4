"""`pawline gc` shows what goes and for whom the rest stays, asks, and frees."""

import hashlib
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.commands.forget import forget_command
from flows.commands.gc import gc_command
from lineage.runs import Project, experiments
from registry.places import named_objects
from tasks.stage import PawlineError
from tests.flows.conftest import SLEEPS, dvc
from tests.plumbing import git
from tests.registry.test_retention import add_unneeded, register


def test_it_shows_and_asks_before_it_frees(
    three_runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "tag", "classifier@v1.0.0", "HEAD~1"], check=True)
    before = sorted(Path(".dvc/cache/files").rglob("*"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    gc_command()
    shown = capsys.readouterr().out
    assert "v1.0.0 needs " in shown
    assert "workspace, master needs " in shown
    assert "models/stage1 of commit " in shown
    assert "'First run'" in shown
    assert shown.endswith("nothing was deleted\n")
    assert sorted(Path(".dvc/cache/files").rglob("*")) == before
    gc_command(yes=True)
    assert "\nfreed 3" in capsys.readouterr().out
    assert set(Path(".dvc/cache/files").rglob("*")) < set(before)
    gc_command()
    assert capsys.readouterr().out.endswith("nothing to free: everything there is needed\n")


class AfterThought:
    """A standard input of somebody who does something else first, then answers yes."""

    def __init__(self, first: Callable[[], object]) -> None:
        self._first = first

    def readline(self, _: int = -1) -> str:
        self._first()
        return "y\n"


@pytest.mark.parametrize("kept_by", ["version", "branch"])
def test_what_somebody_needs_by_the_time_it_is_answered_stays(
    kept_by: str, one_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(one_run)
    git("checkout", "--quiet", "--detach")
    Path("data/raw/raw-00000.parquet").write_bytes(b"other photos")
    dvc("commit", "--force", "--quiet", "ingest")
    git("commit", "--quiet", "--all", "--message", "Other photos")
    commit, changed = git("rev-parse", "HEAD"), Path("data/raw/raw-00000.parquet").read_bytes()
    git("checkout", "--quiet", "main")
    unneeded = add_unneeded(one_run / ".dvc/cache")
    keep = {
        "version": lambda: register(project, "v1.0.0", commit),
        "branch": lambda: git("branch", "kept", commit),
    }
    monkeypatch.setattr(sys, "stdin", AfterThought(keep[kept_by]))
    gc_command()
    shown = capsys.readouterr().out
    assert "in 3 objects\ndelete this?" in shown
    assert "freed 0 B in 1 objects" in shown
    assert not unneeded.exists()
    assert project.store.has(hashlib.md5(changed, usedforsecurity=False).hexdigest())


def test_what_dvc_left_unfinished_goes(one_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = one_run / ".dvc/cache/files/md5/ab/.vNf7.tmp"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"a photo")
    gc_command(yes=True)
    assert half.exists(), "somebody may be at work on it"
    os.utime(half, (1, 1))
    capsys.readouterr()
    gc_command(yes=True)
    shown = capsys.readouterr().out
    assert "goes from the cache: 7 B in 1 unfinished, of a DVC that was killed\n" in shown
    assert "freed 7 B in 1 objects" in shown
    assert not half.exists()
    gc_command(yes=True)
    assert capsys.readouterr().out.endswith("nothing to free: everything there is needed\n")


def test_pages_of_retrainings_without_a_version_go_with_their_experiments(
    three_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = subprocess.check_output(["git", "rev-parse", "HEAD~1"], text=True).strip()
    subprocess.run(["git", "update-ref", f"refs/exps/{refused[:2]}/{refused[2:]}/retrain-1", refused], check=True)
    for name in ("retrain-1", "somebody's"):
        (Path("reports/retrain") / name).mkdir(parents=True)
        (Path("reports/retrain") / name / "gate.html").write_text("x" * 2000)
    gc_command(yes=True)
    assert Path("reports/retrain/retrain-1").is_dir()
    gc_command(yes=True, drop_experiments=True)
    shown = capsys.readouterr().out
    assert "goes from reports/retrain: 2.0 kB, pages of 1 that brought no version" in shown
    assert re.search(r"^freed .* objects and pages of 1 retrainings, and", shown, re.MULTILINE)
    assert [path.name for path in Path("reports/retrain").iterdir()] == ["somebody's"]
    gc_command(yes=True)
    shown = capsys.readouterr().out
    assert re.search(r"  retrain-1 needs .* objects are not in the cache\)", shown), "it keeps what is left of it"
    assert shown.endswith("nothing to free: everything there is needed\n")


@contextmanager
def asleep(project: Path, *arguments: str) -> Iterator[int]:
    """Start DVC, wait until its stage is at work, yield DVC's process id, and let it finish."""
    (project / "asleep.txt").unlink(missing_ok=True)
    command = [sys.executable, "-m", "dvc", *arguments]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PATH": path}
    ) as process:
        try:
            while not (project / "asleep.txt").exists():
                assert process.poll() is None, process.stdout and process.stdout.read()
                time.sleep(0.05)
            yield process.pid
        finally:
            (project / "go.txt").touch()
            process.communicate()
    (project / "go.txt").unlink()
    assert process.returncode == 0


@pytest.mark.parametrize("arguments", [("repro", "left"), ("exp", "run", "--temp", "--name", "aside", "left")])
def test_nothing_is_deleted_under_a_stage_at_work(
    project: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    script = SLEEPS.format(name="left").replace('"go"', f'"{project}/go.txt"')
    Path("tasks/left.py").write_text(script.replace("while", f'Path("{project}/asleep.txt").touch()\nwhile'))
    unneeded = project / ".dvc/cache/files/md5/d4/1d8cd98f00b204e9800998ecf8427e"
    unneeded.parent.mkdir(parents=True)
    unneeded.touch()
    with asleep(project, *arguments) as pid:
        line = re.escape(
            f"dvc {' '.join(arguments)} is at work here (pid {pid}): wait for it to end and run this again"
        )
        with pytest.raises(PawlineError, match=f"^{line}$"):
            gc_command(yes=True)
        with pytest.raises(PawlineError, match=f"^{line}$"):
            forget_command(["abcdef"], yes=True)
        assert unneeded.exists()
    gc_command(yes=True)
    assert "\nfreed 0 B in 1 objects" in capsys.readouterr().out
    here = Project(project)
    for run in experiments(here):
        made = named_objects(here.read(run, "dvc.lock") or b"", origin=run.name)
        assert [path for md5, path in made.items() if here.store.has(md5)] == ["source.txt", "left.txt"]
    assert [run.name for run in experiments(here)] == (["aside"] if "exp" in arguments else [])
