"""The stage: what it writes, the same bytes every time, and data in which there is little to learn from."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.feature_store import FeatureSplit, read_ids, shard_name
from tasks.image_table import ImageRow, write_images
from tasks.label_errors import label_errors, read_photos
from tasks.stage import PawlineError, write_json
from tests.conftest import ROOT
from tests.tasks.conftest import Run

NAMES = ["cat", "dog", "eel"]
Place = tuple[str, int]  # split and row


def id_of(place: Place) -> str:
    return f"{place[0]}-{place[1]}".ljust(64, "0")


def store(folder: Path, true: dict[str, list[int]], *, flipped: Collection[Place] = (), group: str = "") -> None:
    """Features whose views are the class, nearly, in shards of 40, and the image table beside them.

    `flipped` have the next class for a label; if a group is given, all photos are of it.
    """
    features_dir, rng, rows = folder / "features", np.random.default_rng(0), []
    features_dir.mkdir()
    for split, classes in true.items():
        places = [(split, row) for row in range(len(classes))]
        shape = len(classes), 3 if split == "train" else 1, 16
        arrays = {
            "pooled": (3 * np.eye(16)[classes][:, None] + rng.normal(size=shape)).astype(np.float32),
            "labels": np.array(
                [(index + (place in flipped)) % 3 for place, index in zip(places, classes, strict=True)]
            ),
            "ids": np.array([id_of(place) for place in places], "S64"),
        }
        for number, start in enumerate(range(0, len(classes), 40)):
            for kind, array in arrays.items():
                np.save(features_dir / shard_name(split, number, kind), array[start : start + 40])
        rows += [
            ImageRow(id=id_of(place), path=f"{place[0]}/{place[1]}.jpg", label="", group=group or id_of(place))
            for place in places
        ]
    write_json({"labels": NAMES}, features_dir / "manifest.json")
    write_images(rows, folder / "images.parquet")


def run(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    label_errors(
        features_dir=folder / "features",
        images_path=folder / "images.parquet",
        errors_out=folder / "errors.parquet",
        metrics_out=folder / "errors.json",
    )
    rows: list[dict[str, Any]] = pq.read_table(folder / "errors.parquet").to_pylist()
    return rows, json.loads((folder / "errors.json").read_text())


def test_wrong_labels_of_every_split_are_found(tmp_path: Path) -> None:
    flipped = {("train", 0), ("train", 61), ("val", 3), ("test", 8)}
    store(tmp_path, {"train": [0, 1, 2] * 30, "val": [0, 1, 2] * 7, "test": [0, 1, 2] * 7}, flipped=flipped)
    rows, figures = run(tmp_path)
    assert {row["id"] for row in rows[: len(flipped)]} == {id_of(place) for place in flipped}
    by_path = {row["path"]: row for row in rows}
    assert (by_path["train/61.jpg"]["label"], by_path["train/61.jpg"]["suggested"]) == ("eel", "dog")
    assert by_path["val/3.jpg"]["split"] == "val"
    assert [row["label_probability"] for row in rows] == sorted(row["label_probability"] for row in rows)
    assert all(row["label_probability"] < row["suggested_probability"] for row in rows)
    assert (figures["images"], figures["folds"], figures["suspects"]) == (132, 5, len(rows))
    assert figures["by_label"].keys() == set(NAMES)
    assert sum(figures["by_label"].values()) == len(rows)
    assert 0.8 < figures["out_of_fold_accuracy"] < 1


def test_the_vectors_are_means_of_views_in_the_order_of_the_ids(small_run: Run) -> None:
    photos = read_photos(small_run.features_dir)
    train = FeatureSplit(small_run.features_dir, "train", "pooled")
    everything = np.arange(len(train))
    expected = (train.rows(everything, 0) + train.rows(everything, 1)) / 2
    np.testing.assert_allclose(photos.vectors[: len(train)], expected, rtol=1e-5)
    assert photos.ids[: len(train)] == read_ids(small_run.features_dir, "train")
    assert photos.splits == sorted(photos.splits, key=["train", "val", "test"].index)
    assert isinstance(photos.vectors.base, np.memmap), "the system can do without their memory"
    assert [path.name for path in small_run.features_dir.parent.iterdir() if path.name.startswith("tmp")] == []


def test_another_process_with_other_threads_writes_the_same_bytes(small_run: Run, workdir: Path) -> None:
    paths = {"features_dir": small_run.features_dir, "images_path": small_run.images_path}
    label_errors(**paths, errors_out=workdir / "here.parquet", metrics_out=workdir / "here.json")
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in paths.items()]
    outs = [f"--errors-out={workdir / 'there.parquet'}", f"--metrics-out={workdir / 'there.json'}"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-m", "tasks.label_errors", *flags, *outs]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("label_errors: ")
    for name in ("parquet", "json"):
        assert (workdir / f"here.{name}").read_bytes() == (workdir / f"there.{name}").read_bytes()


@pytest.mark.parametrize("classes", [[0], [0, 1], [0, 0, 1], [0, 1, 2, 0]])
def test_fewer_photos_than_folds(tmp_path: Path, classes: list[int]) -> None:
    store(tmp_path, {"train": classes})
    rows, figures = run(tmp_path)
    assert rows == []
    assert figures["folds"] == len(classes)
    assert (figures["out_of_fold_accuracy"] is None) == (len(classes) == 1)
    assert figures["by_label"] == dict.fromkeys(NAMES, 0)


def test_near_duplicates_of_one_photo_teach_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    store(tmp_path, {"train": [0, 1] * 10}, group="all alike")
    rows, figures = run(tmp_path)
    assert (rows, figures["folds"], figures["out_of_fold_accuracy"]) == ([], 1, None)
    assert "label_errors: too few photos to check one label by the others" in caplog.text


def test_a_class_of_one_photo_is_neither_suspected_nor_suggested(tmp_path: Path) -> None:
    """No other photo could speak for its label."""
    store(tmp_path, {"train": [0, 1] * 30 + [2]}, flipped={("train", 0)})
    rows, figures = run(tmp_path)
    assert rows[0]["id"] == id_of(("train", 0))
    assert "eel" not in {row[name] for row in rows for name in ("label", "suggested")}
    assert figures["images"] == 61


def test_features_of_an_earlier_version(tmp_path: Path) -> None:
    store(tmp_path, {"train": [0, 1] * 5})
    (tmp_path / "features" / shard_name("train", 0, "ids")).unlink()
    with pytest.raises(PawlineError, match=r"does not say which photo is which: run `dvc repro features`$"):
        run(tmp_path)


def test_features_of_other_photos(tmp_path: Path) -> None:
    store(tmp_path, {"train": [0, 1] * 5})
    (tmp_path / "other").mkdir()
    store(tmp_path / "other", {"train": [0, 1] * 4})
    shutil.copy(tmp_path / "other" / "images.parquet", tmp_path / "images.parquet")
    with pytest.raises(PawlineError, match=r"^2 photos of the features are not kept in .*: run `dvc repro features`$"):
        run(tmp_path)
