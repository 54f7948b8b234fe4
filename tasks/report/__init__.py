"""Stage `report`: what came out, on one page that stands by itself, and the same facts in Markdown.

reads   data/source.json, data/raw/, data/images.parquet, data/predictions.parquet, data/label_errors.parquet,
        data/explanations.parquet, reports/metrics/, reports/plots/, models/backbone/, models/stage1/, models/stage2/,
        models/export/, reports/context.json
writes  reports/index.html (no scripts, nothing loaded; links to the Data Docs beside it), reports/summary.md

python -m tasks.report    (about six seconds, and one for each 5,000 images)

What no stage may know, such as the champion and times, is in reports/context.json, which `pawline report` writes.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import seals, stage, tables
from tasks.image_table import SPLITS, read_images
from tasks.report.answer import compare, read_context
from tasks.report.data import data_facts, label_error_facts
from tasks.report.evaluation import (
    calibration_facts,
    curve_facts,
    error_facts,
    robustness_facts,
    sample_facts,
    slice_facts,
)
from tasks.report.lineage import SOURCES, lineage_facts
from tasks.report.photos import explanation_facts, thumbnail_facts
from tasks.report.render import render_page, render_summary
from tasks.report.training import training_facts
from tasks.words import SPLIT_NAMES, counted, name_formats

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Where the outputs of the earlier stages are, and the context."""

    source_path: Path
    raw_dir: Path
    images_path: Path
    predictions_path: Path
    label_errors_path: Path
    explanations_path: Path
    metrics_dir: Path
    plots_dir: Path
    backbone_dir: Path
    stage1_dir: Path
    stage2_dir: Path
    export_dir: Path
    context_path: Path

    def places(self) -> dict[str, Path]:
        """Return where each output that is read is, by its path in dvc.yaml."""
        metrics = ("validation", "evaluation", "label_errors", "robustness")
        return {
            "data/source.json": self.source_path,
            "data/raw": self.raw_dir,
            "data/images.parquet": self.images_path,
            "data/predictions.parquet": self.predictions_path,
            "data/label_errors.parquet": self.label_errors_path,
            "data/explanations.parquet": self.explanations_path,
            "reports/plots": self.plots_dir,
            "models/backbone": self.backbone_dir,
            "models/stage1": self.stage1_dir,
            "models/stage2": self.stage2_dir,
            "models/export": self.export_dir,
            **{f"reports/metrics/{name}.json": self.metrics_dir / f"{name}.json" for name in metrics},
        }


def report(*, inputs: ReportInputs, report_out: Path, summary_out: Path) -> None:
    """Write the page and the summary.

    Raises:
        stage.PawlineError: If an input is missing.
    """
    for path in (*inputs.places().values(), inputs.context_path):
        if not path.exists():
            raise stage.PawlineError(f"{path} is missing: run `dvc repro` first")
    for folder in (inputs.backbone_dir, inputs.stage1_dir, inputs.stage2_dir, inputs.plots_dir):
        seals.check(folder)
    # What has no checksum of its own is the metrics.
    with (
        stage.reading(inputs.metrics_dir),
        stage.whole_file(report_out) as page,
        stage.whole_file(summary_out) as summary,
    ):
        facts = collect(inputs)
        page.write_text(render_page(facts), encoding="utf-8")
        summary.write_text(render_summary(facts), encoding="utf-8")
    evaluation = facts["evaluation"]
    log.info(
        "report: accuracy %.3f on %s images of %s, page in %s (%.1f MB), summary in %s",
        *(evaluation["accuracy"], f"{evaluation['images']:,}", evaluation["split"]),
        *(report_out, report_out.stat().st_size / 1e6, summary_out),
    )


def collect(inputs: ReportInputs) -> dict[str, Any]:
    """Return everything that the page and the summary say."""
    evaluation = stage.read_json(inputs.metrics_dir / "evaluation.json")
    export = stage.read_json(inputs.export_dir / "export.json")
    context = read_context(inputs.context_path, export["classifier_sha256"])
    rows = read_images(inputs.images_path)
    predictions = tables.read_table(inputs.predictions_path)
    training = training_facts(inputs.stage1_dir, inputs.stage2_dir, context.stages)
    facts: dict[str, Any] = {
        "context": context,
        "comparison": compare(evaluation, context),
        "evaluation": evaluation,
        "evaluated": SPLIT_NAMES[evaluation["split"]],
        "validation": stage.read_json(inputs.metrics_dir / "validation.json"),
        "source": stage.read_json(inputs.source_path),
        "sources": SOURCES,
        "origin": stage.read_json(inputs.backbone_dir / "origin.json"),
        "export": export,
        "exports": name_formats(export["formats"]),
        "unread": list(_unread(export["formats"])),
        "refused": [(name, reason) for name, _, reason in name_formats(export["refused"])],
        "split_names": {split: SPLIT_NAMES[split] for split in SPLITS},
        **data_facts(rows),
        **label_error_facts(inputs.label_errors_path, inputs.metrics_dir / "label_errors.json"),
        **training,
        **error_facts(inputs.plots_dir, training["labels"]),
        **curve_facts(inputs.plots_dir),
        **calibration_facts(inputs.plots_dir, evaluation),
        **slice_facts(predictions, inputs.images_path, evaluation["accuracy"]),
        **sample_facts(predictions),
        **robustness_facts(stage.read_json(inputs.metrics_dir / "robustness.json")),
        **explanation_facts(inputs.explanations_path),
        **lineage_facts(inputs.places()),
    }
    return facts | thumbnail_facts(inputs.raw_dir, rows, facts)


def _unread(formats: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say which exports could not decode what; an older export.json does not tell of odd files."""
    for name, _, facts in name_formats(formats):
        counts = {"validation photo": facts["unread_images"], "odd file": facts.get("nasty_unread_images", 0)}
        if told := [counted(count, noun) for noun, count in counts.items() if count]:
            yield f"{name} cannot read {' and '.join(told)}."


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--source-path", "data/source.json", "reads: where the photos came from")
    stage.add_path(parser, "--raw-dir", "data/raw", "reads: pictures for the galleries")
    stage.add_path(parser, "--images-path", "data/images.parquet", "reads: the image table")
    stage.add_path(parser, "--predictions-path", "data/predictions.parquet", "reads: the classifier's answers")
    stage.add_path(parser, "--label-errors-path", "data/label_errors.parquet", "reads: labels that look wrong")
    stage.add_path(parser, "--explanations-path", "data/explanations.parquet", "reads: Grad-CAM overlays")
    stage.add_path(
        parser, "--metrics-dir", "reports/metrics", "reads: validation, evaluation, label_errors, robustness"
    )
    stage.add_path(parser, "--plots-dir", "reports/plots", "reads: the data of the plots")
    stage.add_path(parser, "--backbone-dir", "models/backbone", "reads: where the weights came from")
    stage.add_path(parser, "--stage1-dir", "models/stage1", "reads: curves and summary")
    stage.add_path(parser, "--stage2-dir", "models/stage2", "reads: curves and summary")
    stage.add_path(parser, "--export-dir", "models/export", "reads: formats, sizes, differences")
    stage.add_path(parser, "--context-path", "reports/context.json", "reads: the champion, times")
    stage.add_path(parser, "--report-out", "reports/index.html", "writes: the page")
    stage.add_path(parser, "--summary-out", "reports/summary.md", "writes: the same in Markdown")
    args = vars(parser.parse_args(argv))
    outs = {name: args.pop(name) for name in ("report_out", "summary_out")}
    report(inputs=ReportInputs(**args), **outs)
