"""Splits: train, val and test, decided by what a photo looks like and never by where it stands in the source.

A stable hash of the photo's duplicate group decides, so that new photos never move old ones and near-duplicates never
straddle. Predefined splits of the source are respected.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tasks.close_hashes import Hashes
from tasks.duplicates import near_duplicate_groups
from tasks.image_table import SPLITS, ImageRow
from tasks.params import SplitShares


def assign_splits(
    rows: Iterable[ImageRow], *, shares: SplitShares, close_hashes: Hashes, kept_ids: Iterable[str]
) -> list[ImageRow]:
    """Give every kept photo its group and split; the order of the rows changes.

    `close_hashes` are the pairs of perceptual hashes that make near-duplicates (`find_close_pairs`).

    A group that straddles predefined splits stays whole in the most precious one (test before val before train); its
    other members are quarantined as `split_leak`, except `kept_ids`, which become groups of their own.
    """
    rows, kept_ids = list(rows), set(kept_ids)
    predefined = predefined_splits(rows)
    assigned = [replace(row, split="") for row in rows if row.reason]
    kept = [replace(row, split=(row.split or "train") if predefined else "") for row in rows if not row.reason]
    for members in near_duplicate_groups(kept, close_hashes):
        whole, leaks = _without_leaks(members)
        group = min(row.id for row in whole)
        split = _split_of(group, whole[0].split, predefined, shares)
        assigned += [replace(row, group=group, split=split) for row in whole]
        for row in leaks:
            evidence = f"looks the same as {whole[0].path} of split {split}"
            if row.id in kept_ids:
                split_alone = _split_of(row.id, row.split, predefined, shares)
                evidence = f"kept by a person; otherwise split_leak: {evidence}"
                assigned.append(replace(row, group=row.id, split=split_alone, evidence=evidence))
            else:
                assigned.append(replace(row, reason="split_leak", split="", evidence=evidence))
    return assigned


def predefined_splits(rows: Iterable[ImageRow]) -> frozenset[str]:
    """Return the splits that the source itself defines; empty when it has no evaluation folder."""
    splits = frozenset(row.split or "train" for row in rows)
    return splits if splits - {"train"} else frozenset()


def required_splits(rows: Iterable[ImageRow], shares: SplitShares) -> list[str]:
    """Return the splits in which every class must have photos."""
    predefined = predefined_splits(rows)
    if predefined:
        return [split for split in SPLITS if split != "test" or split in predefined]
    return [split for split in SPLITS if getattr(shares, split) > 0]


def hash_split(group: str, shares: SplitShares) -> str:
    """Map a group to train, val or test by a stable hash that is uniform over [0, 1)."""
    position = int(hashlib.sha256(group.encode()).hexdigest()[:16], 16) / 2**64
    if position < shares.train:
        return "train"
    return "val" if position < shares.train + shares.val or shares.test == 0 else "test"


def _split_of(group: str, own_split: str, predefined: frozenset[str], shares: SplitShares) -> str:
    if not predefined:
        return hash_split(group, shares)
    if own_split == "train" and "val" not in predefined:  # the source has no validation folder: take a part of train
        training = shares.train + shares.val
        return hash_split(group, SplitShares(train=shares.train / training, val=shares.val / training, test=0.0))
    return own_split


def _without_leaks(members: Sequence[ImageRow]) -> tuple[list[ImageRow], list[ImageRow]]:
    """Part a group's members into those of its most precious split and the others."""
    own_splits = {row.split for row in members}
    if len(own_splits) == 1:
        return list(members), []
    precious = max(own_splits, key=SPLITS.index)
    return [row for row in members if row.split == precious], [row for row in members if row.split != precious]
