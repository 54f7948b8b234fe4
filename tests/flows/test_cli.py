import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelling
from typer.testing import CliRunner

from flows import experiments
from flows.cli import app
from flows.commands import pipeline as pipeline_command
from flows.pipeline import pipeline
from tasks.parallel import available_processors
from tests.flows.conftest import FAILS, PARAMS, QUIET_DVC, SLEEPS, dvc, empty_database, processes_in, with_meta

PAWLINE = str(Path(sys.executable).with_name("pawline"))


def start(*arguments: str, cwd: Path, prefect_url: str | None = None) -> subprocess.Popen[str]:
    """Start `pawline` as a terminal does: in a process group of its own. No URL: with a temporary Prefect server."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    if prefect_url is not None:
        env["PREFECT_API_URL"] = prefect_url
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [PAWLINE, *arguments], cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def run(*arguments: str, cwd: Path, prefect_url: str | None = None) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    process = start(*arguments, cwd=cwd, prefect_url=prefect_url)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def run_here(*arguments: str) -> str:
    """Run a command that succeeds in this process, from the current folder, and return what it says."""
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"ended without {words!r}")


def test_help_comes_at_once_and_teaches(tmp_path: Path) -> None:
    code = "import sys, flows.cli; print([m for m in ('prefect', 'dvc', 'tensorflow', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
    lines = run("--help", cwd=tmp_path)[1].splitlines()
    assert len(lines) <= 35, "one screen"
    for name, option in (
        ("run", "--preset"),
        ("presets", "--dvc"),
        ("sweep", "--jobs"),
        ("lineage", "--cyclonedx"),
        ("verify", "--fetch"),
        ("promote", "--reason"),
        ("retrain", "--overlap"),
        ("schedule", "--timezone"),
        ("report", "--no-times"),
        ("predict", "--unsure-below"),
        ("serve", "--max-mb"),
        ("cancel", "RUN"),
    ):
        assert any(line.split()[:1] == [name] and not line.endswith("...") for line in lines)
        out = run_here(name, "--help")
        assert option in out
        assert f"  pawline {name} " in out


def test_what_cannot_start_gets_one_line(project: Path, tmp_path: Path) -> None:
    exit_code, out, err = run("run", cwd=tmp_path)
    assert (exit_code, out) == (1, "")
    assert err == f"error: no dvc.yaml in {tmp_path} or above it: change to a checkout of Pawline first\n"
    exit_code, out, err = run("run", "jion", cwd=project)
    assert (exit_code, out) == (1, "")
    assert err == "error: unknown stage jion: dvc.yaml has source, left, right, join\n"
    exit_code, out, err = run("run", cwd=project, prefect_url="http://127.0.0.1:9/api")
    assert exit_code == 1
    assert err.startswith("error: no Prefect server at http://127.0.0.1:9/api")
    assert err.count("\n") == 1


def test_a_failed_stage_gets_one_line_and_exit_code_1(project: Path, prefect_url: str) -> None:
    (project / "tasks/source.py").write_text(FAILS)
    exit_code, out, err = run("run", cwd=project, prefect_url=prefect_url)
    assert (exit_code, err) == (1, "error: stage source failed: no photos in x: set data.path\n")
    assert "source     | trying" in out
    assert "Traceback" not in out
    assert "left " not in out


def test_ctrl_c_ends_everything_soon(project: Path, shared_folder: Path) -> None:
    (project / ".prefect").mkdir()
    shutil.copy(empty_database(shared_folder), project / ".prefect/prefect.db")
    for name in ("left", "right"):
        (project / f"tasks/{name}.py").write_text(SLEEPS.format(name=name))
    process = start("run", cwd=project)
    for _ in range(min(2, available_processors())):
        read_until(process, "asleep")
    assert any("tasks.right" in command or "tasks.left" in command for command in processes_in(project))
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the temporary server too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted: the next run carries on from here\n"
    assert time.monotonic() - started < 15
    assert processes_in(project) == []
    with sqlite3.connect(project / ".prefect/prefect.db") as database:  # Prefect's home is the project's own
        assert database.execute("SELECT count(*) FROM flow_run").fetchall() == [(1,)]
    assert "source" in dvc("status")  # DVC is not locked


def test_a_run_that_is_cancelled_on_prefects_page_ends_soon(project: Path, prefect_url: str) -> None:
    (project / "tasks/left.py").write_text(SLEEPS.format(name="left"))
    with_meta(project, "left", "{prefect: {retries: 5}}")
    process = start("run", "left", cwd=project, prefect_url=prefect_url)
    read_until(process, "asleep")
    with get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(limit=1, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        client.set_flow_run_state(last.id, Cancelling())
        started = time.monotonic()
        _, err = process.communicate(timeout=60)
        assert (process.returncode, client.read_flow_run(last.id).state_name) == (1, "Cancelled")
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[last.id])))
        assert {run.name: run.state_name for run in runs} == {"source": "Completed", "left": "Cancelled"}
    assert err == "error: the run was cancelled in Prefect: `pawline run` carries on from there\n"
    assert time.monotonic() - started < 15
    (project / "go").touch()
    assert pipeline(["left"]) == {"source": "Completed", "left": "Completed"}


def test_others_wait_for_the_first_even_if_that_was_killed_and_share_the_work(project: Path, prefect_url: str) -> None:
    (project / "tasks/source.py").write_text(SLEEPS.format(name="source"))
    first = start("run", "left", cwd=project, prefect_url=prefect_url)
    read_until(first, "asleep")
    others = [start("run", "left", cwd=project, prefect_url=prefect_url) for _ in range(2)]
    for other in others:
        read_until(other, "another pawline run is at work in this project: waiting for it to end")
    first.kill()  # its `dvc repro` goes on
    assert any("tasks.source" in command for command in processes_in(project))
    (project / "go").touch()
    first.communicate()
    ends = [other.communicate(timeout=120) for other in others]
    assert [(other.returncode, err) for other, (_, err) in zip(others, ends, strict=True)] == [(0, "")] * 2
    last_lines = sorted((out.splitlines()[-1] for out, _ in ends), reverse=True)  # either may be the next
    assert last_lines[0].startswith("2 of 2 stages run, 0 cached")
    assert last_lines[1].startswith("1 of 2 stages run, 1 cached")


def test_a_run_waits_for_dvc(project: Path, prefect_url: str) -> None:
    (project / "tasks/left.py").write_text(SLEEPS.format(name="left"))
    command = [sys.executable, "-m", "dvc", "repro"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=project, env=os.environ | {"PATH": path}, stdout=pipe, text=True) as first:
        read_until(first, "asleep")
        second = start("run", cwd=project, prefect_url=prefect_url)
        read_until(second, "dvc repro is at work in this project: waiting for it to end")
        (project / "go").touch()
        first.communicate()
    out, err = second.communicate(timeout=120)
    assert (first.returncode, second.returncode, err) == (0, 0, "")
    assert out.splitlines()[-1].startswith("1 of 4 stages run, 3 cached")


def test_presets_are_listed_shown_and_given_to_dvc(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "docs").mkdir()
    monkeypatch.chdir(project / "docs")
    described = dict(line.split(maxsplit=1) for line in run_here("presets").splitlines())
    assert described.keys() == {path.stem for path in (project / "presets").iterdir()}
    assert described["s4"].startswith("Head at 1e-3, then the last 100 layers")
    assert run_here("presets", "s4") == (project / "presets/s4.yaml").read_text(encoding="utf-8")
    out = run_here("presets", "s4", "--dvc")
    assert out.count("\n") == 1
    assert " --set-param train_head.hidden_units=[] " in out
    exit_code, _, err = run("presets", "s9", cwd=project)
    assert (exit_code, err.count("\n")) == (1, 1)
    assert err.startswith("error: unknown preset s9: (known here: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "s44"], "unknown preset s44: did you mean s4? (known here: "),
        (["--preset", "s4", "--set", "train_head.epoch=5"], "params.yaml: unknown key train_head.epoch: did you mean"),
        (["--set", "train_head.epochs=0"], "params.yaml: train_head.epochs is 0: allowed is an integer at least 1"),
        (["--set", "train_head.epochs=3", "--name", "a b"], "--name a b: use letters, digits, - and _"),
    ],
)
def test_what_is_wrong_with_settings_shows_before_anything_happens(
    arguments: list[str], message: str, project: Path
) -> None:
    before = (project / "params.yaml").stat()
    exit_code, out, err = run("run", *arguments, cwd=project)
    assert (exit_code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {message}")
    assert (project / "params.yaml").stat().st_mtime_ns == before.st_mtime_ns


def test_a_typo_in_params_yaml_shows_before_prefect_starts(project: Path) -> None:
    (project / "params.yaml").write_text(PARAMS.replace("dropout:", "dorpout:"))
    exit_code, out, err = run("run", cwd=project, prefect_url="http://127.0.0.1:9/api")
    assert (exit_code, out) == (1, "")
    assert err.startswith("error: params.yaml: unknown key train_head.dorpout: did you mean dropout?")


def test_a_run_from_a_folder_within_ends_with_what_came_out_and_is_kept_as_an_experiment(
    project: Path, prefect_url: str
) -> None:
    (project / "docs/photos").mkdir(parents=True)
    metrics = project / "reports/metrics/evaluation.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"accuracy": 0.98765, "selected": "stage2", "split": "test"}))
    (project / "reports/index.html").touch()
    arguments = ["--preset", "s4", "--set", "data.path=photos", "--set", "train_head.dropout=0.5"]
    exit_code, out, err = run("run", *arguments, cwd=project / "docs", prefect_url=prefect_url)
    assert (exit_code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "pawline    | data.source is directory instead of archive: data.path is a folder"
    assert lines[1] == "pawline    | starting Prefect"
    assert "source     | > python -m tasks.source" in lines
    assert lines[-2].startswith("4 of 4 stages run, 0 cached, in ")
    assert lines[-2].endswith(" s; test accuracy 0.9877 (stage2); see reports/index.html")
    assert (project / "join.txt").exists()
    assert list((project / "docs").rglob("*")) == [project / "docs/photos"]
    assert out.count("data.source is directory") == 1
    assert out.count("pawline    | params.yaml has the settings now; `git diff params.yaml` shows them\n") == 1
    assert lines[-1] == (
        "kept as s4-1: `dvc exp show` compares experiments; "
        "back to the committed settings: `git checkout params.yaml dvc.lock && dvc checkout`, "
        "or `pawline run` after the first if they never ran here"
    )
    written = (project / "params.yaml").read_text(encoding="utf-8")
    assert "  path: docs/photos          # archive" in written
    assert "  dropout: 0.5\n" in written
    assert experiments.experiment_names() == {"s4-1"}
    # The same once more is the same experiment.
    again = pipeline_command._keep(["source", "left", "right", "join"], name=None, prefix="s4")
    assert (again, experiments.experiment_names()) == (lines[-1], {"s4-1"})
    exit_code, out, err = run("run", *arguments, cwd=project)
    assert (exit_code, out, err) == (1, "", "error: data.path is 'photos': no such file or folder\n")
    exit_code, out, err = run("run", "--name", "s4-1", cwd=project)
    assert (exit_code, out, err) == (1, "", "error: --name s4-1: there is an experiment of that name; choose another\n")


def test_without_git_a_run_goes_on_and_is_not_kept(project: Path) -> None:
    (project / ".dvc/config").write_text(QUIET_DVC + "    no_scm = true\n")
    shutil.rmtree(project / ".git")
    no_server = "http://127.0.0.1:9/api"
    out = run("run", "--set", "train_head.dropout=0.5", cwd=project, prefect_url=no_server)[1]
    assert "is not kept as a DVC experiment: that needs a git repository with a commit" in out.splitlines()[0]
    assert out.splitlines()[1:] == ["pawline    | starting Prefect"]
    assert (project / "params.yaml").read_text() == PARAMS, "nothing is written before Prefect is there"
    for arguments in (["run", "--name", "mine"], ["sweep", "train_head.dropout=0,0.1"]):
        exit_code, out, err = run(*arguments, cwd=project)
        assert (exit_code, out, err.count("\n")) == (1, "", 1)
        assert "git repository with a commit" in err


def test_a_sweep_ends_with_a_table_a_picture_and_the_best_command(project: Path) -> None:
    swept = ["train_head.dropout=0.3,0.7,0", "train_head.learning_rate=1e-3"]
    exit_code, out, err = run("sweep", *swept, "--set", "fine_tune.epochs=1", cwd=project)
    assert exit_code == 1  # one failed
    assert (
        "sweep1-2 failed: nothing is left to train (with train_head.dropout=0.7 train_head.learning_rate=1e-3)" in err
    )
    lines = [line.split() for line in out.splitlines()]
    assert ["best", "sweep1-3", "0", "1e-3", "1", "0.0010"] in lines
    assert ["sweep1-1", "0.3", "1e-3", "0.7000", "0.0010"] in lines
    assert out.splitlines()[-1].endswith(
        "`dvc exp apply sweep1-3` takes the best over, or: pawline run --set fine_tune.epochs=1 "
        "--set train_head.dropout=0 --set train_head.learning_rate=1e-3"
    )
    header, best, *_ = (project / "reports/sweeps/sweep1.csv").read_text().splitlines()
    assert header == "experiment,train_head.dropout,train_head.learning_rate,val_accuracy,val_loss,best.epoch"
    assert best == "sweep1-3,0,1e-3,1,0.001,20"
    assert (project / "reports/sweeps/sweep1.png").stat().st_size > 10_000
    # A stage that runs before the experiments, once, reads this one.
    assert (project / "params.yaml").read_text(encoding="utf-8") == PARAMS.replace("epochs: 6", "epochs: 1")
    exit_code, _, err = run("sweep", *swept, "--name", "sweep1", cwd=project)
    assert (exit_code, err.count("\n")) == (1, 1)
    assert err.startswith("error: --name sweep1: there are experiments of that name, such as sweep1-1")


def test_a_sweep_with_an_impossible_combination_does_not_start(project: Path) -> None:
    exit_code, out, err = run("sweep", "train_head.dropout=0,0.5,1.5", cwd=project)
    assert (exit_code, out) == (1, "")
    assert err.startswith("error: params.yaml: train_head.dropout is 1.5: allowed is ")
    assert err.endswith(" (with train_head.dropout=1.5)\n")
    assert not (project / "source.txt").exists()


def test_ctrl_c_ends_a_sweep_and_keeps_what_is_done(recorded: Path) -> None:
    arguments = ["train_head.dropout=0.1,0.8", "--jobs", "1", "--set", "train_head.epochs=2"]
    process = start("sweep", *arguments, cwd=recorded)
    read_until(process, "2 experiments, each of join, 1 at a time")
    deadline = time.monotonic() + 60
    while "sweep1-1" not in experiments.experiment_names() or not any(
        "tasks.join" in command for command in processes_in(recorded)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: `dvc exp show` has the experiments that were finished"
    assert processes_in(recorded) == []
    assert experiments.experiment_names() == {"sweep1-1"}
    assert list((recorded / ".dvc/tmp/exps").glob("tmp*")) == []
    assert (recorded / "params.yaml").read_text(encoding="utf-8") == PARAMS
