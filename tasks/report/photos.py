"""Which photos the report shows by themselves, and their pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks import gallery, tables
from tasks.image_table import ImageRow


def explanation_facts(explanations_path: Path) -> dict[str, Any]:
    """Return the surest wrong answers and the least sure right ones, each with its Grad-CAM overlay."""
    rows = tables.read_table(explanations_path).to_pylist()
    explained = [row | {"overlay": gallery.shrink(row["overlay"])} for row in rows]
    return {f"{kind}_answers": [row for row in explained if row["kind"] == kind] for kind in ("wrong", "unsure")}


def thumbnail_facts(raw_dir: Path, rows: Sequence[ImageRow], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return thumbnails by path of every photo that the other facts show."""
    several = [*facts["quarantined"], *facts["near_duplicates"]]
    shown = {row.path for group in several for row in group.rows}
    single = ("suspects", "sample", "wrong_answers", "unsure_answers")
    shown |= {photo["path"] for name in single for photo in facts[name]}
    return {"thumbnails": gallery.make_thumbnails(raw_dir, [row for row in rows if row.path in shown])}
