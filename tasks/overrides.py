"""A person's verdicts: `validate.keep` and `validate.reject` list ids whose fate no rule decides."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tasks.image_table import ImageRow
from tasks.stage import PawlineError

UNKEEPABLE = frozenset(
    {"empty", "not_an_image", "truncated", "undecodable", "too_large", "too_slow", "out_of_memory", "crashes_decoder"}
)


def parse_keep(entries: Sequence[str]) -> dict[str, str]:
    """Map each id of `validate.keep` to the label it is kept under: `ID:label`, or `ID` alone for its own label."""
    keep: dict[str, str] = {}
    for photo_id, _, label in (entry.partition(":") for entry in entries):
        if keep.setdefault(photo_id, label) != label:
            raise PawlineError(f"validate.keep lists {photo_id} under two labels: leave one")
    return keep


def apply_overrides(rows: Iterable[ImageRow], *, keep: dict[str, str], reject: Sequence[str]) -> list[ImageRow]:
    """Quarantine the rejected ids, and lift what a rule said of the kept ones.

    Raises:
        PawlineError: For an id that matches no file, stands in both lists, or cannot be kept.
    """
    rows = list(rows)
    _check_ids(rows, keep, reject)
    return [_override(row, keep, frozenset(reject)) for row in rows]


def _override(row: ImageRow, keep: dict[str, str], reject: frozenset[str]) -> ImageRow:
    if row.id in reject:
        return replace(row, reason="rejected", evidence="rejected by a person")
    if row.id in keep and row.reason:
        return replace(row, reason="", evidence=f"kept by a person; otherwise {row.reason}: {row.evidence}")
    return row


def _check_ids(rows: Sequence[ImageRow], keep: dict[str, str], reject: Sequence[str]) -> None:
    files: dict[str, list[ImageRow]] = defaultdict(list)
    for row in rows:
        files[row.id].append(row)
    for key, ids in (("keep", list(keep)), ("reject", list(reject))):
        for photo_id in ids:
            if photo_id not in files:
                raise PawlineError(
                    f"validate.{key}: no file has the id {photo_id}: "
                    "an id is the SHA-256 of a file, column id of data/images.parquet"
                )
    for photo_id, label in keep.items():
        if photo_id in reject:
            raise PawlineError(f"validate.keep and validate.reject both list {photo_id}: remove it from one of them")
        _check_keepable(files[photo_id], label)


def _check_keepable(files: Sequence[ImageRow], label: str) -> None:
    first = files[0]
    if first.reason in UNKEEPABLE:
        raise PawlineError(
            f"validate.keep: {first.path} cannot be kept ({first.reason}: {first.evidence}): remove {first.id}"
        )
    labels = sorted({row.label for row in files})
    if label and label not in labels:
        raise PawlineError(f"validate.keep: {first.id} is not under {label!r} but under {', '.join(labels)}")
    if not label and len(labels) > 1:
        choices = " or ".join(f"{first.id}:{choice}" for choice in labels)
        raise PawlineError(f"validate.keep: {first.path} is also under another label: say which, {choices}")
