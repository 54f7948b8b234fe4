"""Which Prefect run ran a stage: written by the flow when a stage ends, beside DVC's cache, under what it wrote."""

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from lineage.lockfile import LockedStage
from lineage.records import RunRecord
from lineage.runs import Project
from tasks.stage import PawlineError, whole_file


def record_path(project: Project, stage: LockedStage) -> Path:
    """Return where the record of a stage's run lies: named after everything the stage read and wrote.

    Beside the cache's objects, where experiments in temporary folders and the workspace share it; git and DVC's own
    clean-up leave it alone, and `pawline gc` takes those of runs that nobody keeps.
    """
    facts = [stage.command, stage.params, *([(p.path, p.md5) for p in paths] for paths in (stage.deps, stage.outs))]
    digest = hashlib.sha256(json.dumps([stage.name, *facts], sort_keys=True).encode()).hexdigest()
    return _folder(project) / f"{stage.name}-{digest[:32]}.json"


def record_paths(project: Project) -> set[Path]:
    """Return where all records lie."""
    return set(_folder(project).glob("*.json"))


def find_record(project: Project, stage: LockedStage) -> RunRecord | None:
    """Return the Prefect run that ran a stage, or None if it ran without Prefect or elsewhere."""
    path = record_path(project, stage)
    if not path.is_file():
        return None
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise PawlineError(f"{path} is not what the flow wrote: delete it, and the run counts as unknown") from error


def write_record(project: Project, stage: LockedStage, record: RunRecord) -> None:
    """Note which Prefect run ran a stage."""
    with whole_file(record_path(project, stage)) as unfinished:
        unfinished.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _folder(project: Project) -> Path:
    return project.store.cache_dir.parents[1] / "pawline" / "prefect"
