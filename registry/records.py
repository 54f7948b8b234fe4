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
