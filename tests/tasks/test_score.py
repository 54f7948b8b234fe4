"""Saved classifiers of different sizes, classes and outputs on the same photos."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks import raw
from tasks.params import ImageParams
from tasks.preprocess import encode_png
from tasks.score import load_classifier, prepare, score
from tasks.stage import PawlineError

COLOURS = {"red": (220, 10, 10), "green": (10, 220, 10), "blue": (10, 10, 220)}
PARAMS = "image:\n  size_px: {size}\n  resize: {resize}\n"


def picture(colour: tuple[int, int, int], width: int = 120) -> bytes:
    """A picture in one colour between black ends, which a middle square does not show."""
    pixels = np.zeros((100, 3 * width, 3), np.uint8)
    pixels[:, width : 2 * width] = colour
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def save_classifier(folder: Path, *, size: int, resize: str, labels: list[str], weights: list[list[float]]) -> None:
    """A classifier that looks at the mean red, green and blue."""
    from tasks.keras_files import save_model
    from tasks.quiet_tf import keras

    folder.mkdir(parents=True)
    image = keras.Input((size, size, 3), name="image")
    mean = keras.layers.GlobalAveragePooling2D()(image)
    dense = keras.layers.Dense(len(weights[0]), "sigmoid" if len(weights[0]) == 1 else "softmax")
    network = keras.Model(image, dense(mean))
    dense.set_weights([np.array(weights, np.float32), np.zeros(len(weights[0]), np.float32)])
    save_model(network, folder / "classifier.keras")
    (folder / "params.yaml").write_text(PARAMS.format(size=size, resize=resize))
    (folder / "summary.json").write_text(json.dumps({"labels": labels}))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Photos in several row groups, some of which are asked, and two classifiers."""
    records = [
        raw.RawRecord(f"{colour}/{number}.png", colour, "", picture(COLOURS[colour], 60 + number))
        for number in range(40)
        for colour in COLOURS
    ]
    (tmp_path / "raw").mkdir()
    raw.write_shards([*records, raw.RawRecord("red/broken.png", "red", "", b"\x89PNG")], tmp_path / "raw")
    asked = [{"id": str(at), "path": one.path, "label": one.label} for at, one in enumerate(records) if at % 7 < 5]
    pq.write_table(pa.Table.from_pylist(asked), tmp_path / "photos.parquet")
    ones = np.eye(3).tolist()
    save_classifier(tmp_path / "models/wide", size=128, resize="crop", labels=["red", "green", "blue"], weights=ones)
    # Knows no green, and has its classes in another order: the second, red, where red outweighs blue.
    save_classifier(
        tmp_path / "models/old", size=96, resize="squash", labels=["blue", "red"], weights=[[0.1], [0.0], [-0.1]]
    )
    return tmp_path


def run(place: Path) -> tuple[list[dict[str, str]], dict[str, float]]:
    score(
        raw_dir=place / "raw",
        photos_path=place / "photos.parquet",
        models_dir=place / "models",
        answers_out=place / "answers.parquet",
        latencies_out=place / "latencies.json",
    )
    return pq.read_table(place / "answers.parquet").to_pylist(), json.loads((place / "latencies.json").read_text())


def test_each_model_sees_photos_in_its_own_way_and_answers_with_its_own_labels(place: Path) -> None:
    rows, latencies = run(place)
    asked = pq.read_table(place / "photos.parquet").to_pylist()
    assert [{key: row[key] for key in ("id", "path", "label")} for row in rows] == asked
    assert all(row["wide"] == row["label"] for row in rows)
    assert {row["old"] for row in rows if row["label"] == "red"} == {"red"}
    assert {row["old"] for row in rows if row["label"] == "blue"} == {"blue"}
    assert "green" not in {row["old"] for row in rows}
    for row in rows:
        assert 0.5 <= row["old_probability"] <= 1  # type: ignore[operator]
        # The middle square is of one colour, and so much of it leaves no doubt; squashed, two thirds are black.
        assert row["wide_probability"] > 0.999  # type: ignore[operator]
        if row["label"] == "red":
            assert row["old_probability"] == pytest.approx(1 / (1 + np.exp(-0.1 * 210 / 3)), abs=1e-3)
    assert sorted(latencies) == ["old", "wide"]
    assert all(0.05 < latency < 1000 for latency in latencies.values())


def test_photos_are_prepared_as_for_training() -> None:
    ways = [ImageParams(size_px=size, resize=how) for size in (96, 128) for how in ("squash", "crop", "pad")]
    contents = [picture(colour) for colour in COLOURS.values()]
    squares = prepare(contents, [*ways, ways[0]])
    assert list(squares) == ways
    for way in ways:
        trained_on = np.stack([np.asarray(Image.open(io.BytesIO(encode_png(content, way)))) for content in contents])
        assert np.array_equal(squares[way], trained_on)


def test_what_does_not_belong_together_is_refused(place: Path) -> None:
    (place / "models/old/params.yaml").write_text(PARAMS.format(size=160, resize="squash"))
    with pytest.raises(
        PawlineError, match=r"old: its classifier takes 96 px and its params\.yaml has image\.size_px 160"
    ):
        load_classifier(place / "models/old")
    (place / "models/old/params.yaml").write_text(PARAMS.format(size=96, resize="squash"))
    pq.write_table(pa.table({"id": ["x"], "path": ["nowhere.png"], "label": ["red"]}), place / "photos.parquet")
    with pytest.raises(PawlineError, match="1 photos are not in"):
        run(place)
