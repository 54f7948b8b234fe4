"""What the report says that no stage can know: how the run stands against the champion, and times on a machine.

It goes into reports/context.json, an input of the `report` stage that git keeps: the page stays reproducible.
"""

import json
import platform
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.stage_process import environment
from lineage import git, lockfile, prefect_runs
from lineage.lockfile import Lock
from lineage.runs import MODEL_PATH, WORKSPACE, Project, Run, champion, find_from
from registry import ledger
from tasks.parallel import available_processors
from tasks.stage import PawlineError, write_json

CONTEXT_PATH = Path("reports/context.json")
EXPORT_DIR, EVALUATION_PATH = Path("models/export"), "reports/metrics/evaluation.json"
FIGURES = ("split", "images", "accuracy", "accuracy_interval", "auc", "loss")
CHOOSING = ("promote", "rollback")  # decisions that make a version the champion
FORMER_CHAMPION = "former champion"
MOST_COMMITS = 100  # that are looked through for an earlier run

Context = dict[str, Any]


def collect(project: Project, latency_ms: dict[str, float], machine: str | None = None) -> Context:
    """Return what there is to say of the run in the workspace.

    Args:
        project: The checkout, or a worktree of it.
        latency_ms: Of one photo, by export format.
        machine: Where that was measured, if not here.

    Raises:
        PawlineError: Nothing ran here yet, or the registry cannot be read.
    """
    lock = project.lock(WORKSPACE)
    sha256 = read_classifier_digest(project.root)
    against, verdict = _standing(project, lock, sha256)
    return {
        "classifier_sha256": sha256,
        "against": against,
        "verdict": verdict,
        "latency_ms": {name: round(milliseconds, 2) for name, milliseconds in latency_ms.items()},
        "stages": _stage_times(project, lock),
        "machine": machine or describe_machine(),
    }


def draw(context: Context, folder: Path, page: Path) -> None:
    """Draw the page of a run elsewhere, with what has become known since its own was drawn.

    Args:
        context: What is known.
        folder: The run's folder.
        page: Is written; context.json and summary.md are written beside it.

    Raises:
        PawlineError: An output of the run is missing.
    """
    page = page.resolve()
    write_json(context, page.with_name(CONTEXT_PATH.name))
    outs = {"--context-path": page.with_name(CONTEXT_PATH.name), "--report-out": page}
    outs["--summary-out"] = page.with_name("summary.md")
    _run_module("tasks.report", folder, *(text for pair in outs.items() for text in map(str, pair)))


def read_classifier_digest(root: Path) -> str:
    """Return the SHA-256 of the classifier that was exported last.

    Raises:
        PawlineError: None was.
    """
    path = root / EXPORT_DIR / "export.json"
    if not path.is_file():
        raise PawlineError(f"{path.relative_to(root)} is missing: `dvc repro` makes it")
    return str(json.loads(path.read_text(encoding="utf-8"))["classifier_sha256"])


def time_exports(root: Path) -> dict[str, float]:
    """Return the median milliseconds of one photo on this machine, by export format.

    Raises:
        PawlineError: An export cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "latency.json"
        _run_module("tasks.time_exports", root, "--export-dir", str(EXPORT_DIR), "--out", str(out))
        latency_ms: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
        return latency_ms


def known_times(classifier_sha256: str) -> tuple[dict[str, float], str | None]:
    """Return how long the exports of a classifier took when they were timed last, and on which machine.

    Nothing if that was another classifier.

    Raises:
        PawlineError: reports/context.json is damaged.
    """
    try:
        context: Context = json.loads(CONTEXT_PATH.read_text(encoding="utf-8")) if CONTEXT_PATH.is_file() else {}
    except json.JSONDecodeError as error:
        raise PawlineError(f"{CONTEXT_PATH} is no JSON ({error}): `pawline report` writes it anew") from error
    if context.get("classifier_sha256") != classifier_sha256 or not context.get("latency_ms"):
        return {}, None
    return context["latency_ms"], context.get("machine")


def describe_run(project: Project, run: Run, kind: str, *, same: bool) -> Context:
    """Return what a run that this one is compared with had reached."""
    content = project.store.read_path(project.lock(run), EVALUATION_PATH)
    figures = {} if content is None else json.loads(content)
    return {
        "name": run.name,
        "kind": kind,
        "same_classifier": same,
        **{figure: figures.get(figure) for figure in FIGURES},
    }


def describe_machine() -> str:
    """Return the processors that this process may use, such as `2 x Intel Xeon`."""
    listing = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", listing.read_text(), re.MULTILINE) if listing.exists() else None
    model = named[1] if named else platform.processor() or platform.machine()
    return f"{available_processors()} x {model.replace('(R)', '').replace('(TM)', '')}"


def _standing(project: Project, lock: Lock, sha256: str) -> tuple[Context | None, Context | None]:
    """Return the run to compare with, the champion or else the run before, and what was decided about this one."""
    if not project.has_history:
        return None, None
    current = champion(project)
    if current is None:
        previous = _previous_run(project, lock)
        return (None if previous is None else describe_run(project, previous, "previous run", same=False)), None
    book = ledger.load(project.root)
    entry = book.entry(current.name)
    if entry is None or entry.sha256[MODEL_PATH] != sha256:
        return describe_run(project, current, "champion", same=False), None
    chosen = (each for each in reversed(book.decisions) if each.action in CHOOSING and each.version == current.name)
    decision = next(chosen, None)
    if decision is None:  # a tag of somebody else's
        return describe_run(project, current, "champion", same=True), None
    verdict = {"promoted": True, "text": decision.reason or f"promoted by {decision.by}"}
    before = decision.details.get("before")
    if before is None:
        return describe_run(project, current, "champion", same=True), verdict
    former = find_from(project, before, project.root)
    return describe_run(project, former, FORMER_CHAMPION, same=False), verdict


def _previous_run(project: Project, lock: Lock) -> Run | None:
    """Return the newest commit whose run gave another classifier."""
    listed = git.git(project.root, "log", f"--max-count={MOST_COMMITS}", "--format=%H", "--", "dvc.lock").decode()
    here = lockfile.find_out(lock, MODEL_PATH)
    for commit in listed.split():
        run = Run(commit[:10], "commit", commit)
        model = lockfile.find_out(project.lock(run), MODEL_PATH) if project.read(run, "dvc.lock") else None
        if model is not None and model != here:
            return run
    return None


def _stage_times(project: Project, lock: Lock) -> dict[str, Any]:
    """Return how long stages took, as far as `pawline run` noted it."""
    records = {name: prefect_runs.find_record(project, stage) for name, stage in lock.items()}
    return {
        name: {"seconds": (datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.started)).total_seconds()}
        for name, run in records.items()
        if run is not None
    }


def _run_module(module: str, folder: Path, *arguments: str) -> None:
    """Run a module of tasks/, which may need TensorFlow, in a process of its own.

    Raises:
        PawlineError: With the line in which it said why it failed.
    """
    done = subprocess.run(  # noqa: S603 - an argument list of our own, no shell
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(folder.resolve())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no output"]
        raise PawlineError(f"{module} failed: {said[-1].removeprefix('error: ')}")
