"""What differs between two image tables (data/images.parquet) or two raw tables (data/raw), photo by photo.

A photo is its bytes (the id, their SHA-256); a row is one file that holds them. The same bytes can lie in several
files, and a file can be renamed, which with folders as classes is also how it gets another label. So the rows of the
two tables are paired: first those of the same id and path, then what is left of the same id, label and verdict, of the
same id and label, of the same id. A pair can differ in all but the id; a row without a partner was added or removed.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import NamedTuple

from lineage.records import Record
from lineage.tables import read_columns
from tasks.raw import read_shard

SHOWN_ID = 12  # hex digits of an id on the terminal


class PhotoChange(Record):
    """One row that differs.

    Attributes:
        id: The photo.
        path: Its file in the later table; in the earlier one if it was removed.
        before: The label, split, reason or path that it had; None if it was added.
        after: The same, now; None if it was removed.
    """

    id: str
    path: str
    before: str | None
    after: str | None


class PhotoChanges(Record):
    """All differences, each list sorted by path.

    Attributes:
        added: Rows of the later table only (`after` is the label with the split, or the reason of quarantine).
        removed: Rows of the earlier table only (`before` is the same of them).
        renamed: The same bytes under another path.
        relabelled: The same bytes under another label.
        moved: Kept before and after, in another split.
        quarantined: Quarantined now and not before (`before` is `kept`), or now for another reason.
        taken_back: Kept now, quarantined before (`before` is the reason, `after` is `kept`).
    """

    added: list[PhotoChange]
    removed: list[PhotoChange]
    renamed: list[PhotoChange]
    relabelled: list[PhotoChange]
    moved: list[PhotoChange]
    quarantined: list[PhotoChange]
    taken_back: list[PhotoChange]

    @property
    def is_empty(self) -> bool:
        """Whether photos, labels, splits and verdicts are the same in both."""
        return not any(getattr(self, name) for name in type(self).model_fields)

    def summary(self) -> str:
        """Return the counts in one line, such as `10 added, 2 moved`."""
        counts = {name.replace("_", " "): len(getattr(self, name)) for name in type(self).model_fields}
        return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "the same photos"

    def lines(self, limit: int = 10) -> list[str]:
        """Return it for the terminal.

        Args:
            limit: How many photos to show of each list.
        """
        shown = []
        for name in type(self).model_fields:
            changes: list[PhotoChange] = getattr(self, name)
            if changes:
                shown.append(f"{name.replace('_', ' ')} ({len(changes):,})")
                shown += [f"  {_line(change)}" for change in changes[:limit]]
                shown += [f"  ... and {len(changes) - limit:,} more"] if len(changes) > limit else []
        return shown or ["the same photos, with the same labels, splits and verdicts"]


class _Row(NamedTuple):
    """The columns that are compared."""

    id: str
    path: str
    label: str
    status: str
    reason: str
    split: str

    @property
    def verdict(self) -> str:
        return self.reason or self.status

    @property
    def described(self) -> str:
        return ", ".join(part for part in (self.label, self.reason or self.split) if part)


def photo_changes(before: bytes, after: bytes) -> PhotoChanges:
    """Compare two image tables.

    Args:
        before: The earlier data/images.parquet.
        after: The later one.

    Returns:
        Every difference in photos, labels, splits and verdicts. Other columns follow from the bytes and the verdict.
    """
    return _compare(_rows(before), _rows(after))


def raw_changes(before: Iterable[Path], after: Iterable[Path]) -> PhotoChanges:
    """Compare the candidate files of two raw tables.

    Args:
        before: The shards of the earlier table; those that the later one has too may be left out of both.
        after: Those of the later one.

    Returns:
        What was added, removed, renamed or relabelled, and `moved` to another predefined split. Every file is hashed,
        a second or two a gigabyte.
    """
    return _compare(_raw_rows(before), _raw_rows(after))


def _compare(before: list["_Row"], after: list["_Row"]) -> PhotoChanges:
    pairs, removed, added = _pair(before, after)
    both_kept = [(old, new) for old, new in pairs if old.status == new.status == "kept"]
    rejudged = [(old, new) for old, new in pairs if old.verdict != new.verdict]
    return PhotoChanges(
        added=_sorted(PhotoChange(id=row.id, path=row.path, before=None, after=row.described) for row in added),
        removed=_sorted(PhotoChange(id=row.id, path=row.path, before=row.described, after=None) for row in removed),
        renamed=_differing(pairs, "path"),
        relabelled=_differing(pairs, "label"),
        moved=_differing(both_kept, "split"),
        quarantined=_differing([pair for pair in rejudged if pair[1].status != "kept"], "verdict"),
        taken_back=_differing([pair for pair in rejudged if pair[1].status == "kept"], "verdict"),
    )


Pair = tuple[_Row, _Row]


def _rows(table: bytes) -> list[_Row]:
    rows = zip(*(column.to_pylist() for column in read_columns(table, _Row._fields).columns), strict=True)
    return sorted((_Row(*row) for row in rows), key=lambda row: row.path)


def _raw_rows(shards: Iterable[Path]) -> list[_Row]:
    rows = [
        _Row(hashlib.sha256(record.content).hexdigest(), record.path, record.label, "kept", "", record.split)
        for shard in shards
        for record in read_shard(shard)
    ]
    return sorted(rows, key=lambda row: row.path)


def _pair(before: list[_Row], after: list[_Row]) -> tuple[list[Pair], list[_Row], list[_Row]]:
    """Return the pairs, and what is left of each table."""
    pairs: list[Pair] = []
    keys: list[Callable[[_Row], Hashable]] = [
        lambda row: (row.id, row.path),
        lambda row: (row.id, row.label, row.verdict),
        lambda row: (row.id, row.label),
        lambda row: row.id,
    ]
    for key in keys:
        waiting = defaultdict(list)
        for row in reversed(before):  # so that pop() takes the first path first
            waiting[key(row)].append(row)
        partners = [(waiting[key(row)].pop() if waiting[key(row)] else None, row) for row in after]
        pairs += [(old, new) for old, new in partners if old is not None]
        before = sorted((row for rows in waiting.values() for row in rows), key=lambda row: row.path)
        after = [new for old, new in partners if old is None]
    return pairs, before, after


def _differing(pairs: list[Pair], what: str) -> list[PhotoChange]:
    values = [(new, getattr(old, what), getattr(new, what)) for old, new in pairs]
    return _sorted(PhotoChange(id=row.id, path=row.path, before=b, after=a) for row, b, a in values if b != a)


def _sorted(changes: Iterable[PhotoChange]) -> list[PhotoChange]:
    return sorted(changes, key=lambda change: (change.path, change.id))


def _line(change: PhotoChange) -> str:
    values = [value for value in (change.before, change.after) if value is not None]
    return f"{change.path} ({change.id[:SHOWN_ID]}): {' -> '.join(values)}"
