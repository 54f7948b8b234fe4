"""What is on record of a run, for its model card."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lineage.lockfile import LockedPath, LockedStage
from lineage.records import Lineage
from lineage.runs import Project

if TYPE_CHECKING:
    import pyarrow as pa

NOT_RECORDED = "not recorded"


class Recorded(dict[str, Any]):
    """Parameters by dotted key; those that an older run did not have are not recorded."""

    def __missing__(self, key: str) -> str:
        """Return the words for what is not there."""
        return NOT_RECORDED


@dataclass(frozen=True)
class CardRun:
    """What is on record of a run.

    Attributes:
        lineage: The run.
        params: Of all stages.
        validation: reports/metrics/validation.json; None, as the following, if its bytes are nowhere.
        stage1: models/stage1/summary.json.
        stage2: models/stage2/summary.json.
        predictions: data/predictions.parquet.
        images: data/images.parquet.
    """

    lineage: Lineage
    params: Recorded
    validation: dict[str, Any] | None
    stage1: dict[str, Any] | None
    stage2: dict[str, Any] | None
    predictions: "pa.Table | None"
    images: "pa.Table | None"

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of the classifier's answers."""
        counts = self.lineage.counts
        return list((self.stage1 or {}).get("labels") or (counts.labels if counts else []))

    @property
    def synthetic(self) -> bool:
        """Whether the pictures were drawn by Pawline."""
        return bool(self.params["data.source"] == "synthetic")


def read_run(project: Project, lineage: Lineage) -> CardRun:
    """Read the files that the card needs, by the hashes of the lineage.

    Raises:
        PawlineError: The cache holds something else under one of these hashes.
    """
    from lineage.tables import read_columns

    lock = {
        stage.name: LockedStage(
            stage.name,
            stage.command,
            outs=tuple(LockedPath(out.path, out.md5, out.bytes, out.files) for out in stage.outputs),
        )
        for stage in lineage.stages
    }

    def read(path: str) -> Any:  # noqa: ANN401 - JSON or a table
        content = project.store.read_path(lock, path)
        if content is None:
            return None
        return read_columns(content) if path.endswith(".parquet") else json.loads(content)

    return CardRun(
        lineage=lineage,
        params=Recorded({key: value for stage in lineage.stages for key, value in stage.params.items()}),
        validation=read("reports/metrics/validation.json"),
        stage1=read("models/stage1/summary.json"),
        stage2=read("models/stage2/summary.json"),
        predictions=read("data/predictions.parquet"),
        images=read("data/images.parquet"),
    )
