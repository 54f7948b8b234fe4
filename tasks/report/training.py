"""What the report says of the training: curves, what was frozen, which stage was selected, and how long it took."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import stage
from tasks.report import figures_training
from tasks.report.figures_training import Row, StageCurves
from tasks.words import explain_selection


@dataclass(frozen=True)
class Pace:
    """How long a stage trained: `images` went through it in `seconds`, start and validation included."""

    seconds: float
    images: int

    @property
    def images_a_second(self) -> float:
        """The rate."""
        return self.images / self.seconds


def training_facts(stage1_dir: Path, stage2_dir: Path, times: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the stages' summaries, why one was selected, the drawn curves, and the pace of each.

    Args:
        stage1_dir: Of `train_head`.
        stage2_dir: Of `fine_tune`.
        times: `seconds` of stages, as far as they are known.
    """
    summaries = {folder.name: stage.read_json(folder / "summary.json") for folder in (stage1_dir, stage2_dir)}
    stage1, stage2 = summaries.values()
    curves = [read_curves("stage 1", stage1_dir, stage1)]
    if stage2["best"] is not None:
        curves.append(read_curves("stage 2", stage2_dir, stage2))
    names = ("train_head", "fine_tune")
    return {
        "labels": stage1["labels"],
        "stage1": stage1,
        "stage2": stage2,
        "why_selected": explain_selection(stage1["best"], stage2),
        "paces": [_pace(times.get(name), curve) for name, curve in zip(names, curves, strict=False)],
        "rates": [_rate_range(curve) for curve in curves],
        "loss_curves": figures_training.draw_curves(curves, "loss"),
        "accuracy_curves": figures_training.draw_curves(curves, "accuracy"),
        "learning_rates": figures_training.draw_learning_rates(curves),
    }


def read_curves(name: str, folder: Path, summary: Mapping[str, Any]) -> StageCurves:
    """Read a training stage's history."""
    batches, epochs = (list(_read_numbers(folder / f"{rows}.csv")) for rows in ("batches", "epochs"))
    return StageCurves(name, batches, epochs, int(summary["best"]["epoch"]))


def _pace(time: Mapping[str, float] | None, curves: StageCurves) -> Pace | None:
    if time is None or not time["seconds"]:
        return None
    return Pace(time["seconds"], int(sum(row["images"] for row in curves.batches)))


def _rate_range(curves: StageCurves) -> str:
    """Say which learning rates a stage had: one, or the highest and the last."""
    rates = [row["learning_rate"] for row in curves.batches]
    return f"{rates[0]:.2g}" if min(rates) == max(rates) else f"{max(rates):.2g} at most, {rates[-1]:.2g} at the end"


def _read_numbers(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {key: float(value) for key, value in row.items()}
