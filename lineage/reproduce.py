"""Whether a run can be rebuilt from the photos, byte for byte; and if not, where it goes apart first, and why."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lineage import lockfile, rebuild
from lineage.hashing import Digest, digest_file
from lineage.lockfile import Lock, LockedPath, LockedStage
from lineage.records import Record
from lineage.runs import MODEL_PATH, Project, Run
from lineage.verify_files import files_below
from tasks.dvc_hash import hash_listing
from tasks.environment import FILE_NAME as ENVIRONMENT_FILE
from tasks.environment import describe_environment
from tasks.stage import PawlineError

SHOWN = 3  # files named in a sentence


class OutputRebuild(Record):
    """An output as it was recorded and as it was rebuilt.

    Attributes:
        path: Relative to the project.
        recorded: The md5 in the run's dvc.lock; a folder's ends in `.dir`.
        rebuilt: The md5 of the bytes that the rebuild wrote; None if it wrote none.
        identical: Whether these are the same.
        bytes: Size of what was rebuilt.
        sha256: Of every file that was rebuilt, by path relative to the project.
        differing_files: Files with other bytes, and those that only one of the two has. Empty too where DVC's list of
            the recorded folder's files is neither in the cache nor in a remote.
    """

    path: str
    recorded: str
    rebuilt: str | None
    identical: bool
    bytes: int
    sha256: dict[str, str]
    differing_files: list[str]


class StageRebuild(Record):
    """A stage that was run again: wall-clock seconds, DVC's hashing included; None if it did not run."""

    name: str
    seconds: float | None
    outputs: list[OutputRebuild]

    @property
    def identical(self) -> bool:
        """Whether every output has the recorded bytes."""
        return all(output.identical for output in self.outputs)

    @property
    def differing(self) -> list[str]:
        """The files that differ; an output where no file can be named."""
        return [path for out in self.outputs if not out.identical for path in out.differing_files or [out.path]]


class Environment(Record):
    """What decides the numbers besides data, parameters and code; as tasks/environment.py has it.

    Attributes:
        python: Its version.
        machine: System and architecture, such as `Linux x86_64`.
        processor_features: Instruction sets by which kernels are chosen.
        threads: Of TensorFlow, within an operation.
        packages: The libraries that compute, with their versions.
    """

    python: str
    machine: str
    processor_features: list[str]
    threads: int
    packages: dict[str, str]


class Reproduction(Record):
    """A rebuild of a run.

    Attributes:
        run: How the run is called.
        commit: Its commit; None for the workspace.
        stages: In the order in which they ran.
        seconds: Wall-clock, of the whole.
        environment: That of the rebuild.
        environment_differences: What the run's stages recorded otherwise, in words.
    """

    run: str
    commit: str | None
    stages: list[StageRebuild]
    seconds: float
    environment: Environment
    environment_differences: list[str]

    @property
    def identical(self) -> bool:
        """Whether every output of every stage has the recorded bytes."""
        return self.first_divergence is None

    @property
    def first_divergence(self) -> str | None:
        """The first stage, in the order in which they ran, that wrote other bytes than recorded."""
        return next((stage.name for stage in self.stages if not stage.identical), None)

    def summary(self) -> str:
        """Return the verdict in one line."""
        outputs = [output for stage in self.stages for output in stage.outputs]
        first = next((stage for stage in self.stages if not stage.identical), None)
        if first is None:
            size = f"{sum(output.bytes for output in outputs) / 1e6:.0f} MB"
            return f"identical, byte for byte: {len(outputs)} outputs of {len(self.stages)} stages, {size}"
        parts = [f"diverges first in `{first.name}`: {_listed(first.differing)}"]
        if any(output.path == MODEL_PATH and output.identical for output in outputs):
            parts.append(f"{MODEL_PATH} is identical")
        if self.environment_differences:
            parts.append(f"the environment differs: {', '.join(self.environment_differences)}")
        return "; ".join(parts)


def reproduce(project: Project, run: Run, *, log: Callable[[str], None]) -> Reproduction:
    """Run all stages of a run again in a fresh place, and compare what they write with what dvc.lock recorded.

    Args:
        project: The checkout.
        run: The run.
        log: Is told what begins, and each stage as it ends.

    Raises:
        PawlineError: There is no git repository, the run's code or parameters are not those that dvc.lock recorded, or
            a stage failed.
    """
    if not project.has_history:
        raise PawlineError("a rebuild starts from what git keeps, and there is no commit: `git init`, then commit")
    began = time.monotonic()
    lock = project.lock(run)
    files = {out.path: _recorded_files(project, out) for stage in lock.values() for out in stage.outs}
    environments = _recorded_environments(project, lock)
    with rebuild.fresh_copy(project, run, lock) as folder:
        _check_inputs(lock, run, folder)
        log(f"rebuilding {run.name} from the photos on: {len(lock)} stages, in {folder}")
        seconds = _run_stages(folder, run, lock, log)
        order = [*(name for name in seconds if name in lock), *(name for name in lock if name not in seconds)]
        stages = [
            StageRebuild(
                name=name,
                seconds=seconds.get(name),
                outputs=[compare_output(folder, out, files[out.path]) for out in lock[name].outs],
            )
            for name in order
        ]
    now = describe_environment()
    differences = [line for recorded in environments for line in environment_differences(recorded, now)]
    return Reproduction(
        run=run.name,
        commit=run.commit,
        stages=stages,
        seconds=round(time.monotonic() - began, 1),
        environment=Environment(**now),
        environment_differences=list(dict.fromkeys(differences)),
    )


def compare_output(folder: Path, out: LockedPath, recorded_files: dict[str, str] | None) -> OutputRebuild:
    """Compare what lies in a folder, by its bytes, with a recorded output.

    Args:
        folder: Where the project was rebuilt.
        out: The recorded output.
        recorded_files: Of an output folder: path within it to md5; None if unknown.
    """
    found = _digest(folder / out.path)
    rebuilt = _content_md5(folder / out.path, found)
    differing: set[str] = set()
    if rebuilt != out.md5 and out.is_folder and recorded_files is not None:
        names = recorded_files.keys() | found.keys()
        differing = {name for name in names if name not in found or recorded_files.get(name) != found[name].md5}
    return OutputRebuild(
        path=out.path,
        recorded=out.md5,
        rebuilt=rebuilt,
        identical=rebuilt == out.md5,
        bytes=sum(digest.size for digest in found.values()),
        sha256={str(Path(out.path, name)): digest.sha256 or "" for name, digest in found.items()},
        differing_files=sorted(str(Path(out.path, name)) for name in differing),
    )


def environment_differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return in words what was recorded of an environment and is not so now."""
    lines = []
    for key, then in recorded.items():
        here = now.get(key)
        if isinstance(then, dict) and isinstance(here, dict):
            names = [name for name in sorted(then | here) if then.get(name) != here.get(name)]
            lines += [f"{name} {then.get(name, 'absent')} (now {here.get(name, 'absent')})" for name in names]
        elif isinstance(then, list) and isinstance(here, list):
            lost, new = (" ".join(sorted(set(a) - set(b))) for a, b in ((then, here), (here, then)))
            lines += [f"{key} without {lost}"] if lost else []
            lines += [f"{key} with {new}"] if new else []
        elif then != here:
            lines.append(f"{key} {then} (now {here})")
    return lines


def _run_stages(folder: Path, run: Run, lock: Lock, log: Callable[[str], None]) -> dict[str, float]:
    """Run the stages; say of each whether DVC's hash of what it wrote is the recorded one. Return their seconds."""
    taken = {}
    with rebuild.started(rebuild.COMMAND, folder, rebuild.environment(folder)) as process:
        for name, seconds in rebuild.stages_run(process, run):
            taken[name] = round(seconds, 1)
            rebuilt = lockfile.parse_lock((folder / "dvc.lock").read_bytes()).get(name)
            same = name in lock and rebuilt is not None and _hashes(rebuilt) == _hashes(lock[name])
            log(f"{name:<12} {seconds:6.1f} s  {'identical' if same else 'DIFFERS'}")
    return taken


def _hashes(stage: LockedStage) -> dict[str, str]:
    return {out.path: out.md5 for out in stage.outs}


def _recorded_files(project: Project, out: LockedPath) -> dict[str, str] | None:
    return project.store.list_folder(out) if out.is_folder else None


def _recorded_environments(project: Project, lock: Lock) -> list[dict[str, Any]]:
    """Return what the stages noted about where they ran."""
    folders = [out.path for stage in lock.values() for out in stage.outs if out.is_folder]
    texts = [project.store.read_path(lock, f"{folder}/{ENVIRONMENT_FILE}") for folder in folders]
    return [json.loads(text) for text in texts if text is not None]


def _check_inputs(lock: Lock, run: Run, folder: Path) -> None:
    """See that parameters and code are those that dvc.lock recorded: others would rebuild another run."""
    params = dict(lockfile.flatten(lockfile.load_yaml((folder / "params.yaml").read_bytes(), origin="params.yaml")))
    made_by = lockfile.producers(lock)
    for stage in lock.values():
        other = [key for key, value in stage.params.items() if key not in params or params[key] != value]
        for dep in stage.deps:
            if dep.path not in made_by:
                now = _content_md5(folder / dep.path, _digest(folder / dep.path))
                other += [dep.path] if now != dep.md5 else []
        if other:
            raise PawlineError(
                f"dvc.lock of {run.name} records `{stage.name}` with another {_listed(other)}: "
                f"`dvc repro`{'' if run.commit is None else ' there, and commit dvc.lock,'} and certify that run"
            )


def _digest(path: Path) -> dict[str, Digest]:
    """Return the digests of a folder's files by their path within it, or that of a file under the empty path."""
    if path.is_dir():
        return {str(file.relative_to(path)): digest_file(file, sha256=True) for file in files_below(path)}
    return {"": digest_file(path, sha256=True)} if path.is_file() else {}


def _content_md5(path: Path, found: dict[str, Digest]) -> str | None:
    """Return the md5 of a file or folder as DVC has it; None if there is nothing."""
    if path.is_dir():
        return hash_listing({name: digest.md5 for name, digest in found.items()})
    return found[""].md5 if found else None


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
