import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from benchmarks import stage2
from tasks import stage
from tasks.feature_store import FeatureSplit, read_ids
from tasks.image_table import read_images, write_images
from tasks.quiet_tf import keras
from tasks.sources.synthetic import draw
from tasks.stage import PawlineError
from tests.benchmarks.test_reference import recipe
from tests.tasks.conftest import DATA, FINE_TUNE, Run
from tests.tasks.conftest import small_run as small_run  # the fixture

PHOTOS = 10


@pytest.fixture(scope="module")
def folder(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe, the archive and the photos of the small run; one training photo is said to be a TIFF."""
    root = tmp_path_factory.mktemp("stage2")
    YAML(typ="safe").dump(recipe(image={"size_px": 96}, fine_tune=FINE_TUNE.model_dump()), root / "params.yaml")
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        for record in draw(DATA.synthetic_images):
            archive.writestr(record.path, record.content)
    first = read_ids(small_run.features_dir, "train")[0]
    rows = [replace(row, format="TIFF") if row.id == first else row for row in read_images(small_run.images_path)]
    write_images(rows, root / "images.parquet")
    return root


@pytest.fixture
def run(small_run: Run, folder: Path) -> stage2.Run:
    table = folder / "images.parquet"
    return stage2.Run(
        folder / "params.yaml", table, small_run.features_dir, small_run.stage1_dir, small_run.backbone_dir
    )


def test_both_sides_train_on_the_same_readable_photos(run: stage2.Run) -> None:
    chosen = stage2.choose_photos(run, None)
    ids = read_ids(run.features_dir, "train")
    assert [row.id for row in chosen.rows] == ids[1:], "all but the TIFF"
    split, stored = (
        stage2.StoredSplit(run.features_dir, chosen.indices),
        FeatureSplit(run.features_dir, "train", "boundary"),
    )
    labels = stage.read_json(run.features_dir / "manifest.json")["labels"]
    assert [labels[label] for label in split.labels] == [row.label for row in chosen.rows]
    assert np.array_equal(split.rows(np.array([4, 0]), 1), stored.rows(np.array([5, 1]), 1))
    assert len(stage2.choose_photos(run, PHOTOS).rows) == PHOTOS


def test_both_sides_train_the_same_variables_from_the_same_start(run: stage2.Run, folder: Path) -> None:
    chosen = stage2.choose_photos(run, PHOTOS)
    stage2.unpack_photos(folder / "photos.zip", chosen.rows, folder / "photos")
    ours = stage2.Ours(run, chosen.indices, epochs=1)
    plain, dataset = stage2.make_plain(stage2.Theirs(run, folder / "photos", tuple(chosen.rows)))
    assert sum(len(labels) for _, labels in dataset) == len(ours.split) == PHOTOS
    for mine, other in zip(ours.model.trainable_variables, plain.trainable_variables, strict=True):
        assert np.array_equal(mine, other), mine.path
    [base] = [layer for layer in plain.layers if isinstance(layer, keras.Model)]
    normalizations = [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert normalizations
    assert not any(layer.trainable for layer in normalizations)


def test_rounds_and_losses_are_reported(run: stage2.Run, folder: Path, tmp_path: Path) -> None:
    options = [f"--params={run.params}", f"--table={run.table}", f"--features-dir={run.features_dir}"]
    options += [f"--stage1-dir={run.stage1_dir}", f"--backbone-dir={run.backbone_dir}", f"--images={PHOTOS}"]
    results = tmp_path / "results.json"
    stage2.main([*options, f"--archive={folder / 'photos.zip'}", "--rounds=1", f"--results={results}"])
    result = json.loads(results.read_text())["stage2_epoch"]
    assert (result["bar"], len(result["ours"]), len(result["theirs"])) == (2, 1, 1)
    assert f"{PHOTOS} photos" in result["what"]
    assert "float32, as the run's features" in result["notes"][0]
    losses = [float(loss) for loss in re.findall(r"\d\.\d{4}", result["notes"][2])]
    assert len(losses) == 4, "of both sides, in the first epoch too"
    assert losses[0] == pytest.approx(losses[2], abs=0.3)


def test_what_does_not_fit_is_refused(run: stage2.Run, folder: Path, tmp_path: Path) -> None:
    rows = stage2.choose_photos(run, PHOTOS).rows
    with pytest.raises(PawlineError, match=r"none\.zip is missing"):
        stage2.unpack_photos(tmp_path / "none.zip", rows, tmp_path)
    with pytest.raises(PawlineError, match=r"elsewhere\.jpg is not in"):
        stage2.unpack_photos(folder / "photos.zip", [replace(rows[0], path="elsewhere.jpg")], tmp_path)
    write_images(rows, tmp_path / "some.parquet")
    with pytest.raises(PawlineError, match="not of the same run"):
        stage2.choose_photos(run._replace(table=tmp_path / "some.parquet"), None)
    YAML(typ="safe").dump(recipe(fine_tune={"unfrozen_layers": 7}), tmp_path / "params.yaml")
    with pytest.raises(PawlineError, match="other parameters"):
        stage2.check_run(run._replace(params=tmp_path / "params.yaml"))
    stage.write_json({"boundary": None}, tmp_path / "manifest.json")
    with pytest.raises(PawlineError, match="no second stage"):
        stage2.check_run(run._replace(features_dir=tmp_path))
