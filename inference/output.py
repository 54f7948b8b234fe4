"""How answers are written: lines for people, JSON lines, CSV, Parquet. Each as they come, none held back.

Files of all formats are UTF-8; bytes of a photo's name that are not are spelled out.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from inference.answers import UNSURE, Answer
from tasks import words
from tasks.named_files import named_file

if TYPE_CHECKING:
    from inference.classifier import Classifier

Write = Callable[[Answer], None]
FIELDS = ("path", "class", "predicted", "probability", "reason", "evidence")  # of every format
ROWS = 1000  # of a row group of Parquet


class Table:
    """Lines for people, in columns; the photo comes last, so that no name is too long.

    Names are shown so that they cannot steer the terminal. An unreadable photo that is the first and only one is left
    to the error that then ends the command.
    """

    def __init__(self, labels: list[str], say: Callable[[str], None]) -> None:
        """Take the classes, and what prints a line."""
        self._say, self._width = say, max(map(len, [*map(visible, labels), UNSURE, "class"]))
        self._held: Answer | None = None
        self._lines = 0

    def __call__(self, answer: Answer) -> None:
        """Show an answer."""
        if self._held is None and self._lines == 0 and answer.reason:
            self._held = answer
            return
        if self._lines == 0:
            self._line("class", "sure", "photo")
        for one in (self._held, answer):
            if one is not None:
                self._show(one)
        self._held = None

    def _show(self, answer: Answer) -> None:
        name = visible(answer.photo.name)
        if answer.probability is None:
            self._line("", "", f"{name}: {answer.reason} ({visible(answer.evidence)})")
            return
        withheld = f"  ({visible(answer.predicted or '')})" if answer.label != answer.predicted else ""
        percent = math.floor(1000 * answer.probability) / 10  # what is not certain is never shown as 100 %
        self._line(visible(answer.label or ""), f"{percent} %", name + withheld)

    def _line(self, label: str, sure: str, photo: str) -> None:
        self._lines += 1
        self._say(f"{label:<{self._width}}  {sure:>7}  {photo}")


def json_lines(stream: IO[str], classifier: "Classifier") -> Write:
    """Return what writes an answer as a JSON object on a line of its own."""

    def write(answer: Answer) -> None:
        probs = dict(zip(classifier.labels, answer.probabilities, strict=False)) or None
        stream.write(json.dumps(_row(answer) | {"probabilities": probs, "classifier": classifier.sha256}) + "\n")

    return write


def csv_rows(stream: IO[str], labels: list[str]) -> Write:
    """Return what writes an answer as a row of CSV, the header first; the probabilities have a column a class."""
    columns = [f"{label}_probability" for label in labels]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*FIELDS, *columns])

    def write(answer: Answer) -> None:
        writer.writerow([*_row(answer).values(), *(answer.probabilities or [""] * len(columns))])

    return write


@contextmanager
def csv_file(path: Path, labels: list[str]) -> Iterator[Write]:
    """Yield what writes answers as rows of a CSV file, which appears when the block ends well."""
    with (
        named_file(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8") as stream,
    ):
        yield csv_rows(stream, labels)


@contextmanager
def parquet_file(path: Path, classifier: "Classifier") -> Iterator[Write]:
    """Yield what writes answers as rows of a Parquet file, which appears when the block ends well.

    Its metadata say which classifier answered.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = [pa.string(), pa.string(), pa.string(), pa.float32(), pa.string(), pa.string()]
    facts = {"classifier_sha256": classifier.sha256, "engine": classifier.engine, "precision": classifier.precision}
    schema = pa.schema(
        [*zip(FIELDS, kinds, strict=True), ("probabilities", pa.list_(pa.float32()))],
        metadata={**facts, "labels": json.dumps(classifier.labels)},
    )
    rows: list[Mapping[str, Any]] = []
    with (
        named_file(path) as unfinished,
        unfinished.open("wb") as stream,  # of a name, Arrow wants a file that it can seek in, which a pipe is not
        pq.ParquetWriter(stream, schema) as writer,
    ):

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema))
            rows.clear()

        def write(answer: Answer) -> None:
            rows.append(_row(answer) | {"probabilities": answer.probabilities or None})
            if len(rows) == ROWS:
                flush()

        yield write
        flush()


def visible(text: str) -> str:
    """Spell out characters that would not be seen, or would steer the terminal, and bytes that are not UTF-8."""
    return words.visible(utf8(text))


def utf8(name: str) -> str:
    r"""Spell bytes of a file's name that are not UTF-8 as `\xe7`: no reader of CSV, JSON or Parquet takes them raw."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _row(answer: Answer) -> dict[str, Any]:
    values = (
        utf8(answer.photo.name),
        answer.label,
        answer.predicted,
        answer.probability,
        answer.reason or None,
        answer.evidence or None,
    )
    return dict(zip(FIELDS, values, strict=True))
