"""The lineage of a model as one document: what `pawline lineage --json` prints and a version's entry holds.

Its JSON schema is `docs/schemas/lineage.schema.json`. Every fact is taken from git, dvc.lock, or a file that dvc.lock
names by hash; what could not be read is null, never guessed.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA: Literal["pawline/lineage/1"] = "pawline/lineage/1"


class Record(BaseModel):
    """A part of the document: never changed once made, and never with a key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class CommitRecord(Record):
    """The commit that recorded the run: full id, author, time (ISO 8601) and subject."""

    id: str
    author: str
    email: str
    time: str
    subject: str


class Artifact(Record):
    """A file or folder by its content.

    Attributes:
        path: Relative to the project.
        md5: As DVC writes it; a folder's ends in `.dir` and is that of the list of its files.
        bytes: Size.
        files: How many files, of a folder.
        stage: The stage that wrote it; None for code and other files that git keeps.
    """

    path: str
    md5: str
    bytes: int
    files: int | None = None
    stage: str | None = None


class RunRecord(Record):
    """The Prefect task run that ran a stage; times are ISO 8601 in UTC."""

    flow_run_id: str
    flow_run_name: str
    task_run_id: str
    started: str
    ended: str


class StageRecord(Record):
    """One stage's last run: what it read and wrote. `params` has dotted keys."""

    name: str
    description: str
    command: str
    params: dict[str, Any]
    code: list[Artifact]
    inputs: list[Artifact]
    outputs: list[Artifact]
    run: RunRecord | None = None


class SourceRecord(Record):
    """Where the photos came from: the parameters that name it (`data.*`) and its fingerprint (data/source.json)."""

    params: dict[str, Any]
    fingerprint: dict[str, Any] | None


class CountsRecord(Record):
    """Photos seen, kept and quarantined, by reason; and how many of each class are in each split."""

    images: int
    kept: int
    quarantined: int
    by_reason: dict[str, int]
    splits: dict[str, dict[str, int]]
    labels: list[str]


class EnvironmentRecord(Record):
    """What the classifier was trained with, as the training stages wrote it down, and the lock file at the commit.

    Attributes:
        python: Such as `3.11.2`.
        machine: Such as `Linux x86_64`.
        processor_features: Instruction sets that decide how numbers are computed, such as `avx512_bf16`.
        threads: TensorFlow's threads within an operation.
        packages: The libraries that compute, by name, with their versions.
        engine: What computed the frozen features: `openvino` or `tensorflow`.
        precision: In which numbers: `bfloat16` or `float32`.
        lock_file: requirements.lock at the commit.
    """

    python: str | None
    machine: str | None
    processor_features: list[str]
    threads: int | None
    packages: dict[str, str]
    engine: str | None
    precision: str | None
    lock_file: Artifact | None


class Lineage(Record):
    """Where a model came from.

    Attributes:
        schema_id: Which document this is.
        name: How this run is called: a version, an experiment, a git revision, or `workspace`.
        kind: What sort of name that is.
        version: The registered version of that commit, if there is one.
        commit: Who recorded the run, and when; for the workspace the commit it stands on.
        uncommitted: Of the workspace: which of params.yaml, dvc.lock, dvc.yaml and the stages' code are not committed.
        model: The classifier.
        stages: In the order of the pipeline; those that the classifier comes from, then those that judge or export it.
        source: Where the photos came from.
        counts: What validation made of them.
        weights: Where the backbone's weights came from (models/backbone/origin.json).
        metrics: reports/metrics/evaluation.json.
        environment: With what it was trained.
        missing: Files whose facts could not be read, because their bytes are neither here nor in a remote.
    """

    schema_id: Literal["pawline/lineage/1"] = SCHEMA
    name: str
    kind: Literal["version", "experiment", "commit", "workspace"]
    version: str | None
    commit: CommitRecord | None
    uncommitted: list[str]
    model: Artifact
    stages: list[StageRecord]
    source: SourceRecord
    counts: CountsRecord | None
    weights: dict[str, Any] | None
    metrics: dict[str, Any] | None
    environment: EnvironmentRecord
    missing: list[str]

    def stage(self, name: str) -> StageRecord:
        """Return a stage by its name.

        Raises:
            KeyError: There is none of that name.
        """
        return {stage.name: stage for stage in self.stages}[name]
