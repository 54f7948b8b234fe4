"""The certificate of a rebuild: what was rebuilt, with what, and whether every byte came out the same."""

import hashlib
import importlib.metadata
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lineage import git
from lineage.records import Record
from lineage.reproduce import Environment, Reproduction, StageRebuild
from lineage.runs import Project, Run
from tasks.stage import whole_file

CERTIFICATES = Path("reports/certificates")
SCHEMA: Literal["pawline/certificate/1"] = "pawline/certificate/1"


class Certificate(Record):
    """What `pawline certify` found out.

    Attributes:
        schema_id: Which document this is.
        name: How the run is called: a version, an experiment, a commit's first digits, or `workspace`.
        commit: The commit whose code, parameters and dvc.lock were rebuilt; None for the workspace.
        lock_sha256: Of the dvc.lock whose hashes were compared.
        identical: Whether every output of every stage has the recorded bytes.
        first_divergence: The first stage that wrote other bytes, in the order in which they ran; None if none did.
        verdict: The same in a sentence.
        stages: In the order in which they ran, each output with the md5 recorded and rebuilt, and the SHA-256 of every
            rebuilt file.
        seconds: Wall-clock, of the whole rebuild.
        environment: That of the rebuild.
        environment_differences: What the run's stages recorded otherwise, in words.
        pawline: Pawline's version, which compared.
        code_commit: The commit of the code that compared; None if it is not in git as it was used.
        time: When the rebuild was finished, ISO 8601 in UTC.
    """

    schema_id: Literal["pawline/certificate/1"] = SCHEMA
    name: str
    commit: str | None
    lock_sha256: str
    identical: bool
    first_divergence: str | None
    verdict: str
    stages: list[StageRebuild]
    seconds: float
    environment: Environment
    environment_differences: list[str]
    pawline: str
    code_commit: str | None
    time: str


def certify(project: Project, run: Run, reproduction: Reproduction) -> Certificate:
    """Return the certificate of a run's rebuild."""
    return Certificate(
        name=_name(run),
        commit=run.commit,
        lock_sha256=hashlib.sha256(project.read(run, "dvc.lock") or b"").hexdigest(),
        identical=reproduction.identical,
        first_divergence=reproduction.first_divergence,
        verdict=reproduction.summary(),
        stages=reproduction.stages,
        seconds=reproduction.seconds,
        environment=reproduction.environment,
        environment_differences=reproduction.environment_differences,
        pawline=importlib.metadata.version("pawline"),
        code_commit=code_commit(Path(__file__).parents[1]),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write(certificate: Certificate, root: Path) -> Path:
    """Write a certificate into the project; return its path, relative to the project.

    It replaces an earlier one of the same run; no stage and no commit has it as output.
    """
    path = CERTIFICATES / f"{certificate.name}.json"
    with whole_file(root / path) as unfinished:
        unfinished.write_bytes(content(certificate))
    return path


def content(certificate: Certificate) -> bytes:
    """Return the certificate's file."""
    return certificate.model_dump_json(indent=2).encode() + b"\n"


def code_commit(packages: Path) -> str | None:
    """Return the commit that Pawline's packages in a folder are from; None if changed since, or not kept by git."""
    if not git.is_repository(packages) or not git.list_files(packages, "HEAD", "lineage"):
        return None
    changed = git.git(packages, "status", "--porcelain", "--", "lineage", "tasks")
    return None if changed else git.find_commit(packages, "HEAD")


def _name(run: Run) -> str:
    """Return a name that means the same tomorrow (HEAD~1 does not) and may be a file's."""
    return run.commit[:10] if run.kind == "commit" and run.commit is not None else run.name
