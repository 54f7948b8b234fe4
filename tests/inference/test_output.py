import csv
import io
import json
import os
import threading
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from inference.answers import UNSURE, Answer
from inference.classifier import Classifier, load
from inference.inputs import Photo
from inference.output import Table, csv_file, csv_rows, json_lines, parquet_file

HOSTILE = ["[red]\x1b[31mx.jpg", 'a\nb,"c".jpg', "caf\udce9.jpg", "=1+1.jpg", "\u202egpj.exe"]  # \udce9: not UTF-8


@pytest.fixture(scope="module")
def classifier(colours: Path) -> Classifier:
    return load(colours)


def answered(name: str, label: str = "red") -> Answer:
    return Answer(Photo(name), label=label, predicted="red", probability=0.99995, probabilities=(0.99995, 0.00005, 0.0))


PATHS = [*HOSTILE[:2], r"caf\xe9.jpg", *HOSTILE[3:], "u", "t.txt"]  # as every format has them
ANSWERS = [*map(answered, HOSTILE), answered("u", UNSURE), Answer(Photo("t.txt"), reason="empty", evidence="0 bytes")]


def test_lines_for_people_cannot_steer_the_terminal() -> None:
    lines: list[str] = []
    table = Table(["red", "green", "blue"], lines.append)
    for one in ANSWERS:
        table(one)
    assert lines == [
        "class      sure  photo",
        r"red      99.9 %  [red]\x1b[31mx.jpg",
        r'red      99.9 %  a\nb,"c".jpg',
        r"red      99.9 %  caf\xe9.jpg",
        "red      99.9 %  =1+1.jpg",
        r"red      99.9 %  \u202egpj.exe",
        "unsure   99.9 %  u  (red)",
        "                 t.txt: empty (0 bytes)",
    ]


def test_one_unreadable_photo_is_left_to_the_error() -> None:
    lines: list[str] = []
    table = Table(["red"], lines.append)
    table(ANSWERS[-1])
    assert lines == []
    table(answered("x.jpg"))
    assert [line.split()[0] for line in lines] == ["class", "t.txt:", "red"], "in their order, once there are more"


def test_json_is_a_line_an_answer(classifier: Classifier) -> None:
    stream = io.StringIO()
    write = json_lines(stream, classifier)
    for one in ANSWERS:
        write(one)
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [row["path"] for row in rows] == PATHS
    assert stream.getvalue().isascii(), "no encoding can lose a byte of a name"
    assert list(pd.read_json(io.StringIO(stream.getvalue()), lines=True)["path"]) == PATHS
    assert rows[0] == {
        "path": HOSTILE[0],
        "class": "red",
        "predicted": "red",
        "probability": 0.99995,
        "reason": None,
        "evidence": None,
        "probabilities": {"red": 0.99995, "green": 0.00005, "blue": 0.0},
        "classifier": classifier.sha256,
    }
    unreadable = {"class": None, "reason": "empty", "evidence": "0 bytes", "probabilities": None}
    assert rows[-1].items() >= unreadable.items()


def test_csv_has_a_column_a_class(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    with csv_file(path, classifier.labels) as write:
        for one in ANSWERS:
            write(one)
        assert not path.exists(), "it appears when it is whole"
    assert list(pd.read_csv(path)["path"]) == PATHS
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-3:] == ["red_probability", "green_probability", "blue_probability"]
    assert (rows[0]["class"], rows[0]["red_probability"]) == ("red", "0.99995")
    assert (rows[-1]["class"], rows[-1]["red_probability"], rows[-1]["reason"]) == ("", "", "empty")
    stream = io.StringIO()
    csv_rows(stream, classifier.labels)
    assert stream.getvalue().splitlines()[0].startswith("path,class,predicted,probability,reason,evidence,red_")


def test_parquet_says_which_classifier_answered(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.output.ROWS", 3)
    path = tmp_path / "answers.parquet"
    with parquet_file(path, classifier) as write:
        for one in ANSWERS:
            write(one)
    table = pq.read_table(path)
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == PATHS
    assert [row["class"] for row in rows] == ["red"] * 5 + ["unsure", None]
    assert rows[0]["probabilities"] == pytest.approx([0.99995, 0.00005, 0])
    assert table.schema.metadata[b"classifier_sha256"].decode() == classifier.sha256
    assert pq.ParquetFile(path).num_row_groups == 3, "rows are not held back to the end"


def test_a_file_that_was_not_finished_leaves_the_earlier_one(classifier: Classifier, tmp_path: Path) -> None:
    earlier = [tmp_path / name for name in ("a.csv", "a.parquet")]
    for path in earlier:
        path.write_text("earlier")

    def interrupted() -> None:
        with csv_file(earlier[0], classifier.labels) as one, parquet_file(earlier[1], classifier) as other:
            one(ANSWERS[0])
            other(ANSWERS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.read_text() for path in earlier] == ["earlier", "earlier"]
    assert sorted(tmp_path.iterdir()) == earlier


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_lies_under_the_name_stays_what_it_is(kind: str, classifier: Classifier, tmp_path: Path) -> None:
    """`--csv link`, `--parquet >(tool)`."""
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_text("earlier")
    link.symlink_to("file")
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    for path in (link, pipe):
        with csv_file(path, classifier.labels) if kind == "csv" else parquet_file(path, classifier) as write:
            write(ANSWERS[0])
    assert (link.is_symlink(), pipe.is_fifo()) == (True, True)
    reader.join(60)
    assert [file.read_bytes()] == received
