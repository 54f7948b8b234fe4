"""Stage `report`: what came out, on one page that stands by itself.

reads   data/raw/, data/images.parquet, data/source.json, data/predictions.parquet, reports/metrics/, reports/plots/,
        models/stage1/, models/stage2/, models/backbone/origin.json, models/export/export.json
writes  reports/index.html (no scripts, nothing loaded; links to the Data Docs beside it)

python -m tasks.report    (about three seconds, and one for each 10,000 images)
"""

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tasks import figures, gallery, stage
from tasks.image_table import SPLITS, read_images

log = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("report.html.j2")
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Where the outputs of the earlier stages are."""

    raw_dir: Path
    images_path: Path
    source_path: Path
    validation_path: Path
    evaluation_path: Path
    predictions_path: Path
    plots_dir: Path
    stage1_dir: Path
    stage2_dir: Path
    origin_path: Path
    export_path: Path


def report(*, inputs: ReportInputs, report_out: Path) -> None:
    """Write the page.

    Raises:
        stage.PawlineError: If an input is missing.
    """
    for field in fields(inputs):
        if not getattr(inputs, field.name).exists():
            raise stage.PawlineError(f"{getattr(inputs, field.name)} is missing: run `dvc repro` first")
    evaluation = _read_json(inputs.evaluation_path)
    facts = {
        "evaluation": evaluation,
        "evaluated": SPLIT_NAMES[evaluation["split"]],
        "validation": _read_json(inputs.validation_path),
        "source": _read_json(inputs.source_path),
        "origin": _read_json(inputs.origin_path),
        "export": _read_json(inputs.export_path),
        "split_names": {split: SPLIT_NAMES[split] for split in SPLITS},
        **training_facts(inputs.stage1_dir, inputs.stage2_dir),
        **error_facts(inputs.plots_dir),
        **gallery_facts(inputs),
    }
    with stage.whole_file(report_out) as unfinished:
        unfinished.write_text(render(facts), encoding="utf-8")
    log.info(
        "report: accuracy %.3f on %s images of %s, page in %s (%.1f MB)",
        *(evaluation["accuracy"], f"{evaluation['images']:,}", evaluation["split"]),
        *(report_out, report_out.stat().st_size / 1e6),
    )


def training_facts(stage1_dir: Path, stage2_dir: Path) -> dict[str, Any]:
    """Return the stages' summaries, why one was selected, and the drawn curves."""
    summaries = {folder.name: _read_json(folder / "summary.json") for folder in (stage1_dir, stage2_dir)}
    stage1, stage2 = summaries.values()
    curves = [_read_curves("stage 1", stage1_dir, stage1)]
    if stage2["best"] is not None:
        curves.append(_read_curves("stage 2", stage2_dir, stage2))
    return {
        "labels": stage1["labels"],
        "stage1": stage1,
        "stage2": stage2,
        "why_selected": explain_selection(stage1["best"], stage2),
        "loss_curves": figures.draw_curves(curves, "loss"),
        "accuracy_curves": figures.draw_curves(curves, "accuracy"),
        "learning_rates": figures.draw_learning_rates(curves),
    }


def explain_selection(best1: Mapping[str, float], stage2: Mapping[str, Any]) -> str:
    """Say in words why the selected stage was selected."""
    best2 = stage2["best"]
    if best2 is None:
        return "Stage 1 is the classifier: nothing was unfrozen (fine_tune.unfrozen_layers comes to 0)."
    accuracies = f"{percent(best2['val_accuracy'])} against {percent(best1['val_accuracy'])}"
    losses = f"{best2['val_loss']:.4f} against {best1['val_loss']:.4f}"
    selected = stage2["selected"] == "stage2"
    verdict = "Stage 2 was selected" if selected else "Stage 1 was kept, stage 2 discarded"
    if best1["val_accuracy"] == best2["val_accuracy"]:
        compared = "lower" if best2["val_loss"] < best1["val_loss"] else "not lower"
        equal = f"both reach a validation accuracy of {percent(best1['val_accuracy'])}"
        return f"{verdict}: {equal}, and stage 2's validation loss is {compared}, {losses}."
    compared = "higher" if best2["val_accuracy"] > best1["val_accuracy"] else "lower"
    return f"{verdict}: stage 2's validation accuracy is {compared}, {accuracies}."


def error_facts(plots_dir: Path) -> dict[str, Any]:
    """Return the confusion counts, by (actual, predicted) label, and the ROC curves with the area under each."""
    with (plots_dir / "confusion.csv").open(newline="", encoding="utf-8") as file:
        confusion = Counter((row["actual"], row["predicted"]) for row in csv.DictReader(file))
    with (plots_dir / "roc.csv").open(newline="", encoding="utf-8") as file:
        curves = {
            label: [(float(row["false_positive_rate"]), float(row["true_positive_rate"])) for row in rows]
            for label, rows in groupby(csv.DictReader(file), key=lambda row: row["class"])
        }
    return {
        "confusion": confusion,
        "actual_counts": Counter(actual for actual, _ in confusion.elements()),
        "roc": figures.draw_roc(list(curves.values())),
        "roc_legend": [
            (label, figures.class_colour(index, len(curves)), area_under(curve))
            for index, (label, curve) in enumerate(curves.items())
        ],
    }


def area_under(curve: list[figures.Point]) -> float | None:
    """Return the area under a ROC curve by the trapezoidal rule; None for a class without, or with only, positives."""
    if curve[-1] != (1.0, 1.0):
        return None
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(curve))


def gallery_facts(inputs: ReportInputs) -> dict[str, Any]:
    """Return the quarantined files by reason, the worst mistakes, and thumbnails of both."""
    rows = read_images(inputs.images_path)
    quarantined = gallery.group_by_reason(rows)
    mistakes, mistake_count = gallery.worst_mistakes(inputs.predictions_path)
    shown = {mistake.path for mistake in mistakes}
    pictured = [row for group in quarantined for row in group.rows] + [row for row in rows if row.path in shown]
    return {
        "quarantined": quarantined,
        "mistakes": mistakes,
        "mistake_count": mistake_count,
        "thumbnails": gallery.make_thumbnails(inputs.raw_dir, pictured),
    }


def render(facts: Mapping[str, Any]) -> str:
    """Fill in the template; every value is shown as text, whatever it holds."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=visible, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"count": "{:,}".format, "figure": figure, "percent": percent, "megabytes": megabytes}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(facts)


def visible(value: object) -> object:
    """Spell out characters that would not be seen, or would reorder the text around them."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)
    return value


def percent(share: float) -> str:
    """Format a share: 98.4 %."""
    return f"{share:.1%}".replace("%", " %")


def figure(value: float | None) -> str:
    """Format a figure of merit."""
    return "unknown" if value is None else f"{value:.4f}"


def megabytes(size: int) -> str:
    """Format a number of bytes."""
    return f"{size / 1e6:,.1f} MB"


def _read_curves(name: str, folder: Path, summary: Mapping[str, Any]) -> figures.StageCurves:
    batches, epochs = (list(_read_numbers(folder / f"{rows}.csv")) for rows in ("batches", "epochs"))
    return figures.StageCurves(name, batches, epochs, int(summary["best"]["epoch"]))


def _read_numbers(path: Path) -> Iterator[figures.Row]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {key: float(value) for key, value in row.items()}


def _read_json(path: Path) -> Any:  # noqa: ANN401
    return json.loads(path.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--raw-dir", "data/raw", "reads: pictures for the galleries")
    stage.add_path(parser, "--images-path", "data/images.parquet", "reads: the image table")
    stage.add_path(parser, "--source-path", "data/source.json", "reads: where the photos came from")
    stage.add_path(parser, "--validation-path", "reports/metrics/validation.json", "reads: counts")
    stage.add_path(parser, "--evaluation-path", "reports/metrics/evaluation.json", "reads: figures")
    stage.add_path(parser, "--predictions-path", "data/predictions.parquet", "reads: mistakes")
    stage.add_path(parser, "--plots-dir", "reports/plots", "reads: confusion.csv, roc.csv")
    stage.add_path(parser, "--stage1-dir", "models/stage1", "reads: curves and summary")
    stage.add_path(parser, "--stage2-dir", "models/stage2", "reads: curves and summary")
    stage.add_path(parser, "--origin-path", "models/backbone/origin.json", "reads: where the weights came from")
    stage.add_path(parser, "--export-path", "models/export/export.json", "reads: formats, sizes, differences")
    stage.add_path(parser, "--report-out", "reports/index.html", "writes: the page")
    args = vars(parser.parse_args(argv))
    report(report_out=args.pop("report_out"), inputs=ReportInputs(**args))


if __name__ == "__main__":
    stage.run(main)
