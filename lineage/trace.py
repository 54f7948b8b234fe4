"""Where a run's classifier came from: dvc.lock's hashes, followed back, and the facts in the files they name."""

import hashlib
import json
from typing import Any

from lineage import git, lockfile, prefect_runs
from lineage.lockfile import LockedPath, LockedStage
from lineage.records import (
    Artifact,
    CommitRecord,
    CountsRecord,
    EnvironmentRecord,
    Lineage,
    RunRecord,
    SourceRecord,
    StageRecord,
)
from lineage.runs import MODEL_PATH, Project, Run, versions
from tasks.stage import PawlineError

LOCK_FILE = "requirements.lock"


def trace(project: Project, run: Run) -> Lineage:
    """Follow a run's classifier back to the photos.

    Args:
        project: The checkout.
        run: The run.

    Returns:
        Everything on record, in seconds: nothing is hashed here (that is `verify`).

    Raises:
        PawlineError: The run has no dvc.lock, or wrote no classifier.
    """
    lock = project.lock(run)
    model = lockfile.find_out(lock, MODEL_PATH)
    if model is None:
        raise PawlineError(f"{run.name} has no {MODEL_PATH}: its run was not finished; `dvc repro`")
    facts = _Facts(project, lock)
    described = _descriptions(project, run)
    made_by = lockfile.producers(lock)
    commit = None if not project.has_history else git.read_commit(project.root, run.commit or "HEAD")
    return Lineage(
        name=run.name,
        kind=run.kind,
        version=_version(project, run),
        commit=None if commit is None else CommitRecord(**vars(commit)),
        uncommitted=_uncommitted(project, lock) if run.commit is None and commit is not None else [],
        model=_artifact(model, made_by),
        stages=[
            _stage(lock[name], described.get(name, ""), made_by, prefect_runs.find_record(project, lock[name]))
            for name in _in_order(lock)
        ],
        source=_source(lock, facts),
        counts=_counts(facts),
        weights=facts.read("models/backbone/origin.json"),
        metrics=facts.read("reports/metrics/evaluation.json"),
        environment=_environment(project, run, facts),
        missing=sorted(facts.missing),
    )


class _Facts:
    """Reads the JSON files of a run, and remembers those whose bytes are nowhere."""

    def __init__(self, project: Project, lock: lockfile.Lock) -> None:
        self._project, self._lock = project, lock
        self.missing: set[str] = set()

    def read(self, path: str) -> dict[str, Any] | None:
        if not self._project.store.may_have(self._lock, path):
            return None
        content = self._project.store.read_path(self._lock, path)
        if content is None:
            self.missing.add(path)
            return None
        value: dict[str, Any] = json.loads(content)
        return value


def _in_order(lock: lockfile.Lock) -> list[str]:
    """Return the stages that the classifier comes from, then the others, each in the order of dvc.lock."""
    before = lockfile.upstream(lock, MODEL_PATH)
    return [*before, *(name for name in lock if name not in before)]


def _stage(stage: LockedStage, description: str, made_by: dict[str, str], run: RunRecord | None) -> StageRecord:
    return StageRecord(
        name=stage.name,
        description=description,
        command=stage.command,
        params=stage.params,
        code=[_artifact(dep, made_by) for dep in stage.deps if dep.path not in made_by],
        inputs=[_artifact(dep, made_by) for dep in stage.deps if dep.path in made_by],
        outputs=[_artifact(out, made_by) for out in stage.outs],
        run=run,
    )


def _artifact(path: LockedPath, made_by: dict[str, str]) -> Artifact:
    return Artifact(path=path.path, md5=path.md5, bytes=path.size, files=path.files, stage=made_by.get(path.path))


def _descriptions(project: Project, run: Run) -> dict[str, str]:
    content = project.read(run, "dvc.yaml")
    if content is None:
        return {}
    stages = lockfile.load_yaml(content, origin="dvc.yaml").get("stages")
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise PawlineError(f"dvc.yaml of {run.name} declares no stages as DVC reads them; `git diff` shows why")
    return {name: str(stage.get("desc") or "") for name, stage in stages.items()}


def _version(project: Project, run: Run) -> str | None:
    return next((known.name for known in versions(project) if known.commit == run.commit), None)


def _uncommitted(project: Project, lock: lockfile.Lock) -> list[str]:
    made_by = lockfile.producers(lock)
    code = {dep.path for stage in lock.values() for dep in stage.deps if dep.path not in made_by}
    paths = ["dvc.lock", "dvc.yaml", "params.yaml", *sorted(code)]
    status = git.git(project.root, "status", "--porcelain", "--no-renames", "-z", "--", *paths).decode(
        errors="backslashreplace"
    )
    return sorted(entry[3:] for entry in status.split("\0") if entry)


def _source(lock: lockfile.Lock, facts: _Facts) -> SourceRecord:
    params = {key: value for stage in lock.values() for key, value in stage.params.items() if key.startswith("data.")}
    return SourceRecord(params=params, fingerprint=facts.read("data/source.json"))


def _counts(facts: _Facts) -> CountsRecord | None:
    validation = facts.read("reports/metrics/validation.json")
    if validation is None:
        return None
    return CountsRecord(**{name: validation[name] for name in CountsRecord.model_fields})


def _environment(project: Project, run: Run, facts: _Facts) -> EnvironmentRecord:
    selected = (facts.read("models/stage2/metrics.json") or {}).get("selected", "stage2")
    noted = facts.read(f"models/{selected}/environment.json") or {}
    features = facts.read("data/features/manifest.json") or {}
    return EnvironmentRecord(
        python=noted.get("python"),
        machine=noted.get("machine"),
        processor_features=noted.get("processor_features", []),
        threads=noted.get("threads"),
        packages=noted.get("packages", {}),
        engine=features.get("engine"),
        precision=features.get("precision"),
        lock_file=_lock_file(project, run),
    )


def _lock_file(project: Project, run: Run) -> Artifact | None:
    content = project.read(run, LOCK_FILE)
    if content is None:
        return None
    return Artifact(path=LOCK_FILE, md5=hashlib.md5(content, usedforsecurity=False).hexdigest(), bytes=len(content))
