"""What the registry keeps: an entry a version, and the decisions, each signed and chained to the one before it."""

from typing import Any, Literal

from lineage.records import Lineage, Record

ENTRY_SCHEMA: Literal["pawline/version/1"] = "pawline/version/1"
VERDICT_SCHEMA: Literal["pawline/verdict/1"] = "pawline/verdict/1"
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
        details: What else the action needs on record; of a promotion by the gate, the verdict under `gate`.
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


class Contender(Record):
    """A model before the gate.

    Attributes:
        name: A version, or what the newly trained model is called.
        sha256: Of its file.
        bytes: Size of its file.
        latency_ms: How long one photo takes, the median of single calls; of models compared, on the same photos.
        right: How many photos it recognised.
        accuracy: The share of them.
        interval: The accuracy's 95 % interval (Wilson).
    """

    name: str
    sha256: str
    bytes: int
    latency_ms: float
    right: int
    accuracy: float
    interval: tuple[float, float]


class Answers(Record):
    """On how many photos both models were right, one alone, or none."""

    both_right: int
    only_challenger: int
    only_champion: int
    both_wrong: int


class Check(Record):
    """One rule of the gate: its name, whether it is kept, and a phrase with the figures."""

    name: str
    passed: bool
    text: str


class SliceResult(Record):
    """Photos that have something in common: how many, and how many each model recognised.

    Attributes:
        by: What was looked at, such as `short side`.
        value: What these photos have in common, such as `100 to 199 px`.
        images: How many they are.
        challenger: How many of them the challenger recognised.
        champion: How many the champion did; None without a champion.
    """

    by: str
    value: str
    images: int
    challenger: int
    champion: int | None


class Verdict(Record):
    """What the gate says of a newly trained model, the challenger.

    Attributes:
        schema_id: Which document this is.
        promote: Whether it may become the champion: every check is passed.
        split: The split of the challenger's data that both models answered.
        images: How many photos that were.
        left_out: Photos of the split that were not asked: the champion was trained on them or on a near-duplicate.
        champion: The model in force; None if there is none.
        challenger: The newly trained model.
        answers: Who was right; None without a champion.
        groups_won: Near-duplicate groups of which the challenger recognised more photos than the champion; a photo
            without near-duplicates is a group of its own. None without a champion.
        groups_lost: Those of which it recognised fewer; None without a champion.
        p: Of the exact one-sided McNemar test on groups_won and groups_lost, that the challenger is no better; None
            without a champion.
        checks: The rules, one by one.
        slices: Accuracy on parts of the photos.
        rules: Section `gate` of params.yaml.
    """

    schema_id: Literal["pawline/verdict/1"] = VERDICT_SCHEMA
    promote: bool
    split: Literal["test", "val"]
    images: int
    left_out: int
    champion: Contender | None
    challenger: Contender
    answers: Answers | None
    groups_won: int | None
    groups_lost: int | None
    p: float | None
    checks: list[Check]
    slices: list[SliceResult]
    rules: dict[str, float | int | None]


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
