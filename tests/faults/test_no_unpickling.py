"""Nothing here unpickles, evaluates or hands text to a shell: in no line of code, and in no run."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.conftest import Report
from tests.faults.results import Fault

PACKAGES = ("tasks", "flows", "inference", "lineage", "registry", "benchmarks")
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "torch", "yaml"}
NAMES = {"eval", "exec", "__import__", "compile"}
CALLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pd.read_pickle", "np.load"}
OPTIONS = {"allow_pickle": True, "shell": True, "safe_mode": False}
WATCH = """
import os, sys, traceback
def watch(event, arguments):
    if event == "pickle.find_class":
        frame, files = sys._getframe(), []
        while frame:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        if not any(part in file for file in files for part in ("multiprocessing", "concurrent/futures")):
            with open(os.environ["UNPICKLED"], "a") as log:
                log.write(f"{arguments} from {[file for file in files if 'importlib' not in file][:6]}\\n")
sys.addaudithook(watch)
"""


def offences(source: str) -> Iterator[str]:
    """Yield what a module does that could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"import {name}" for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    options = {one.arg: ast.unparse(one.value) for one in node.keywords}
    if called in NAMES or (called in CALLS and called != "np.load"):
        yield called
    yield from (
        f"{called}({name}=...)" for name, bad in OPTIONS.items() if options.get(name, str(not bad)) != str(not bad)
    )
    if called == "np.load" and len(node.args) > 2:
        yield "np.load, told by place whether to unpickle"
    if called == "YAML" and options.get("typ", "'rt'") not in ("'safe'", "'rt'"):
        yield f"YAML(typ={options['typ']})"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from cloudpickle import loads", "def f():\n    import joblib.memory", "import marshal as m",
        "eval('1')", "exec(text)", "os.system('ls')", "subprocess.run('ls', shell=True)", "run('ls', shell=told)",
        "np.load(path, allow_pickle=True)", "np.load(path, 'r', True)", "load_model(path, safe_mode=False)",
        "YAML(typ='unsafe')", "import yaml",
    ],
)  # fmt: skip
def test_what_is_forbidden_is_seen(source: str) -> None:
    assert list(offences(source))


def test_no_code_could_run_what_it_reads(report: Report) -> None:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)): list(offences(path.read_text(encoding="utf-8"))) for path in paths}
    wrong = {name: some for name, some in found.items() if some}
    assert len(paths) > 250
    report(
        Fault.MODELS, "modules searched for unpickling, evaluation and shells",
        tries=len(paths), held=len(paths) - len(wrong), seen=str(wrong or ""),
    )  # fmt: skip


def watched(command: list[str], folder: Path, tmp_path: Path) -> list[str]:
    """Run a command, and return what it and its children unpickled but what they said to each other."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "unpickled"
    log.touch()
    paths = os.pathsep.join([str(tmp_path), str(folder)])
    env = os.environ | {"PYTHONPATH": paths, "UNPICKLED": str(log), "TQDM_DISABLE": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return log.read_text().splitlines()


def test_the_watch_sees_a_pickle(tmp_path: Path) -> None:
    """It is what the stages below are watched by."""
    program = "import pickle, pathlib; pickle.loads(pickle.dumps(pathlib.Path('x')))"
    assert watched([sys.executable, "-c", program], tmp_path, tmp_path) != []


STAGES = ("source", "ingest", "validate", "preprocess", "backbone", "features", "train_head", "fine_tune", "evaluate")
LATER = ("label_errors", "probe", "export", "report")


def test_no_stage_unpickles(three_runs: Path, tmp_path: Path, report: Report, whole_suite_only: None) -> None:
    (tmp_path / "watch").mkdir()
    found = {
        name: watched([sys.executable, "-m", f"tasks.{name}"], three_runs, tmp_path / "watch")
        for name in STAGES + LATER
    }
    clean = [name for name, some in found.items() if not some]
    seen = json.dumps({name: some[:3] for name, some in found.items() if some}) if len(clean) < len(found) else ""
    report(Fault.MODELS, "stages watched for unpickling", tries=len(found), held=len(clean), seen=seen)


@pytest.mark.parametrize("engine", ["openvino", "keras"])
def test_no_answer_unpickles(
    engine: str, three_runs: Path, tmp_path: Path, report: Report, whole_suite_only: None
) -> None:
    from tests.inference.running import picture

    (tmp_path / "watch").mkdir()
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture("red"))
    command = [sys.executable, "-c", "from flows.cli import main; main()", "predict", "--engine", engine, str(photo)]
    found = watched(command, three_runs, tmp_path / "watch")
    report(
        Fault.MODELS,
        f"`pawline predict` with {engine}, watched for unpickling",
        tries=1,
        held=not found,
        seen="; ".join(found[:3]),
    )
