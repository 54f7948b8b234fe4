"""Features: each view as it must be, whatever the shards, and a killed run ends with the same bytes."""

import json
import shutil
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tasks import feature_store, records
from tasks import features as features_module
from tasks.augment import augment
from tasks.engines import Engine
from tasks.feature_store import FeatureSplit
from tasks.features import FrozenPart
from tasks.params import FeaturesParams, ImageParams
from tasks.preprocess import preprocess
from tasks.stage import PawlineError
from tests.tasks.conftest import FEATURES, IMAGE, UNFROZEN_LAYERS, Run, changed, make_features

SPLITS = ("train", "val", "test")
prepare = lru_cache(features_module.prepare)  # loads a network and converts it, which takes longer than all else here


@pytest.fixture(autouse=True)
def prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute with what an earlier test has prepared for the same: of its parameters the others are told here."""

    def prepare_once(
        backbone_dir: Path, params: FeaturesParams, image: ImageParams, unfrozen_layers: int | float | str
    ) -> tuple[FrozenPart, dict[str, Any]]:
        of_network = {"pooling": params.pooling, "engine": params.engine, "precision": params.precision}
        frozen, manifest = prepare(backbone_dir, changed(FEATURES, **of_network), image, unfrozen_layers)
        return frozen._replace(params=params), manifest | {"views": params.views}

    monkeypatch.setattr(features_module, "prepare", prepare_once)


def images_of(small_run: Run, split: str) -> records.Batch:
    batches = [b for path in records.shard_paths(small_run.tfrecords_dir, split) for b in records.read_shard(path)]
    return records.Batch(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
        [image_id for batch in batches for image_id in batch.ids],
        [path for batch in batches for path in batch.paths],
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_is_stored(small_run: Run) -> None:
    manifest = feature_store.read_manifest(small_run.features_dir)
    sizes = records.split_sizes(small_run.tfrecords_dir)
    assert manifest["images"] == sizes
    assert (manifest["backbone"], manifest["boundary"]) == ("MobileNetV2", "block_13_project")
    assert (manifest["pooling"], manifest["engine"], manifest["precision"]) == ("average", "openvino", "float32")
    for split in SPLITS:
        pooled, boundary = (FeatureSplit(small_run.features_dir, split, kind) for kind in ("pooled", "boundary"))
        everything = np.arange(sizes[split])
        batch = images_of(small_run, split)
        assert pooled.labels.tolist() == batch.labels.tolist()
        assert feature_store.read_ids(small_run.features_dir, split) == batch.ids
        assert pooled.views == boundary.views == (2 if split == "train" else 1)
        assert pooled.rows(everything, 0).shape == (sizes[split], 1280)
        assert pooled.rows(everything, 0).dtype == np.float32
        assert boundary.rows(everything, 0).shape == (sizes[split], 3, 3, 160)
        assert boundary.rows(everything, 0).dtype == (np.float32 if split == "train" else np.float16)
    assert {path.suffix for path in small_run.features_dir.iterdir()} == {".npy", ".json"}


def test_training_images_are_augmented_and_evaluation_images_are_not(small_run: Run, workdir: Path) -> None:
    """With every layer unfrozen the boundary is the image itself, so that the views can be looked at."""
    make_features(small_run, workdir / "features", FEATURES, 154)
    assert feature_store.read_manifest(workdir / "features")["boundary"] == "image"
    for split in SPLITS:
        batch = images_of(small_run, split)
        stored = FeatureSplit(workdir / "features", split, "boundary")
        for view in range(stored.views):
            shown = stored.rows(np.arange(len(stored)), view)
            expected = (
                augment(batch.images, batch.ids, view, params=FEATURES.augment, seed=FEATURES.seed)
                if split == "train"
                else batch.images
            )
            assert shown.dtype == np.uint8
            assert np.array_equal(shown, expected)
            assert np.array_equal(shown, batch.images) == (split != "train")


def test_a_killed_run_carries_on_and_ends_with_the_same_bytes(
    small_run: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[str] = []
    move = shutil.move

    def die_amid_the_moves(source: Path, target: Path) -> None:
        if len(moves) == 2:
            raise KeyboardInterrupt
        moves.append(source.name)
        move(source, target)

    monkeypatch.setattr(shutil, "move", die_amid_the_moves)
    with pytest.raises(KeyboardInterrupt):
        make_features(small_run, workdir / "features", FEATURES, UNFROZEN_LAYERS)
    monkeypatch.undo()
    monkeypatch.chdir(workdir)
    assert not (workdir / "features").exists()
    computed: list[Path] = []
    scan_shard = records.scan_shard
    monkeypatch.setattr(records, "scan_shard", lambda path: computed.append(path) or scan_shard(path))  # type: ignore[func-returns-value]
    make_features(small_run, workdir / "features", FEATURES, UNFROZEN_LAYERS)
    assert len(computed) == 1  # of three shards: the one that lost arrays
    assert contents(workdir / "features") == contents(small_run.features_dir)
    assert not (workdir / ".pawline").exists()


def tfrecords_of(small_run: Run, folder: Path, left_out: tuple[str, ...] = (), image: ImageParams = IMAGE) -> Path:
    """The TFRecords of a run in small shards, as if some photos had not been there."""
    table = pq.read_table(small_run.images_path)
    pq.write_table(
        table.filter(pc.invert(pc.is_in(table["id"], pa.array(left_out, pa.string())))), folder / "images.parquet"
    )
    preprocess(
        raw_dir=small_run.raw_dir,
        images_path=folder / "images.parquet",
        tfrecords_dir=folder / "tfrecords",
        record_out=folder / "tfrecords.json",
        params=image,
    )
    return folder / "tfrecords"


def make(small_run: Run, tfrecords_dir: Path, features_dir: Path, params: FeaturesParams = FEATURES) -> None:
    features_module.features(
        tfrecords_dir=tfrecords_dir,
        backbone_dir=small_run.backbone_dir,
        features_dir=features_dir,
        record_out=features_dir.with_suffix(".json"),
        params=params,
        image=IMAGE,
        unfrozen_layers=UNFROZEN_LAYERS,
    )


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each batch that went through the network."""
    sizes = []
    run = features_module._run

    def count(engine: Engine, frozen: FrozenPart, batches: Iterable[np.ndarray], *, rounded: bool) -> Iterator[Any]:
        return run(engine, frozen, (sizes.append(len(batch)) or batch for batch in batches), rounded=rounded)  # type: ignore[func-returns-value]

    monkeypatch.setattr(features_module, "_run", count)
    monkeypatch.setattr(records, "IMAGES_PER_SHARD", 4)
    return sizes


def test_new_images_cost_what_they_add(small_run: Run, workdir: Path, computed: list[int]) -> None:
    train, val = (images_of(small_run, split).ids for split in ("train", "val"))
    make(small_run, tfrecords_of(small_run, workdir, (train[5], train[-3], val[1])), workdir / "grown")
    before = {path.stat().st_ino for path in (workdir / "grown").iterdir()}
    computed.clear()
    tfrecords_dir = tfrecords_of(small_run, workdir)
    make(small_run, tfrecords_dir, workdir / "grown")
    assert sum(computed) == 2 * 2 + 1  # two views of each training image
    make(small_run, tfrecords_dir, workdir / "anew")
    assert sum(computed) > 80
    assert contents(workdir / "grown") == contents(workdir / "anew")
    assert (workdir / "grown.json").read_bytes() == (workdir / "anew.json").read_bytes()
    linked = [path.name for path in (workdir / "grown").iterdir() if path.stat().st_ino in before]
    assert (
        3 < len([name for name in linked if name.endswith("pooled.npy")]) < len(list(tfrecords_dir.glob("*record-*")))
    )


def test_the_same_photos_prepared_in_another_way_are_computed_anew(
    small_run: Run, workdir: Path, computed: list[int]
) -> None:
    make(small_run, tfrecords_of(small_run, workdir), workdir / "features")
    first = sum(computed)
    cropped = tfrecords_of(small_run, workdir, image=changed(IMAGE, resize="crop"))
    make(small_run, cropped, workdir / "features")
    assert sum(computed) == 2 * first
    make(small_run, cropped, workdir / "anew")
    assert contents(workdir / "features") == contents(workdir / "anew")


def test_a_damaged_shard_is_computed_anew(small_run: Run, workdir: Path, computed: list[int]) -> None:
    tfrecords_dir = tfrecords_of(small_run, workdir)
    make(small_run, tfrecords_dir, workdir / "twice")
    before = contents(workdir / "twice")
    computed.clear()
    damaged = workdir / "twice" / "val-00000-pooled.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    make(small_run, tfrecords_dir, workdir / "twice")
    assert sum(computed) == len(np.load(workdir / "twice" / "val-00000-labels.npy"))
    assert contents(workdir / "twice") == before


def test_another_seed_takes_nothing_over(small_run: Run, workdir: Path, computed: list[int]) -> None:
    tfrecords_dir = tfrecords_of(small_run, workdir)
    make(small_run, tfrecords_dir, workdir / "twice")
    first = sum(computed)
    make(small_run, tfrecords_dir, workdir / "twice", changed(FEATURES, seed=2))
    assert sum(computed) == 2 * first


def test_training_views_are_rounded_to_256_levels(small_run: Run, workdir: Path) -> None:
    unchanged = {"flip": False} | dict.fromkeys(("rotation_degrees", "zoom", "shift", "shear_degrees", "contrast"), 0.0)
    plain = changed(FEATURES, views=1, augment=FEATURES.augment.model_dump() | unchanged)
    make_features(small_run, workdir / "features", plain, UNFROZEN_LAYERS)
    images = images_of(small_run, "train").images
    frozen, _ = features_module.prepare(small_run.backbone_dir, plain, IMAGE, UNFROZEN_LAYERS)
    batches = (images[start : start + 8] for start in range(0, len(images), 8))
    exact = np.concatenate([outputs["boundary"] for outputs in frozen.engines.training.run(batches)])
    rounded = FeatureSplit(workdir / "features", "train", "boundary").rows(np.arange(len(images)), 0)
    span = exact.max(axis=(1, 2), keepdims=True) - exact.min(axis=(1, 2), keepdims=True)
    assert (np.abs(rounded - exact) <= span / 509).all()
    assert not np.array_equal(rounded, exact)


def test_maximum_pooling(small_run: Run, workdir: Path) -> None:
    params = changed(FEATURES, views=1, pooling="max", engine="tensorflow")
    make_features(small_run, workdir / "features", params, "out_relu")
    manifest = feature_store.read_manifest(workdir / "features")
    assert (manifest["pooling"], manifest["boundary"]) == ("max", "Conv_1_bn")
    pooled, boundary = (FeatureSplit(workdir / "features", "val", kind) for kind in ("pooled", "boundary"))
    everything = np.arange(len(pooled))
    last_map = boundary.rows(everything, 0).astype(np.float32).clip(0, 6)  # Conv_1_bn, then ReLU6
    np.testing.assert_allclose(pooled.rows(everything, 0), last_map.max(axis=(1, 2)), atol=5e-3)  # of float16


def test_a_value_too_large_for_float16() -> None:
    """An infinity in the store would come out as a loss that is not a number, epochs later."""
    fits = np.array([65504.0, -65504.0, 1e-9], np.float32)
    assert features_module._to_float16(fits).tolist() == [65504.0, -65504.0, 0.0]
    with pytest.raises(PawlineError, match=r"^features are stored as float16, and a value of 70000 is too large for"):
        features_module._to_float16(np.array([1.0, -70000.0], np.float32))


def test_a_share_that_rounds_to_no_layer(small_run: Run) -> None:
    params = changed(FEATURES, engine="tensorflow")
    frozen, manifest = features_module.prepare(small_run.backbone_dir, params, IMAGE, 0.001)
    assert (frozen.boundary, manifest["boundary"]) == (None, None)


def test_nothing_to_fine_tune_needs_no_boundary(small_run: Run, workdir: Path) -> None:
    make_features(small_run, workdir / "features", changed(FEATURES, views=1), 0)
    assert json.loads((workdir / "features" / "manifest.json").read_text())["boundary"] is None
    assert not list((workdir / "features").glob("*boundary*"))
    first_view = FeatureSplit(small_run.features_dir, "train", "pooled").rows(np.arange(5), 0)
    again = FeatureSplit(workdir / "features", "train", "pooled").rows(np.arange(5), 0)
    np.testing.assert_allclose(again, first_view, atol=1e-4)  # another graph sums in another order
