"""Any image classification data set of TensorFlow Datasets, by name: the encoded bytes as TFDS stores them.

For `cats_vs_dogs` those are not the original photos': its builder drops what has no JFIF header and encodes the rest
again. TensorFlow takes seconds to import, so only the functions that need it do.
"""

import difflib
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from tasks.progress import track
from tasks.raw import RawRecord
from tasks.sources.layout import SPLIT_NAMES, label_of
from tasks.stage import PawlineError, TemporaryError

log = logging.getLogger(__name__)
PROBE_SECONDS = 5.0
TEMPORARY_STATUS = re.compile(r"HTTP code: (408|425|429|5\d\d)\b")  # as TFDS words it
FILENAME_KEYS = ("image/filename", "file_name", "filename")


class _Keys(NamedTuple):
    """Which features of the records are read."""

    image: str
    label: str
    filename: str | None


def read(name: str, data_dir: str | None) -> Iterator[RawRecord]:
    """Yield the records in TFDS's order, preparing the data set first if that has not been done.

    The splits train, validation and test are predefined ones if there is more than one; any other beside them, and
    records without a label, are left out.

    Args:
        name: As `tfds.load` takes it, such as `cats_vs_dogs` or `cats_vs_dogs:4.0.1`.
        data_dir: Where TFDS keeps its data sets; None is its default.

    Raises:
        TemporaryError: The network failed, or the server that has it.
        PawlineError: It is unknown, not one of labelled images, or cannot be downloaded for another reason.
    """
    tfds = _import_tfds()
    builder = _find(tfds, name, data_dir)
    keys = _find_keys(tfds, builder)
    if not builder.is_prepared():
        _require_reachable(builder)
    datasets, info = _load(tfds, name, data_dir, keys)
    splits = sorted(split for split in datasets if split in SPLIT_NAMES) or sorted(datasets)
    if skipped := sorted(set(datasets) - set(splits)):
        log.info("ingest: left out the TFDS splits %s", ", ".join(skipped))
    examples = (
        (split, index, example) for split in splits for index, example in enumerate(tfds.as_numpy(datasets[split]))
    )
    total = sum(info.splits[split].num_examples for split in splits)
    for split, index, example in track(examples, "ingest", total=total):
        label = int(example[keys.label])
        if label < 0:  # TFDS's mark of an unlabelled record
            continue
        filename = example[keys.filename].decode("utf-8", "backslashreplace") if keys.filename else f"{index:07d}"
        # Of some data sets a file name is unique inside its class only.
        path = f"{split}/{index:07d}/{filename}" if keys.filename else f"{split}/{filename}"
        predefined = SPLIT_NAMES.get(split, "") if len(splits) > 1 else ""
        yield RawRecord(path, label_of(info.features[keys.label].int2str(label)), predefined, example[keys.image])


def _import_tfds() -> Any:  # noqa: ANN401 - a module
    from tasks.quiet_tf import tf  # noqa: F401 - so that TFDS finds it imported, without its log noise

    # isort: split
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    return tfds


def _find(tfds: Any, name: str, data_dir: str | None) -> Any:  # noqa: ANN401 - TFDS ships no types
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        nearest = difflib.get_close_matches(name, tfds.list_builders(), n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "see the catalogue of TensorFlow Datasets"
        raise PawlineError(f"data.tfds_name: TFDS has no data set {name!r}: {hint}") from None
    except (AssertionError, ValueError) as problem:  # an unknown version or configuration, or no name at all
        reason = " ".join(str(problem).split())
        raise PawlineError(f"data.tfds_name: TFDS cannot find {name!r}: {reason}") from None


def _find_keys(tfds: Any, builder: Any) -> _Keys:  # noqa: ANN401 - TFDS ships no types
    """Find the image and the label by their types; the supervised pair first."""
    features = dict(builder.info.features.items())
    order = sorted(features, key=lambda key: key not in (builder.info.supervised_keys or ()))
    images = [key for key in order if type(features[key]) is tfds.features.Image]
    labels = [key for key in order if type(features[key]) is tfds.features.ClassLabel]
    if not images or not labels:
        raise PawlineError(f"TFDS data set {builder.name} has no pair of an image and a class label: choose another")
    return _Keys(images[0], labels[0], next((key for key in FILENAME_KEYS if key in features), None))


def _require_reachable(builder: Any) -> None:  # noqa: ANN401 - TFDS ships no types
    """Ask each server that TFDS would download from for a sign of life: TFDS itself would wait for minutes."""
    downloads = Path(builder.data_dir_root) / "downloads"
    present = _downloaded_urls(downloads)
    hosts = {
        urlsplit(url).netloc: (url, info.filename)
        for url, info in (builder.url_infos or {}).items()
        if url not in present and not (info.filename and (downloads / "manual" / info.filename).exists())
    }
    for host, (url, filename) in sorted(hosts.items()):
        try:
            requests.head(url, timeout=PROBE_SECONDS, allow_redirects=False)
        except requests.RequestException as problem:
            where = f"put {url} into {downloads / 'manual'} as {filename}" if filename else "fetch it elsewhere"
            raise _error_class(problem)(
                f"TFDS cannot download {builder.name}: {host} could not be reached ({type(problem).__name__}, "
                f"time-out {PROBE_SECONDS:.0f} s); {where}, or set data.path to a data_dir where it is prepared, or "
                "data.source to archive with the original file"
            ) from None


def _downloaded_urls(downloads: Path) -> set[str]:
    """Return the URLs that TFDS has fetched: it notes them next to each file."""
    notes = [path for path in downloads.glob("**/*.INFO") if path.with_suffix("").exists()]
    return {url for note in notes for url in json.loads(note.read_text(encoding="utf-8")).get("urls", [])}


def _load(tfds: Any, name: str, data_dir: str | None, keys: _Keys) -> tuple[dict[str, Any], Any]:  # noqa: ANN401
    wanted = {key: True for key in keys if key}
    skip = {keys.image: tfds.decode.SkipDecoding()}
    wrong_digest = tfds.download.download_manager.NonMatchingChecksumError
    try:
        datasets, info = tfds.load(
            name,
            data_dir=data_dir,
            decoders=tfds.decode.PartialDecoding(wanted, decoders=skip),
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
            download_and_prepare_kwargs={"download_config": tfds.download.DownloadConfig(try_download_gcs=False)},
            with_info=True,
        )
    except (OSError, AssertionError, ValueError, tfds.download.DownloadError, wrong_digest) as problem:
        reason = " ".join(str(problem).split())
        raise _error_class(problem)(f"TFDS could not prepare {name}: {reason}") from None
    return datasets, info


def _error_class(problem: Exception) -> type[PawlineError]:
    """Return what kind of error a failed download is."""
    lost = isinstance(problem, requests.ConnectionError | requests.Timeout | requests.exceptions.RetryError)
    return TemporaryError if lost or TEMPORARY_STATUS.search(str(problem)) else PawlineError
