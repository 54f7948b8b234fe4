"""Which classifier is meant: the project's own, an export folder, or that of a run, such as a version or a commit."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.stage import SCRATCH, PawlineError, write_json

if TYPE_CHECKING:
    from lineage.lockfile import Lock
    from lineage.runs import Project, Run

EXPORT_DIR = "models/export"
WANTED = (
    "classifier.keras",
    "classifier-float32.tflite",
    "openvino/",
    "export.json",
    "labels.txt",
)  # what `load` reads
NEEDED = "give an export folder (it holds export.json), or a project's folder; within a project a version or a run"


class Found(NamedTuple):
    """A classifier's export folder, what to call it, and the run it is of, if it is one of the project's."""

    name: str
    export_dir: Path
    run: "Run | None"


def find(model: str | None, here: Path) -> Found:
    """Return the classifier that is meant.

    Args:
        model: An export folder, or a project's folder, which means its models/export; or a run as `pawline lineage`
            takes it (champion, v2, an experiment, a commit, its classifier.keras), whose export is taken from DVC's
            cache or a remote; None is what lies in the project's models/export.
        here: The folder that the user stands in.

    Raises:
        PawlineError: There is no such classifier, or its files are nowhere.
    """
    for folder in [] if model is None else [here / model, here / model / EXPORT_DIR]:
        if (folder / "export.json").is_file():
            return Found(str(model), folder, None)
    root = _project_root(here, model)
    if model in (None, "workspace"):
        from lineage.runs import WORKSPACE

        return Found("workspace", root / EXPORT_DIR, WORKSPACE)
    if (here / str(model)).is_dir():
        raise PawlineError(
            f"--model {model}: neither this folder nor {EXPORT_DIR} in it has an export.json; give what the stage "
            "export wrote, or a project after `dvc repro`"
        )
    from lineage.runs import Project

    project = Project(root)
    run = _find_run(project, str(model), here)
    return Found(run.name, _bring_here(project, run), run)


def _find_run(project: "Project", model: str, here: Path) -> "Run":
    from lineage.runs import MODEL_PATH, find_from, is_file

    try:
        run = find_from(project, model, here)
    except PawlineError as error:
        if is_file(str(here / model)):
            raise PawlineError(f"{error}; {NEEDED}") from None
        raise
    found = run.found or ""
    if found.startswith("models/") and found != MODEL_PATH and not found.startswith(EXPORT_DIR):
        raise PawlineError(f"--model {model} is {found} of {run.name}, which was not exported; {MODEL_PATH} there was")
    return run


def _project_root(here: Path, model: str | None) -> Path:
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    if model is None:
        raise PawlineError(
            f"no dvc.yaml in {here} or above it: change to a checkout of Pawline, or give --model FOLDER"
        )
    if (here / model).is_file():
        raise PawlineError(f"--model {model}: a file alone says neither labels nor image size; {NEEDED}")
    raise PawlineError(
        f"--model {model}: no export folder, and no dvc.yaml in {here} or above it to look for a version"
    )


def _bring_here(project: "Project", run: "Run") -> Path:
    """Return a folder that holds a run's export, below .pawline/models/, made whole if it is not there yet."""
    from lineage import lockfile

    lock = project.lock(run)
    exported = lockfile.find_out(lock, EXPORT_DIR)
    if exported is None:
        raise PawlineError(f"{run.name} exported nothing: dvc.lock has no {EXPORT_DIR} there")
    folder = project.root / SCRATCH / "models" / exported.md5.removesuffix(lockfile.FOLDER_SUFFIX)
    if folder.is_dir():
        return folder
    listed = project.store.list_folder(exported)
    files = {} if listed is None else {path: md5 for path, md5 in listed.items() if path.startswith(WANTED)}
    project.store.fetch(list(files.values()))
    contents = {path: project.store.read(md5) for path, md5 in files.items()}
    if not contents or None in contents.values():
        again = "`dvc repro`" if run.commit is None else f"check {run.commit[:10]} out and `dvc repro`"
        raise PawlineError(
            f"{run.name}: its export is neither in DVC's cache nor in a remote: `dvc push` in a clone that has it, or "
            f"{again}"
        )
    _write_whole(folder, {path: content for path, content in contents.items() if content is not None}, lock)
    return folder


def _write_whole(folder: Path, contents: dict[str, bytes], lock: "Lock") -> None:
    """Write the files at once, by renaming; who does the same at the same time writes the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir()
    try:
        for path, content in contents.items():
            (unfinished / path).parent.mkdir(exist_ok=True)
            (unfinished / path).write_bytes(content)
        facts = json.loads(contents["export.json"])
        if "classifier_sha256" not in facts:
            write_json(_facts_of_old(contents, lock), unfinished / "export.json")
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _facts_of_old(contents: dict[str, bytes], lock: "Lock") -> dict[str, Any]:
    """Return export.json for an export from before it named labels and image: Keras's file was in every one."""
    params = next(stage.params for stage in lock.values() if "image.size_px" in stage.params)
    classifier = contents["classifier.keras"]
    return {
        "labels": contents["labels.txt"].decode().splitlines(),
        "image": {"size_px": params["image.size_px"], "resize": params["image.resize"]},
        "classifier_sha256": hashlib.sha256(classifier).hexdigest(),
        "formats": {"keras": {"path": "classifier.keras", "bytes": len(classifier)}},
    }
