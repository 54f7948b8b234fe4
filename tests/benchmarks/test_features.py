import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks import features
from tasks import records
from tasks.feature_store import FeatureSplit
from tasks.quiet_tf import keras
from tasks.stage import PawlineError
from tests.tasks.conftest import FEATURES, UNFROZEN_LAYERS, Run
from tests.tasks.conftest import small_run as small_run  # the fixture

if TYPE_CHECKING:
    from tasks.features import FrozenPart

Prepared = tuple[dict[str, "FrozenPart"], Path]


@pytest.fixture(scope="module")
def prepared(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    network = tmp_path_factory.mktemp("network") / "network.keras"
    size_px = features.image_size(records.shard_paths(small_run.tfrecords_dir, "train")[0])
    backbone_dir = small_run.backbone_dir
    return features.prepare(backbone_dir, FEATURES, UNFROZEN_LAYERS, size_px=size_px, network_out=network), network


def test_ours_is_what_the_stage_stores(prepared: Prepared, small_run: Run) -> None:
    shards = tuple(records.shard_paths(small_run.tfrecords_dir, "val"))
    stored = FeatureSplit(small_run.features_dir, "val", "pooled")
    found = features.compute(shards, prepared[0]["float32"])
    assert np.array_equal(found, stored.rows(np.arange(len(stored)), 0))


def test_both_sides_compute_the_same_outputs(prepared: Prepared, small_run: Run) -> None:
    frozen, network = prepared
    outputs = keras.models.load_model(network).output
    assert set(outputs) == {"pooled", "boundary"}
    boundary = FeatureSplit(small_run.features_dir, "val", "boundary")
    assert outputs["boundary"].shape[1:] == boundary.rows(np.array([0]), 0).shape[1:]
    assert {part.engines.evaluation.precision for part in frozen.values()} == set(frozen)


def test_every_image_goes_through_both_sides(prepared: Prepared, small_run: Run) -> None:
    shards = features.choose_shards(small_run.tfrecords_dir, 1)
    results = features.compare_all(shards, *prepared, rounds=1)
    assert "features_float32" in results
    bars = {"features_bfloat16": (3.5, 0.98), "features_float32": (2.0, 0.99999)}
    for name, result in results.items():
        bar, least_cosine = bars[name]
        assert (result["bar"], len(result["ours"]), len(result["theirs"])) == (bar, 1, 1)
        assert result["images"] == sum(1 for shard in shards for _ in records.scan_shard(shard))
        [note] = result["notes"]
        assert float(re.findall(r"[\d.]+$", note)[0]) > least_cosine, "rows in the same order, of the same images"


def test_so_many_images_are_as_many_whole_shards(tmp_path: Path) -> None:
    with pytest.raises(PawlineError, match="holds no TFRecords"):
        features.choose_shards(tmp_path, 1)
    for number in range(3):
        with closing(records.Writer(records.shard_path(tmp_path, "train", number, 3))) as writer:
            for _ in range(10):
                writer.write(records.serialize(b"", 0, "id", "path"))
    chosen = {images: len(features.choose_shards(tmp_path, images)) for images in (1, 10, 11, 1000)}
    assert chosen == {1: 1, 10: 1, 11: 2, 1000: 3}


def test_other_images_are_noticed() -> None:
    vectors = np.eye(3)
    assert features.cosines(vectors, vectors) == 1
    assert features.cosines(vectors, vectors[[0, 2, 1]]) == 0
    with pytest.raises(ValueError, match="different images"):
        features.cosines(vectors, vectors[:2])
