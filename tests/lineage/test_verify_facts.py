"""What files say of each other, in tables made by hand."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lineage.kept import Kept
from lineage.links import Link
from lineage.verify_facts import EVALUATION, IMAGES, PREDICTIONS, verify_facts

PHOTOS = [
    {"id": name, "label": label, "status": "kept", "split": "test"} for name, label in (("a", "cat"), ("b", "dog"))
]
RIGHT = {"id": "a", "label": "cat", "predicted": "cat", "split": "test"}
WRONG = {"id": "b", "label": "dog", "predicted": "cat", "split": "test"}


def check(folder: Path, predictions: list[dict[str, Any]]) -> Link:
    """Verify an evaluation whose figures are those of the predictions."""
    right = sum(row["label"] == row["predicted"] for row in predictions)
    noted = {"split": "test", "images": len(predictions), "accuracy": right / len(predictions)}
    copies = {path: folder / Path(path).name for path in (EVALUATION, IMAGES, PREDICTIONS)}
    copies[EVALUATION].write_text(json.dumps(noted))
    for path, rows in ((IMAGES, PHOTOS), (PREDICTIONS, predictions)):
        pq.write_table(pa.Table.from_pylist(rows), copies[path])
    [link] = verify_facts(Kept(folder, None, workspace=True), copies)
    return link


def test_each_photo_counts_once(tmp_path: Path) -> None:
    assert check(tmp_path, [RIGHT, WRONG]).status == "verified"
    flattered = check(tmp_path, [RIGHT] * 9 + [WRONG])
    assert flattered.status == "tampered"
    assert flattered.detail.startswith(f"{PREDICTIONS} is not of the test photos of {IMAGES}, each once")
    assert check(tmp_path, [RIGHT]).status == "tampered", "a photo is left out"
