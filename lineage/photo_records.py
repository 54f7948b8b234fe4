"""What happened to one photo, as a document and as lines on the terminal."""

from typing import Literal

from lineage.records import Record
from lineage.runs import WORKSPACE
from lineage.words import first_of

SHOWN_RUNS = 6  # names in one line
NOWHERE = "neither in the cache nor in a remote: `dvc push` where it ran"
Role = Literal["trained", "chose", "judged", "quarantined", "absent"]
ROLE_TEXTS: dict[Role, str] = {
    "trained": "trained on it",
    "chose": "chose the epoch with it (validation split)",
    "judged": "was judged on it (test split)",
    "quarantined": "kept it out",
    "absent": "had no such photo",
}


class PhotoFile(Record):
    """A file that holds the photo: its row of data/images.parquet (tasks/image_table.py says what is what)."""

    path: str
    label: str
    status: str
    reason: str
    evidence: str
    duplicate_of: str
    group: str
    split: str
    width: int
    height: int
    format: str
    mode: str
    bytes: int

    def line(self) -> str:
        """Return it for the terminal."""
        verdict = f"quarantined: {self.reason}" if self.status == "quarantined" else f"kept, in {self.split}"
        said = f" ({self.evidence})" if self.evidence else ""
        form = f"{self.width} x {self.height} {self.format} {self.mode}, " if self.width else ""
        return f"{self.path}: {self.label}, {verdict}{said}; {form}{self.bytes:,} bytes"


class StoredPhoto(Record):
    """Where a kept photo is in what the stages wrote.

    Attributes:
        tfrecord: The shard.
        row: Its place in that shard, and in that of the features, counted from 0.
        features: The shard of pooled vectors; the boundary tensors, if there are any, lie beside it.
        views: How many views were computed.
        augmented: Whether they are augmented (training) or the image itself.
    """

    tfrecord: str
    row: int
    features: str
    views: int
    augmented: bool


class Judgement(Record):
    """What a model said of the photo: a row of data/predictions.parquet."""

    label: str
    predicted: str
    probability: float

    def line(self) -> str:
        """Return it for the terminal."""
        right = "right" if self.label == self.predicted else f"wrong, it is {self.label}"
        return f"said {self.predicted} ({self.probability:.1%}): {right}"


class Encounter(Record):
    """What the photo was to some runs.

    Attributes:
        runs: Their names.
        role: What it was to them.
        reason: Why they quarantined it.
        views: How many augmented views they trained on.
        judgements: What their models said of it.
        predictions_missing: Whether they judged it, and the bytes that say how are neither here nor in a remote.
    """

    runs: list[str]
    role: Role
    reason: str | None = None
    views: int | None = None
    judgements: tuple[Judgement, ...] = ()
    predictions_missing: bool = False

    def line(self) -> str:
        """Return it for the terminal."""
        text = f"{first_of(self.runs, SHOWN_RUNS)}: {ROLE_TEXTS[self.role]}"
        text += f" ({self.reason})" if self.reason else ""
        text += f", {self.views} augmented view{'s' if self.views > 1 else ''}" if self.views else ""
        text += "".join(f"; {judgement.line()}" for judgement in self.judgements)
        return f"{text}; how is {NOWHERE}" if self.predictions_missing else text


class PhotoStory(Record):
    """What happened to one photo.

    Attributes:
        id: SHA-256 of its bytes.
        run: Whose data `files`, `group` and `stored` are of.
        asked: The run that was asked for, if its data does not have the photo; else None.
        files: Its files; more than one if there are exact duplicates.
        group: Paths of its near-duplicates.
        stored: None if it is quarantined, or the bytes that would tell are not in the cache.
        encounters: What it was to the runs that are known here.
        unfinished: Runs whose classifier is not made of the photos that they have now.
        unknown: Runs whose table of photos is neither here nor in a remote.
        forgotten: By which decision the photo was deleted (`pawline forget`); None if it was not.
    """

    id: str
    run: str
    asked: str | None
    files: list[PhotoFile]
    group: list[str]
    stored: StoredPhoto | None
    encounters: list[Encounter]
    unfinished: list[str]
    unknown: list[str]
    forgotten: str | None

    def lines(self) -> list[str]:
        """Return it for the terminal."""
        lines = [f"photo {self.id}"]
        if self.asked is not None:
            lines.append(f"  not in the data of {self.asked}; in that of {self.run}:")
        lines += [f"  {file.line()}" for file in self.files]
        lines += [f"  near-duplicates, in one split with it: {', '.join(self.group)}"] if self.group else []
        of_run = "" if self.run == WORKSPACE.name else f" of {self.run}"
        lines += [f"  {line}{of_run}" for line in _stored_lines(self.stored)] if self.stored else []
        lines += ["models", *(f"  {encounter.line()}" for encounter in self.encounters)]
        if self.unfinished:
            lines.append(f"  {', '.join(self.unfinished)}: unfinished, its classifier is older: `dvc repro`")
        if self.unknown:
            lines.append(f"  not known of {first_of(self.unknown, SHOWN_RUNS)}: the table of photos is {NOWHERE}")
        if self.forgotten:
            lines.append(f"  FORGOTTEN: {self.forgotten}")
        return lines


def _stored_lines(stored: StoredPhoto) -> list[str]:
    views = (
        f"{stored.views} augmented view{'s' if stored.views > 1 else ''}" if stored.augmented else "the image itself"
    )
    return [f"record {stored.row} in {stored.tfrecord}", f"{views} in row {stored.row} of {stored.features}"]
