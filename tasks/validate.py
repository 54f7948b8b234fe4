"""validate: decode every candidate file once, name what is wrong with it, find duplicates, assign splits.

Reads   data/raw/                        the candidate files, in Parquet shards
        params.yaml, section validate    thresholds, split shares, a person's verdicts
Writes  data/images.parquet              one row a file: verdict, evidence, duplicate group, split
        reports/validation/              Great Expectations' Data Docs: open index.html
        reports/metrics/validation.json  counts

Nothing is deleted: a file that is not fit is quarantined by its row's status and reason. When an expectation is not
met the stage fails: the Data Docs show why, and the other two outputs stay as they were.

    python -m tasks.validate

About 1,200 photos a second on two processors, and 3 seconds for Great Expectations.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tasks import stage
from tasks.cluster import map_chunks
from tasks.data_docs import write_data_docs
from tasks.duplicates import quarantine_conflicts, quarantine_exact_duplicates
from tasks.expectations import first_failure, run_suites
from tasks.image_table import SPLITS, ImageRow, write_images
from tasks.images import judge
from tasks.overrides import apply_overrides, parse_keep
from tasks.params import ValidateParams, load_section
from tasks.progress import Progress
from tasks.raw import Chunk, list_chunks, read_chunk
from tasks.splits import assign_splits, required_splits

log = logging.getLogger(__name__)


def validate(
    *, raw_dir: Path, images_out: Path, docs_out: Path, metrics_out: Path, params: ValidateParams
) -> dict[str, Any]:
    """Judge every file and write the image table, the Data Docs and the counts.

    Returns:
        The counts, as written to `metrics_out`.

    Raises:
        PawlineError: When an expectation is not met, an override makes no sense, or a worker process died.
    """
    candidates = judge_files(raw_dir, params)
    rows = decide(candidates, params)
    summary = summarize(rows)
    runs = run_suites(rows, params, required_splits(candidates, params.splits))
    with stage.whole_dir(docs_out) as unfinished:
        write_data_docs(runs, summary["by_reason"], unfinished)
    failure = first_failure(runs)
    if failure:
        raise stage.PawlineError(f"validation failed: {failure}; see {docs_out / 'index.html'}")
    with stage.whole_file(images_out) as unfinished, stage.whole_file(metrics_out) as unfinished_metrics:
        write_images(rows, unfinished)
        stage.write_json(summary, unfinished_metrics)
    return summary


def judge_files(raw_dir: Path, params: ValidateParams) -> list[ImageRow]:
    """Decode every file once, in parallel, and return a row for each, sorted by path."""
    chunks = list_chunks(raw_dir.absolute())
    if not chunks:
        raise stage.PawlineError(f"{raw_dir} holds no photos: run `dvc repro ingest` first")
    judge_one_chunk = partial(
        judge_chunk,
        min_side_px=params.min_side_px,
        max_pixels=params.max_pixels,
        blank_max_stddev=params.blank_max_stddev,
    )
    rows: list[ImageRow] = []
    with Progress("validate", total=sum(chunk.records for chunk in chunks)) as progress:
        for judged in map_chunks(judge_one_chunk, chunks):
            rows += judged
            progress.advance(len(judged))
    return sorted(rows, key=lambda row: row.path)


def judge_chunk(chunk: Chunk, *, min_side_px: int, max_pixels: int, blank_max_stddev: float) -> list[ImageRow]:
    """Judge the files of one chunk, each by its bytes alone; runs in a worker process."""
    rows = []
    for record in read_chunk(chunk):
        verdict = judge(
            record.content, min_side_px=min_side_px, max_pixels=max_pixels, blank_max_stddev=blank_max_stddev
        )
        rows.append(
            ImageRow(
                id=hashlib.sha256(record.content).hexdigest(),
                path=record.path,
                label=record.label,
                split=record.split,
                bytes=len(record.content),
                **asdict(verdict),
            )
        )
    return rows


def decide(candidates: Iterable[ImageRow], params: ValidateParams) -> list[ImageRow]:
    """Add what depends on other files and on people: overrides, duplicates, groups, splits; sorted by path."""
    keep = parse_keep(params.keep)
    rows = apply_overrides(candidates, keep=keep, reject=params.reject)
    rows = quarantine_exact_duplicates(quarantine_conflicts(rows, keep))
    rows = assign_splits(rows, shares=params.splits, near_duplicate_bits=params.near_duplicate_bits, kept_ids=keep)
    return sorted(rows, key=lambda row: row.path)


def summarize(rows: Sequence[ImageRow]) -> dict[str, Any]:
    """Count what reports/metrics/validation.json says."""
    kept = [row for row in rows if not row.reason]
    labels = sorted({row.label for row in rows})
    photos = Counter((row.split, row.label) for row in kept)
    reasons = Counter(row.reason for row in rows if row.reason)
    return {
        "images": len(rows),
        "kept": len(kept),
        "quarantined": len(rows) - len(kept),
        "by_reason": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "labels": labels,
        "splits": {split: {label: photos[split, label] for label in labels} for split in SPLITS},
        "near_duplicate_groups": sum(n > 1 for n in Counter(row.group for row in kept).values()),
        "overridden": {"kept": sum(bool(row.evidence) for row in kept), "rejected": reasons["rejected"]},
        "header_rule": {
            "dropped": sum(not row.jfif for row in rows),
            "dropped_but_fine": sum(not row.jfif for row in kept),
        },
    }


def log_summary(summary: dict[str, Any], docs_out: Path) -> None:
    """Say in one line what came out and where to look."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary["by_reason"].items())
    header_rule = summary["header_rule"]
    log.info(
        f"validate: kept {summary['kept']:,} of {summary['images']:,} photos, quarantined {summary['quarantined']:,}"
        f"{f' ({reasons})' if reasons else ''}; the header rule would have dropped {header_rule['dropped']:,}, "
        f"{header_rule['dropped_but_fine']:,} of them fine; see {docs_out / 'index.html'}"
    )


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--raw-dir", "data/raw", "folder of Parquet shards to read")
    stage.add_path(parser, "--images-out", "data/images.parquet", "table to write")
    stage.add_path(parser, "--docs-out", "reports/validation", "folder of Data Docs to write")
    stage.add_path(parser, "--metrics-out", "reports/metrics/validation.json", "counts to write")
    args = parser.parse_args(argv)
    summary = validate(
        raw_dir=args.raw_dir,
        images_out=args.images_out,
        docs_out=args.docs_out,
        metrics_out=args.metrics_out,
        params=load_section(args.params, "validate", ValidateParams),
    )
    log_summary(summary, args.docs_out)


if __name__ == "__main__":
    stage.run(main)
