"""A backbone that is not MobileNetV2, with weights from a file, through every stage that has to do with it."""

import copy
import json
from typing import Final

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks import backbones, seals
from tasks.backbone import backbone
from tasks.evaluate import evaluate
from tasks.features import features
from tasks.fine_tune import FineTuneInputs, fine_tune
from tasks.params import BackboneParams, ExportParams
from tasks.quiet_tf import keras
from tasks.source import source
from tasks.stage import write_json
from tasks.train_head import train_head
from tests.tasks.conftest import (
    FEATURES,
    FINE_TUNE,
    IMAGE,
    PARAMS,
    TRAIN_HEAD,
    Run,
    changed,
    make_exports,
    working_in,
)
from tests.tasks.test_evaluate import check_stages

NAME: Final = "VGG16"  # no BatchNormalization: features of any size
UNFROZEN, BOUNDARY = "block5_conv2", "block5_conv1"


def test_every_stage(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = Run(tmp_path_factory.mktemp(NAME))
    weights = run.root / "random.weights.h5"
    keras.utils.set_random_seed(0)
    backbones.build_without_top(NAME, 1.0).save_weights(weights)
    params = BackboneParams(name=NAME, width=1.0, source="file", path=str(weights))
    unfrozen = {"unfrozen_layers": UNFROZEN}
    with working_in(run.root):
        whole = PARAMS.model_copy(update={"backbone": params, "fine_tune": changed(FINE_TUNE, **unfrozen)})
        source(source_out=run.root / "data" / "source.json", weights_out=run.weights_json, params=whole)
        backbone(params=params, weights_json=run.weights_json, out_dir=run.backbone_dir)
        features(
            tfrecords_dir=small_run.tfrecords_dir,
            backbone_dir=run.backbone_dir,
            features_dir=run.features_dir,
            record_out=run.root / "data" / "features.json",
            params=changed(FEATURES, pooling="max"),
            image=IMAGE,
            unfrozen_layers=UNFROZEN,
        )
        head = changed(TRAIN_HEAD, output="logit", hidden_units=[16])
        train_head(features_dir=run.features_dir, backbone_dir=run.backbone_dir, stage1_dir=run.stage1_dir, params=head)
        # As if stage 1 had been hopeless, so that what stage 2 trained is what is scored and exported.
        summary = json.loads((run.stage1_dir / "summary.json").read_text())
        learned = copy.deepcopy(summary)
        summary["best"] |= {"val_accuracy": 0.0}
        write_json(summary, run.stage1_dir / "summary.json")
        seals.seal(run.stage1_dir)
        fine_tune(
            inputs=FineTuneInputs(run.features_dir, run.stage1_dir, run.backbone_dir),
            stage2_dir=run.stage2_dir,
            classifier_out=run.classifier_path,
            params=changed(FINE_TUNE, **unfrozen),
        )
        evaluate(
            tfrecords_dir=small_run.tfrecords_dir,
            features_dir=run.features_dir,
            models_dir=run.models_dir,
            metrics_out=run.evaluation_path,
            plots_dir=run.plots_dir,
            predictions_out=run.predictions_path,
        )
        make_exports(small_run, run.classifier_path, run.export_dir, ExportParams(formats=("openvino",)))
    stage2 = json.loads((run.stage2_dir / "summary.json").read_text())
    assert (stage2["boundary"], stage2["selected"]) == (BOUNDARY, "stage2")
    assert stage2["witness"]["before"] == stage2["witness"]["after"]
    assert json.loads(run.evaluation_path.read_text())["end_to_end_max_difference"] < 1e-3
    check_stages(run, stage1=learned)
    table = pq.read_table(run.predictions_path).to_pydict()
    probs = np.array(table["probabilities"])
    assert probs.shape == (len(table["id"]), 2)
    assert ((probs > 0) & (probs < 1)).all()
    assert np.ptp(probs) > 0.01
    assert json.loads((run.backbone_dir / "origin.json").read_text())["name"] == NAME
    assert list(json.loads((run.export_dir / "export.json").read_text())["formats"]) == ["openvino"]
