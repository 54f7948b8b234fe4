"""The graph of the stages, and the hashes of what the report read, by which `pawline lineage` finds the run again.

dvc.yaml is what DVC runs; the picture of it here is held to it by a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import graph_layout
from tasks.dvc_hash import FOLDER_SUFFIX, hash_path

SHORT_HASH = 7  # characters in the picture
HASHES_IN_BOX = 2
SOURCES = {
    "synthetic": "drawn by Pawline's generator: not photos",
    "archive": "an archive",
    "directory": "a folder of class folders",
    "tfds": "a TensorFlow Datasets data set, its files as TFDS stores them",
}


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml: the outputs it reads, without those of itself, and those it writes."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Artifact:
    """An output of a stage: `md5` as in dvc.lock; None if the report does not read it."""

    stage: str
    path: str
    md5: str | None


STAGES = {
    "source": Stage((), ("data/source.json", "data/weights.json")),
    "ingest": Stage(("data/source.json",), ("data/raw",)),
    "validate": Stage(
        ("data/raw",),
        ("data/images.parquet", "data/verdicts", "reports/validation", "reports/metrics/validation.json"),
    ),
    "preprocess": Stage(("data/raw", "data/images.parquet"), ("data/tfrecords", "data/tfrecords.json")),
    "backbone": Stage(("data/weights.json",), ("models/backbone",)),
    "features": Stage(("data/tfrecords", "models/backbone"), ("data/features", "data/features.json")),
    "train_head": Stage(("data/features", "models/backbone"), ("models/stage1",)),
    "fine_tune": Stage(
        ("data/features", "models/backbone", "models/stage1"), ("models/stage2", "models/classifier.keras")
    ),
    "evaluate": Stage(
        ("data/tfrecords", "data/features", "models/stage1", "models/stage2", "models/classifier.keras"),
        ("data/predictions.parquet", "reports/plots", "reports/metrics/evaluation.json"),
    ),
    "label_errors": Stage(
        ("data/features", "data/images.parquet"), ("data/label_errors.parquet", "reports/metrics/label_errors.json")
    ),
    "probe": Stage(
        ("data/tfrecords", "models/classifier.keras", "data/predictions.parquet"),
        ("data/explanations.parquet", "reports/metrics/robustness.json"),
    ),
    "export": Stage(
        ("data/tfrecords", "data/raw", "data/images.parquet", "models/classifier.keras"), ("models/export",)
    ),
    "report": Stage(
        (
            *("data/source.json", "data/raw", "data/images.parquet", "data/predictions.parquet"),
            *("data/label_errors.parquet", "data/explanations.parquet"),
            *("models/backbone", "models/stage1", "models/stage2", "models/export"),
            *("reports/metrics/validation.json", "reports/metrics/evaluation.json"),
            *("reports/metrics/label_errors.json", "reports/metrics/robustness.json", "reports/plots"),
        ),
        ("reports/index.html", "reports/summary.md"),
    ),
}


def lineage_facts(places: Mapping[str, Path]) -> dict[str, Any]:
    """Return the picture of the graph and the hashes.

    Args:
        places: Where each output that the report reads is, by its path in dvc.yaml.
    """
    artifacts = [
        Artifact(name, path, hash_path(places[path]) if path in places else None)
        for name, stage in STAGES.items()
        for path in stage.writes
        if name != "report"
    ]
    return {
        "artifacts": artifacts,
        "graph": graph_layout.draw(list(STAGES), read_graph()),
        "box_facts": {name: _box_fact(name, artifacts) for name in STAGES},
    }


def read_graph() -> graph_layout.Graph:
    """Return what each stage reads of other stages."""
    writer = {path: index for index, stage in enumerate(STAGES.values()) for path in stage.writes}
    return {index: sorted({writer[path] for path in stage.reads}) for index, stage in enumerate(STAGES.values())}


def _box_fact(name: str, artifacts: list[Artifact]) -> str:
    """Return what stands under a stage's name: short hashes of what the report read of it."""
    if name == "report":
        return "this page"
    hashes = [artifact.md5[:SHORT_HASH] for artifact in artifacts if artifact.stage == name and artifact.md5]
    if not hashes:
        return "not read by this page"
    return ", ".join(hashes[:HASHES_IN_BOX]) + (", ..." if len(hashes) > HASHES_IN_BOX else "")


def is_folder(artifact: Artifact) -> bool:
    """Say whether an artifact is a folder, whose hash is that of its list of files."""
    return artifact.md5 is not None and artifact.md5.endswith(FOLDER_SUFFIX)
