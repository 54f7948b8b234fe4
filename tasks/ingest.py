"""Copy the source's photos, byte for byte, into Parquet shards.

Reads   data/source.json and the place that `data.source` and `data.path` in params.yaml name
Writes  data/raw/raw-*.parquet: path, label, predefined split and content of every candidate file (tasks/raw.py)
Run     python -m tasks.ingest

Nothing is decoded, changed or dropped but files that are no candidates by their name or place, and the photos that
`data.forget` names; both are counted.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tasks import stage
from tasks.params import DataParams, load_section
from tasks.progress import track
from tasks.raw import RawRecord, write_shards
from tasks.sources import archive, bucket, directory, download, synthetic, tfds
from tasks.sources.fingerprint import fingerprint, is_url, local_path
from tasks.sources.layout import Entry, Layout, find_layout, left_out
from tasks.stage import PawlineError
from tasks.store_urls import is_store_url

log = logging.getLogger(__name__)


def ingest(*, source_json: Path, raw_dir: Path, params: DataParams) -> None:
    """Write the raw table, in the source's order and in bounded memory.

    Raises:
        PawlineError: The source is not what `source` saw, or cannot be read to its end.
    """
    _check_unchanged(source_json, params)
    tally = _Tally(frozenset(params.forget))
    with stage.whole_dir(raw_dir) as out:
        try:
            write_shards(tally.counted(_read_source(params)), out)
        except archive.DamagedArchiveError as error:
            _forget_download(params, error)
            raise
        if len(tally.labels) < 2:
            raise PawlineError(f"the source has records of {len(tally.labels)} class: a classifier needs two or more")
        _check_unchanged(source_json, params)  # what was listed is what was read: nothing moved meanwhile
    log.info("ingest: %s, in %s", tally, raw_dir)


def _forget_download(params: DataParams, error: PawlineError) -> None:
    """Remove what was downloaded and is no archive, as a server that is mended should be asked again."""
    path = params.path or ""
    if params.source == "archive" and is_url(path) and not params.sha256:
        download.forget(path)
        raise PawlineError(f"{error}; the download was removed, and the next run fetches it again") from None


class _Tally:
    """Counts the records that pass, and keeps out those whose content is to be forgotten (SHA-256, in hex)."""

    def __init__(self, forget: frozenset[str]) -> None:
        self.labels: Counter[str] = Counter()
        self._bytes = 0
        self._forget, self._forgotten = forget, 0
        self._paths: set[str] = set()

    def counted(self, records: Iterable[RawRecord]) -> Iterator[RawRecord]:
        for record in records:
            if self._forget and hashlib.sha256(record.content).hexdigest() in self._forget:
                self._forgotten += 1
                continue
            if record.path in self._paths:  # later stages join on it
                raise PawlineError(f"the source has two files called {record.path!r}: rename one")
            self._paths.add(record.path)
            self.labels[record.label] += 1
            self._bytes += len(record.content)
            yield record

    def __str__(self) -> str:
        classes = ", ".join(f"{label} {number:,}" for label, number in sorted(self.labels.items()))
        megabytes = f"{self._bytes / 1e6:,.0f} MB"
        forgotten = f", {self._forgotten:,} left out by data.forget" if self._forget else ""
        return f"{self.labels.total():,} files of {len(self.labels)} classes ({classes}), {megabytes}{forgotten}"


def _check_unchanged(source_json: Path, params: DataParams) -> None:
    again = "run `python -m tasks.source` again, or `dvc repro`"
    try:
        seen = stage.read_json(source_json)
    except FileNotFoundError:
        raise PawlineError(f"{source_json} is missing: {again}") from None
    except ValueError as error:
        raise PawlineError(f"{source_json} is damaged ({error}): {again}") from None
    if seen != fingerprint(params):
        raise PawlineError(f"the source is not what {source_json} describes, it changed since: {again}")


def _read_source(params: DataParams) -> Iterator[RawRecord]:
    path = params.path or ""
    if params.source == "synthetic":
        return track(synthetic.draw(params.synthetic_images), "ingest", total=params.synthetic_images)
    if params.source == "tfds":
        return tfds.read(params.tfds_name, params.path)
    if params.source == "directory" and is_store_url(path):
        items = bucket.find_items(path)
        return _candidates(lambda: bucket.entries(path, items), path)
    if params.source == "directory":
        return _candidates(lambda: directory.entries(local_path(params)), path)
    local = _local_archive(params)
    return _candidates(lambda: archive.entries(local), str(local))


def _local_archive(params: DataParams) -> Path:
    path = params.path or ""
    if is_store_url(path):
        return bucket.fetch(path, sha256=params.sha256)
    return download.fetch(path, sha256=params.sha256) if is_url(path) else local_path(params)


def _candidates(entries: Callable[[], Iterable[Entry]], where: str) -> Iterator[RawRecord]:
    """Yield the candidates of an archive or folder; the first of two passes sees names only."""
    names = [(entry.path, entry.left_out or left_out(entry.path)) for entry in entries()]
    layout = find_layout((path for path, why_not in names if not why_not), where)
    reasons = Counter(
        why_not or "beside the class folders" for path, why_not in names if why_not or not layout.place(path)
    )
    if reasons:
        parts = ", ".join(f"{number:,} {reason}" for reason, number in sorted(reasons.items()))
        log.info("ingest: files left out: %s (%s)", f"{reasons.total():,}", parts)
    total = len(names) - reasons.total()
    return track(_records(entries(), layout), "ingest", total=total)


def _records(entries: Iterable[Entry], layout: Layout) -> Iterator[RawRecord]:
    for entry in entries:
        place = None if entry.left_out or left_out(entry.path) else layout.place(entry.path)
        if place:
            yield RawRecord(entry.path, place.label, place.split, entry.read())


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--source-json", "data/source.json", "what the source held when `source` looked")
    stage.add_path(parser, "--raw-dir", "data/raw", "the raw table")
    args = parser.parse_args(argv)
    params = load_section(args.params, "data", DataParams)
    ingest(source_json=args.source_json, raw_dir=args.raw_dir, params=params)


if __name__ == "__main__":
    stage.run(main)
