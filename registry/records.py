"""What the registry keeps: an entry a version, and the decisions, each signed and chained to the one before it."""

from typing import Any, Literal

from lineage.records import Lineage, Record

ENTRY_SCHEMA: Literal["pawline/version/1"] = "pawline/version/1"
Action = Literal["register", "promote", "rollback", "forget", "certify", "admit"]


class Entry(Record):
    """A version: `versions/<version>/entry.json`.

    Attributes:
        schema_id: Which document this is.
        version: Such as `v1.0.0`.
        commit: The commit whose dvc.lock recorded the run.
        sha256: Of every file of the run, by path relative to the project: outputs of all stages, one line a file
            within a folder, and what git keeps (code, params.yaml, dvc.yaml, dvc.lock, requirements.lock). DVC's own
            hashes are md5, which can be forged by who makes both files.
        lineage: The run, as `pawline lineage` had it when it was registered.
    """

    schema_id: Literal["pawline/version/1"] = ENTRY_SCHEMA
    version: str
    commit: str
    sha256: dict[str, str]
    lineage: Lineage


class Decision(Record):
    """A decision: `decisions/<number>.json`, signed in `decisions/<number>.sig`.

    Attributes:
        number: 1, 2, ...
        previous: SHA-256 of the file of the decision before; None for the first.
        action: What was decided.
        version: About which version; None for `forget` and `admit`.
        commit: The version's commit.
        tag: The git tag that carries it out, in the convention of GTO; None if it needs none.
        by: Name and address, as git knows them.
        time: When, ISO 8601 in UTC.
        reason: Why, in the decider's words; may be empty.
        key: Fingerprint of the key that signed it: SHA-256 of the public key (DER), in hex.
        files: SHA-256 of every file that this decision added to the registry, by its path there.
        details: What else the action needs on record.
    """

    number: int
    previous: str | None
    action: Action
    version: str | None
    commit: str | None
    tag: str | None
    by: str
    time: str
    reason: str
    key: str
    files: dict[str, str]
    details: dict[str, Any]


class VersionSummary(Record):
    """A version in the list of versions; what is not on record is null.

    Attributes:
        version: Such as `v1.0.0`.
        champion: Whether it is the champion.
        date: When it was registered, ISO 8601 in UTC.
        commit: The commit whose dvc.lock recorded its run.
        split: The split that it was evaluated on.
        accuracy: On that split.
        interval: The accuracy's 95 % interval.
        photos: How many photos its run kept.
        by: Who registered it.
        reason: Why, in their words.
        note: What a reader should know, such as that photos it was trained on were forgotten.
    """

    version: str
    champion: bool
    date: str | None
    commit: str | None
    split: str | None
    accuracy: float | None
    interval: list[float] | None
    photos: int | None
    by: str | None
    reason: str | None
    note: str | None


class RegistryContent(Record):
    """What `pawline models --json` prints: the versions, the newest first, and the decisions, the first one first."""

    versions: list[VersionSummary]
    decisions: list[Decision]
