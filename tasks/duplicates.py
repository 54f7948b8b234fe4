"""Duplicates: the same bytes twice, the same bytes under two labels, and pictures that look the same."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tasks.close_hashes import Hashes
from tasks.image_table import SPLITS, ImageRow


def quarantine_conflicts(rows: Iterable[ImageRow], kept_labels: Mapping[str, str]) -> list[ImageRow]:
    """Quarantine photos whose very bytes stand under more than one label, since nobody can say which is right.

    Args:
        rows: Photos with and without a reason already.
        kept_labels: For an id that a person decided, the label it is kept under.
    """
    rows = list(rows)
    labels_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if not row.reason:
            labels_of[row.id].add(row.label)
    return [
        row if row.reason or len(labels_of[row.id]) == 1 else _conflict(row, labels_of[row.id], kept_labels.get(row.id))
        for row in rows
    ]


def _conflict(row: ImageRow, labels: set[str], kept_label: str | None) -> ImageRow:
    others = ", ".join(sorted(labels - {row.label}))
    evidence = f"the same bytes are also under {others}"
    if row.label == kept_label:
        return replace(row, evidence=f"kept by a person; otherwise label_conflict: {evidence}")
    return replace(row, reason="label_conflict", evidence=evidence)


def quarantine_exact_duplicates(rows: Iterable[ImageRow]) -> list[ImageRow]:
    """Keep one of the files with the same bytes: of the most precious split, then the first in natural order."""
    rows = list(rows)
    original_of: dict[str, ImageRow] = {}
    for row in sorted(rows, key=_precious_first):
        if not row.reason:
            original_of.setdefault(row.id, row)
    return [
        row
        if row.reason or original_of[row.id] is row
        else replace(
            row,
            reason="exact_duplicate",
            duplicate_of=original_of[row.id].path,
            evidence=f"the same bytes as {original_of[row.id].path}",
        )
        for row in rows
    ]


def hashes_of(rows: Iterable[ImageRow]) -> Hashes:
    """Return the perceptual hashes of decodable photos, uint64."""
    return np.array([int(row.perceptual_hash, 16) for row in rows if row.perceptual_hash], np.uint64)


def near_duplicate_groups(rows: Sequence[ImageRow], pairs: Hashes) -> list[list[ImageRow]]:
    """Group photos that look the same; a photo alone is a group of one.

    Args:
        rows: Decodable photos.
        pairs: Of `find_close_pairs`: photos of such hashes are near-duplicates, and so are theirs (connected
            components). Pairs of hashes that no photo has do not count.
    """
    distinct, position = np.unique(hashes_of(rows), return_inverse=True)
    parents = list(range(len(distinct)))
    for left, right in np.searchsorted(distinct, pairs[np.isin(pairs, distinct).all(axis=1)]).tolist():
        parents[_root(parents, left)] = _root(parents, right)
    groups: dict[int, list[ImageRow]] = defaultdict(list)
    for row, hash_index in zip(rows, position.tolist(), strict=True):
        groups[_root(parents, hash_index)].append(row)
    return list(groups.values())


def natural_order(path: str) -> str:
    """Sort key that puts 2 before 10."""
    return re.sub("[0-9]+", lambda number: number[0].zfill(20), path)


def _precious_first(row: ImageRow) -> tuple[int, str, str]:
    return -SPLITS.index(row.split or "train"), natural_order(row.path), row.path


def _root(parents: list[int], node: int) -> int:
    """Find the representative of a node's component, halving the path to it."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node
