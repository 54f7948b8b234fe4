"""Which photos the gate asks, and how many of them each model recognised.

The photos are those of the challenger's test split. What the champion was trained on is left out, and so are the
near-duplicates of what the challenger's data still have of that: a new near-duplicate can move its group from one split
to another.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from registry.gate import Tally
from registry.records import Answers, SliceResult
from tasks import tables
from tasks.image_table import ImageRow
from tasks.stage import PawlineError

CHAMPION, CHALLENGER = "champion", "challenger"  # the columns of their answers, and the folders of their files
KNOWN, NEW = "known to the champion's data", "new since"


@dataclass(frozen=True)
class Photos:
    """What is asked.

    Attributes:
        split: Whose photos these are.
        asked: The photos.
        left_out: How many of the split are not asked.
        known: Ids of all photos in the champion's data; None without a champion.
    """

    split: Literal["test", "val"]
    asked: list[ImageRow]
    left_out: int
    known: set[str] | None


def choose_photos(rows: list[ImageRow], champion_rows: list[ImageRow] | None) -> Photos:
    """Choose the photos to ask: of the test split, or of the validation split if there is no test split.

    Left out are those that the champion was trained on, and every photo in a near-duplicate group of the challenger's
    with such a photo. A near-duplicate of a training photo that has since left the data, or is quarantined, is asked:
    the groups do not know that photo. The champion's validation split chose its epoch and so is left out too, unless
    validation photos are asked: they chose the epoch of both.

    Args:
        rows: The challenger's image table.
        champion_rows: The champion's.

    Raises:
        PawlineError: None is left.
    """
    kept = [row for row in rows if row.status == "kept"]
    split: Literal["test", "val"] = "test" if any(row.split == "test" for row in kept) else "val"
    spoilt = ("train", "val") if split == "test" else ("train",)
    trained_on = {row.id for row in champion_rows or [] if row.split in spoilt}
    groups = {row.group for row in kept if row.id in trained_on}
    of_split = [row for row in kept if row.split == split]
    asked = [row for row in of_split if row.group not in groups]
    if not asked:
        raise PawlineError(
            f"nothing to compare on: the champion was trained on all {len(of_split):,} photos of the {split} split; "
            "set validate.splits.test and validate.splits.val in params.yaml to what they were, or add photos"
        )
    known = None if champion_rows is None else {row.id for row in champion_rows}
    return Photos(split, asked, len(of_split) - len(asked), known)


def count(rows: list[dict[str, Any]], images_path: Path, photos: Photos) -> Tally:
    """Count who was right, on all photos and on parts of them.

    Args:
        rows: Answers: id, label, and what each model said.
        images_path: The challenger's image table.
        photos: What was asked.
    """
    right = {
        name: [row[name] == row["label"] for row in rows] if name in rows[0] else [False] * len(rows)
        for name in (CHALLENGER, CHAMPION)
    }
    pairs = Counter(zip(right[CHALLENGER], right[CHAMPION], strict=True))
    answers = Answers(
        both_right=pairs[True, True],
        only_challenger=pairs[True, False],
        only_champion=pairs[False, True],
        both_wrong=pairs[False, False],
    )
    parts = _count_slices(rows, tables.read_table(images_path))
    if photos.known is not None:
        parts += _count_known(rows, right, photos.known)
    group_of = {row.id: row.group for row in photos.asked}
    groups = count_groups((group_of[row["id"]] for row in rows), right[CHALLENGER], right[CHAMPION])
    return Tally(photos.split, photos.left_out, answers, parts, groups)


def count_groups(groups: Iterable[str], challenger: Iterable[bool], champion: Iterable[bool]) -> tuple[int, int]:
    """Count the near-duplicate groups of which the challenger recognised more photos, and of which fewer.

    Args:
        groups: The group of each photo; a photo without near-duplicates has one of its own.
        challenger: Whether the challenger recognised the photo.
        champion: Whether the champion did.
    """
    leads: Counter[str] = Counter()
    for group, new, old in zip(groups, challenger, champion, strict=True):
        leads[group] += new - old
    return sum(lead > 0 for lead in leads.values()), sum(lead < 0 for lead in leads.values())


def _count_slices(rows: list[dict[str, Any]], images: Any) -> list[SliceResult]:  # noqa: ANN401 - a pyarrow table
    import pyarrow as pa

    from tasks.slices import slices

    def cut(name: str) -> list[Any]:
        said = [{"id": row["id"], "label": row["label"], "predicted": row[name]} for row in rows]
        return list(slices(pa.Table.from_pylist(said), images))

    challengers = cut(CHALLENGER)
    champions: list[Any] = cut(CHAMPION) if CHAMPION in rows[0] else [None] * len(challengers)
    return [
        SliceResult(
            by=part.by,
            value=part.value,
            images=part.images,
            challenger=part.correct,
            champion=None if other is None else other.correct,
        )
        for part, other in zip(challengers, champions, strict=True)  # of the same photos, so in the same order
    ]


def _count_known(rows: list[dict[str, Any]], right: dict[str, list[bool]], known: set[str]) -> list[SliceResult]:
    """Count the photos that the champion's data have and those that came later: bad new labels show on the former."""
    parts = []
    for value, is_known in ((KNOWN, True), (NEW, False)):
        here = [at for at, row in enumerate(rows) if (row["id"] in known) is is_known]
        if here:
            said = {name: sum(right[name][at] for at in here) for name in (CHALLENGER, CHAMPION)}
            parts.append(SliceResult(by="photos", value=value, images=len(here), **said))
    return parts
