"""validate: decode every candidate file once, name what is wrong with it, find duplicates, assign splits.

Reads   data/raw/                        the candidate files, in Parquet shards
        params.yaml, section validate    thresholds, split shares, a person's verdicts
Writes  data/images.parquet              one row a file: verdict, evidence, duplicate group, split
        data/verdicts/                   what the next run need not decode again (tasks/verdicts.py)
        reports/validation/              Great Expectations' Data Docs: open index.html
        reports/metrics/validation.json  counts

Nothing is deleted: a file that is not fit is quarantined by its row's status and reason. When an expectation is not
met the stage fails: the Data Docs show why, and the other outputs stay as they were.

    python -m tasks.validate

About 1,200 photos a second on two processors, and 3 seconds for Great Expectations.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tasks import reuse, stage
from tasks.close_hashes import Hashes, find_close_pairs
from tasks.cluster import map_chunks
from tasks.data_docs import write_data_docs
from tasks.duplicates import hashes_of, quarantine_conflicts, quarantine_exact_duplicates
from tasks.expectations import first_failure, run_suites
from tasks.image_table import SPLITS, ImageRow, write_images
from tasks.images import OUT_OF_MEMORY, Verdict, has_jfif, judge
from tasks.limits import Limits, limited, quiet_decoders
from tasks.overrides import apply_overrides, parse_keep
from tasks.params import ValidateParams, load_section
from tasks.progress import Progress
from tasks.raw import Candidate, Chunk, Wanted, list_chunks, read_candidates, read_contents, split_wanted
from tasks.rescue import Death, Kind, Rescue
from tasks.splits import assign_splits, required_splits
from tasks.verdicts import Keys, Known, read_known, write_known

log = logging.getLogger(__name__)

USUAL_PIXELS = 64_000_000  # where this many pixels are allowed, a file may take:
SECONDS, BYTES = 5.0, 3 * 2**29
BESIDE_OTHERS = 2 / 3  # of the memory, in a process that judges other files, too; what takes more is judged by itself
BYTES_A_PIXEL = 20  # that a decoder takes at most: a WebP's, with transparency
DAMAGED = ("undecodable", "truncated")


class Listed(NamedTuple):
    """A row group of the raw table and its files."""

    chunk: Chunk
    files: list[Candidate]


def validate(
    *, raw_dir: Path, images_out: Path, verdicts_dir: Path, docs_out: Path, metrics_out: Path, params: ValidateParams
) -> dict[str, Any]:
    """Judge every file and write the image table, the Data Docs and the counts.

    Returns:
        The counts, as written to `metrics_out`.

    Raises:
        PawlineError: When an expectation is not met, an override makes no sense, or a worker process died.
    """
    known = read_known(verdicts_dir, _keys(params))
    files, verdicts, pairs = examine(raw_dir, params, known)
    rows = decide(files, params, pairs)
    summary = summarize(rows)
    runs = run_suites(rows, params, required_splits(files, params.splits))
    with stage.whole_dir(docs_out) as unfinished:
        write_data_docs(runs, summary["by_reason"], unfinished)
    failure = first_failure(runs)
    if failure:
        raise stage.PawlineError(f"validation failed: {failure}; see {docs_out / 'index.html'}")
    with stage.whole_dir(verdicts_dir) as unfinished:
        write_known(verdicts, pairs, unfinished, _keys(params))
    with stage.whole_file(images_out) as unfinished, stage.whole_file(metrics_out) as unfinished_metrics:
        write_images(rows, unfinished)
        stage.write_json(summary, unfinished_metrics)
    return summary


def _keys(params: ValidateParams) -> Keys:
    near = _judging(params) | {"near_duplicate_bits": params.near_duplicate_bits}
    return Keys(reuse.make_key("validate", _judging(params)), reuse.make_key("validate", near))


def _judging(params: ValidateParams) -> dict[str, Any]:
    """Return the parameters of `judge`."""
    return {name: getattr(params, name) for name in ("min_side_px", "max_pixels", "blank_max_stddev")}


class Examined(NamedTuple):
    """What is to be decided on: a row for each file, sorted by path, the verdicts by id, pairs of close hashes."""

    files: list[ImageRow]
    verdicts: dict[str, Verdict]
    pairs: Hashes


def examine(raw_dir: Path, params: ValidateParams, known: Known) -> Examined:
    """Look at the bytes of every file that is not known."""
    candidates = list_candidates(raw_dir)
    verdicts = judge_files(candidates, known.verdicts, _judging(params))
    rows = [ImageRow(**file._asdict(), **vars(verdicts[file.id])) for _, files in candidates for file in files]
    bits = params.near_duplicate_bits
    pairs = find_close_pairs(hashes_of(rows), max_bits=bits, known=known.hashes, known_pairs=known.pairs)
    return Examined(sorted(rows, key=lambda row: row.path), verdicts, pairs)


def list_candidates(raw_dir: Path) -> list[Listed]:
    """Return the row groups of the raw table, and what they say of their files."""
    listed = [Listed(chunk, read_candidates(chunk)) for chunk in list_chunks(raw_dir.absolute())]
    if not listed:
        raise stage.PawlineError(f"{raw_dir} holds no photos: run `dvc repro ingest` first")
    return listed


def judge_files(
    candidates: Sequence[Listed], known: Mapping[str, Verdict], judging: Mapping[str, Any]
) -> dict[str, Verdict]:
    """Return a verdict on every file's bytes by its id: the known one, or decode it, once, in parallel."""
    looked_up = [
        Wanted(chunk, tuple(row for row, file in enumerate(files) if file.id not in known))
        for chunk, files in candidates
    ]
    wanted = [some for some in looked_up if some.rows]
    verdicts = {file.id: known[file.id] for _, files in candidates for file in files if file.id in known}
    if verdicts:
        log.info("validate: %s different files were judged before", f"{len(verdicts):,}")
    judge_some = partial(judge_contents, judging=judging)
    judged_files = map_chunks(judge_some, wanted, rescue_of(judging))
    with Progress("validate", total=sum(len(some.rows) for some in wanted)) as progress:
        for some, judged in zip(wanted, judged_files, strict=True):
            verdicts |= judged
            progress.advance(len(some.rows))
    return verdicts


def limits_of(max_pixels: int) -> Limits:
    """Return what judging one file may take, where so many pixels are allowed."""
    share = max(max_pixels / USUAL_PIXELS, 1.0)
    return Limits(SECONDS * share, int(BYTES * share))


def judge_contents(wanted: Wanted, *, judging: Mapping[str, Any]) -> dict[str, Verdict]:
    """Judge files of one chunk, each by its bytes alone, and return the verdicts by id; runs in a worker process."""
    limits = limits_of(judging["max_pixels"])
    less = limits._replace(bytes=int(BESIDE_OTHERS * limits.bytes))
    with quiet_decoders():
        return {hashlib.sha256(one).hexdigest(): judge_within(less, one, judging) for one in read_contents(wanted)}


def judge_within(limits: Limits, content: bytes, judging: Mapping[str, Any]) -> Verdict:
    """Judge a file.

    Raises:
        MemoryError: It takes more memory than it may, or may have: some decoders call that damage.
    """
    with limited(limits):
        verdict = judge(content, **judging)
        most = BYTES_A_PIXEL * verdict.width * verdict.height
        if verdict.reason == OUT_OF_MEMORY or (verdict.reason in DAMAGED and most > limits.bytes):
            raise MemoryError(verdict.evidence)
        return verdict


def judge_alone(wanted: Wanted, *, judging: Mapping[str, Any]) -> dict[str, Verdict]:
    """Judge one file that ended a process, or took too much, in a process of its own."""
    with quiet_decoders():
        [content] = read_contents(wanted)
        verdict = judge_within(limits_of(judging["max_pixels"]), content, judging)
    return {hashlib.sha256(content).hexdigest(): verdict}


def quarantine_killer(wanted: Wanted, death: Death, *, judging: Mapping[str, Any]) -> dict[str, Verdict]:
    """Return the verdict on a file that ends its process."""
    limits = limits_of(judging["max_pixels"])
    reason, evidence = {
        Kind.CRASH: ("crashes_decoder", f"Pillow: the process that decodes it ends with {death.how}"),
        Kind.TIME: ("too_slow", f"Pillow: decoding takes more than {limits.seconds:g} s of a processor"),
        Kind.MEMORY: (OUT_OF_MEMORY, f"Pillow: decoding takes more than {limits.bytes >> 20:,} MB of memory"),
    }[death.kind]
    [content] = read_contents(wanted)
    verdict = Verdict(reason=reason, evidence=evidence, bytes=len(content), jfif=has_jfif(content))
    return {hashlib.sha256(content).hexdigest(): verdict}


def rescue_of(judging: Mapping[str, Any]) -> Rescue[Wanted, dict[str, Verdict]]:
    """Return how a chunk is judged over which a worker process died: file by file."""
    return Rescue(
        split=split_wanted,
        function=partial(judge_contents, judging=judging),
        alone=partial(judge_alone, judging=judging),
        give_up=partial(quarantine_killer, judging=judging),
        join=lambda verdicts: {image_id: verdict for some in verdicts for image_id, verdict in some.items()},
    )


def decide(files: Iterable[ImageRow], params: ValidateParams, close_hashes: Hashes) -> list[ImageRow]:
    """Add what depends on other files and on people: overrides, duplicates, groups, splits; sorted by path."""
    keep = parse_keep(params.keep)
    rows = apply_overrides(files, keep=keep, reject=params.reject)
    rows = quarantine_exact_duplicates(quarantine_conflicts(rows, keep))
    rows = assign_splits(rows, shares=params.splits, close_hashes=close_hashes, kept_ids=keep)
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
    stage.add_path(parser, "--verdicts-dir", "data/verdicts", "folder of what is known of files, read and written")
    stage.add_path(parser, "--docs-out", "reports/validation", "folder of Data Docs to write")
    stage.add_path(parser, "--metrics-out", "reports/metrics/validation.json", "counts to write")
    args = parser.parse_args(argv)
    summary = validate(
        raw_dir=args.raw_dir,
        images_out=args.images_out,
        verdicts_dir=args.verdicts_dir,
        docs_out=args.docs_out,
        metrics_out=args.metrics_out,
        params=load_section(args.params, "validate", ValidateParams),
    )
    log_summary(summary, args.docs_out)


if __name__ == "__main__":
    stage.run(main)
