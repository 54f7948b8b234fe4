"""What the report says of the data: what was quarantined, what is double, how large it is, which labels look wrong."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks import gallery, stage, tables
from tasks.image_table import ImageRow
from tasks.report import figures_data
from tasks.slices import SQUARE_WITHIN
from tasks.words import percent

MOST_SUSPECTS = 24
LEAST_OUT_OF_FOLD = 0.8  # below it most labels that a model doubts are its own mistakes


def data_facts(rows: Sequence[ImageRow]) -> dict[str, Any]:
    """Return the quarantined files by reason, the groups of near-duplicates, and sizes, from the image table."""
    kept = [row for row in rows if not row.reason]
    groups = gallery.near_duplicates(kept)
    formats = Counter(row.format for row in kept)
    return {
        "quarantined": gallery.group_by_reason(rows),
        "near_duplicates": groups[: gallery.MOST_GROUPS],
        "near_duplicate_groups": len(groups),
        "near_duplicate_photos": sum(group.count for group in groups),
        "reasons": Counter(row.reason for row in rows if row.reason),
        "formats": sorted(formats.items(), key=lambda item: (-item[1], item[0])),
        **size_facts(kept),
    }


def size_facts(kept: Sequence[ImageRow]) -> dict[str, Any]:
    """Return the distributions of short side and aspect, drawn and in words; sizes are as stored."""
    sides = [min(row.width, row.height) for row in kept]
    aspects = [row.width / row.height for row in kept]
    low, median, high = np.quantile(sides, [0.25, 0.5, 0.75])
    side_finding = (
        f"Half of the kept photos have a short side of {low:.0f} to {high:.0f} px (median {median:.0f}); "
        f"the smallest has {min(sides):,} px, the largest {max(sides):,} px."
    )
    landscape = sum(aspect > SQUARE_WITHIN for aspect in aspects) / len(kept)
    portrait = sum(aspect < 1 / SQUARE_WITHIN for aspect in aspects) / len(kept)
    square = max(0.0, 1 - landscape - portrait)
    aspect_finding = (
        f"{percent(landscape)} are landscape, {percent(portrait)} portrait, {percent(square)} about square; the widest "
        f"is {max(aspects):.1f} times as wide as high, the tallest {1 / min(aspects):.1f} times as high as wide."
    )
    return {
        "side_finding": side_finding,
        "aspect_finding": aspect_finding,
        "short_sides": figures_data.draw_short_sides(sides, side_finding),
        "aspects": figures_data.draw_aspects(aspects, aspect_finding),
    }


def label_error_facts(table_path: Path, metrics_path: Path) -> dict[str, Any]:
    """Return the likely label errors, the likeliest first, and how they were found."""
    table = tables.read_table(table_path)
    found = stage.read_json(metrics_path)
    accuracy = found["out_of_fold_accuracy"]
    return {
        "label_errors": found,
        "too_hard_to_check": accuracy is not None and accuracy < LEAST_OUT_OF_FOLD,
        "suspects": table.slice(0, MOST_SUSPECTS).to_pylist(),
    }
