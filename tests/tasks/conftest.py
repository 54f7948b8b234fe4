"""A small finished pipeline, made once in-process by the stage functions and shared by every test that needs data."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

from tasks.backbone import backbone
from tasks.evaluate import evaluate
from tasks.export import ExportInputs, export
from tasks.features import features
from tasks.fine_tune import FineTuneInputs, fine_tune
from tasks.ingest import ingest
from tasks.params import ExportParams, FeaturesParams, ImageParams, check_params
from tasks.params_file import Section
from tasks.preprocess import preprocess
from tasks.source import source
from tasks.train_head import train_head
from tasks.validate import validate
from tests.conftest import ROOT
from tests.once import made_once

S = TypeVar("S", bound=Section)

COMMITTED = check_params(ROOT / "params.yaml")
UNFROZEN_LAYERS = 30
IMAGE = ImageParams(size_px=96, resize="squash")


def changed(section: S, **values: object) -> S:
    """The section with other values, checked like the file."""
    return section.model_validate({**section.model_dump(), **values})


DATA = changed(COMMITTED.data, synthetic_images=60)
PARAMS = COMMITTED.model_copy(update={"data": DATA})
VALIDATE = changed(
    COMMITTED.validate_, splits={"train": 0.6, "val": 0.2, "test": 0.2}, min_images_per_class=2, max_reject_share=0.5
)
FEATURES = changed(COMMITTED.features, views=2, engine="openvino", precision="float32")
TRAIN_HEAD = changed(COMMITTED.train_head, epochs=2, batch_size=8)
FINE_TUNE = changed(COMMITTED.fine_tune, epochs=1, batch_size=8, unfrozen_layers=UNFROZEN_LAYERS, learning_rate=0.0001)


class Run(NamedTuple):
    """The folder of a finished run, laid out as the design says. Tests read it and write elsewhere."""

    root: Path

    @property
    def raw_dir(self) -> Path:
        return self.root / "data" / "raw"

    @property
    def weights_json(self) -> Path:
        return self.root / "data" / "weights.json"

    @property
    def images_path(self) -> Path:
        return self.root / "data" / "images.parquet"

    @property
    def tfrecords_dir(self) -> Path:
        return self.root / "data" / "tfrecords"

    @property
    def features_dir(self) -> Path:
        return self.root / "data" / "features"

    @property
    def models_dir(self) -> Path:
        return self.root / "models"

    @property
    def backbone_dir(self) -> Path:
        return self.models_dir / "backbone"

    @property
    def stage1_dir(self) -> Path:
        return self.models_dir / "stage1"

    @property
    def stage2_dir(self) -> Path:
        return self.models_dir / "stage2"

    @property
    def classifier_path(self) -> Path:
        return self.models_dir / "classifier.keras"

    @property
    def export_dir(self) -> Path:
        return self.models_dir / "export"

    @property
    def evaluation_path(self) -> Path:
        return self.root / "reports" / "metrics" / "evaluation.json"

    @property
    def plots_dir(self) -> Path:
        return self.root / "reports" / "plots"

    @property
    def predictions_path(self) -> Path:
        return self.root / "data" / "predictions.parquet"


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Stages keep unfinished work in the current folder; a session fixture cannot use monkeypatch."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make_images(run: Run) -> None:
    """From nothing to TFRecords."""
    source_json = run.root / "data" / "source.json"
    source(source_out=source_json, weights_out=run.weights_json, params=PARAMS)
    ingest(source_json=source_json, raw_dir=run.raw_dir, params=DATA)
    validate(
        raw_dir=run.raw_dir,
        images_out=run.images_path,
        verdicts_dir=run.root / "data" / "verdicts",
        docs_out=run.root / "reports" / "validation",
        metrics_out=run.root / "reports" / "metrics" / "validation.json",
        params=VALIDATE,
    )
    make_tfrecords(run, run.tfrecords_dir)


def make_tfrecords(run: Run, tfrecords_dir: Path) -> None:
    preprocess(
        raw_dir=run.raw_dir,
        images_path=run.images_path,
        tfrecords_dir=tfrecords_dir,
        record_out=tfrecords_dir.with_suffix(".json"),
        params=IMAGE,
    )


def make_features(made: Run, features_dir: Path, params: FeaturesParams, unfrozen_layers: int | float | str) -> None:
    """Features of the TFRecords and backbone of a run."""
    features(
        tfrecords_dir=made.tfrecords_dir,
        backbone_dir=made.backbone_dir,
        features_dir=features_dir,
        record_out=features_dir.with_suffix(".json"),
        params=params,
        image=IMAGE,
        unfrozen_layers=unfrozen_layers,
    )


def make_models(made: Run, run: Run) -> None:
    """Both stages of training, on the features of `run` and the backbone of `made`."""
    train_head(
        features_dir=run.features_dir, backbone_dir=made.backbone_dir, stage1_dir=run.stage1_dir, params=TRAIN_HEAD
    )
    fine_tune(
        inputs=FineTuneInputs(run.features_dir, run.stage1_dir, made.backbone_dir),
        stage2_dir=run.stage2_dir,
        classifier_out=run.classifier_path,
        params=FINE_TUNE,
    )


def make_evaluation(made: Run, run: Run) -> None:
    """The evaluation of the models of `run` on the TFRecords of `made`."""
    evaluate(
        tfrecords_dir=made.tfrecords_dir,
        features_dir=run.features_dir,
        models_dir=run.models_dir,
        metrics_out=run.evaluation_path,
        plots_dir=run.plots_dir,
        predictions_out=run.predictions_path,
    )


def make_exports(made: Run, classifier_path: Path, export_dir: Path, params: ExportParams) -> None:
    """A classifier in some formats, held against itself on the photos of `made`."""
    inputs = ExportInputs(classifier_path, made.raw_dir, made.images_path, made.tfrecords_dir)
    max_pixels = COMMITTED.validate_.max_pixels
    export(inputs=inputs, export_dir=export_dir, image=IMAGE, params=params, max_pixels=max_pixels)


def make_run(root: Path) -> None:
    """Every stage up to the evaluation, in this process; its exports are in tests/tasks/export/exports.py."""
    run = Run(root)
    with working_in(root):
        make_images(run)
        backbone(params=COMMITTED.backbone, weights_json=run.weights_json, out_dir=run.backbone_dir)
        make_features(run, run.features_dir, FEATURES, UNFROZEN_LAYERS)
        make_models(run, run)
        make_evaluation(run, run)


@pytest.fixture(scope="session")
def small_run(shared_folder: Path) -> Run:
    """About 50 pictures of 96 px through every stage up to the evaluation, in float32."""
    return Run(made_once(shared_folder / "small_run", make_run))
