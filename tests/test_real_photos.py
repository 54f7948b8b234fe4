"""The committed defaults on real photos, from the archive to the figures and to planted label errors."""

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks import seals
from tasks.backbone import backbone
from tasks.evaluate import evaluate
from tasks.feature_store import read_ids, shard_files
from tasks.features import features
from tasks.fine_tune import FineTuneInputs, fine_tune
from tasks.ingest import ingest
from tasks.label_errors import label_errors
from tasks.params import Params, check_params
from tasks.preprocess import preprocess
from tasks.source import source
from tasks.train_head import train_head
from tasks.validate import validate
from tests.conftest import ROOT
from tests.test_pipeline import commit, copy_project, run, set_params


def with_archive(archive: Path, **changes: dict[str, object]) -> Params:
    """The committed parameters with an archive for a source, and sections changed."""
    values = check_params(ROOT / "params.yaml").model_dump(by_alias=True)
    values["data"] |= {"source": "archive", "path": str(archive)}
    for section, keys in changes.items():
        values[section] |= keys
    return Params.model_validate(values)


def run_pipeline(params: Params) -> Path:
    """Run every stage up to the evaluation in the current folder."""
    data, models, reports = Path("data"), Path("models"), Path("reports")
    source(source_out=data / "source.json", weights_out=data / "weights.json", params=params)
    ingest(source_json=data / "source.json", raw_dir=data / "raw", params=params.data)
    validate(
        raw_dir=data / "raw",
        images_out=data / "images.parquet",
        verdicts_dir=data / "verdicts",
        docs_out=reports / "validation",
        metrics_out=reports / "metrics" / "validation.json",
        params=params.validate_,
    )
    preprocess(
        raw_dir=data / "raw",
        images_path=data / "images.parquet",
        tfrecords_dir=data / "tfrecords",
        record_out=data / "tfrecords.json",
        params=params.image,
    )
    backbone(params=params.backbone, weights_json=data / "weights.json", out_dir=models / "backbone")
    features(
        tfrecords_dir=data / "tfrecords",
        backbone_dir=models / "backbone",
        features_dir=data / "features",
        record_out=data / "features.json",
        params=params.features,
        image=params.image,
        unfrozen_layers=params.fine_tune.unfrozen_layers,
    )
    train_head(
        features_dir=data / "features",
        backbone_dir=models / "backbone",
        stage1_dir=models / "stage1",
        params=params.train_head,
    )
    fine_tune(
        inputs=FineTuneInputs(data / "features", models / "stage1", models / "backbone"),
        stage2_dir=models / "stage2",
        classifier_out=models / "classifier.keras",
        params=params.fine_tune,
    )
    evaluate(
        tfrecords_dir=data / "tfrecords",
        features_dir=data / "features",
        models_dir=models,
        metrics_out=reports / "metrics" / "evaluation.json",
        plots_dir=reports / "plots",
        predictions_out=data / "predictions.parquet",
    )
    return reports / "metrics" / "evaluation.json"


@pytest.mark.usefixtures("workdir")
def test_cats_and_dogs_reach_096(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")  # the weights need not be fetched again
    # The first of the committed epochs, step by step (the learning rate is constant), and two of the committed views:
    # each photo as it is, and augmented.
    params = with_archive(shared_data / "petimages.zip", features={"views": 2}, fine_tune={"epochs": 1})
    assert params.fine_tune.schedule == "constant"
    evaluation = json.loads(run_pipeline(params).read_text())
    assert evaluation["accuracy"] >= 0.96
    assert evaluation["split"] == "test"
    assert evaluation["stage2"]["val"]["accuracy"] >= evaluation["stage1"]["val"]["accuracy"]
    assert evaluation["end_to_end_max_difference"] <= 0.005, "stage 2 starts from a float32 tensor"
    assert evaluation["calibration"]["ece_scaled"] <= 0.02
    check_planted_label_errors(Path("data"))


def check_planted_label_errors(data: Path) -> None:
    """Of 3 % flipped training labels, half or more are among as many suggestions as were flipped."""
    ids = read_ids(data / "features", "train")
    flipped = set(np.random.default_rng(0).choice(ids, round(0.03 * len(ids)), replace=False).tolist())
    rows = iter(ids)
    for path in shard_files(data / "features", "train", "labels"):
        labels = np.load(path)
        np.save(path, [1 - label if next(rows) in flipped else label for label in labels])
    seals.seal(data / "features")
    label_errors(
        features_dir=data / "features",
        images_path=data / "images.parquet",
        errors_out=data / "label_errors.parquet",
        metrics_out=data / "label_errors.json",
    )
    suspects = pq.read_table(data / "label_errors.parquet")["id"].to_pylist()
    assert len(flipped & set(suspects[: len(flipped)])) >= len(flipped) / 2


@pytest.fixture(scope="module")
def quick(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkout beside a folder of photos of five classes, the quick preset run there, and what was on the screen."""
    folder = tmp_path_factory.mktemp("quick")
    with zipfile.ZipFile(shared_data / "cat_breeds.zip") as archive:
        archive.extractall(folder / "photos")
    checkout = folder / "checkout"
    checkout.mkdir()
    copy_project(checkout)
    set_params(checkout, {"export.formats": ["keras", "openvino"]})
    commit(checkout)
    done = run(["pawline", "run", "--preset", "quick", "--set", "data.path=../photos"], checkout)
    return checkout, done.stdout


def test_the_quick_preset_on_a_folder(quick: tuple[Path, str]) -> None:
    """The README's commands."""
    checkout, screen = quick
    assert "data.source is directory instead of synthetic" in screen
    assert "kept as quick-1" in screen
    experiments = run(["dvc", "exp", "show", "--csv"], checkout).stdout
    row = next(row for row in csv.DictReader(io.StringIO(experiments)) if row["Experiment"] == "quick-1")
    assert (row["image.size_px"], row["data.path"]) == ("128", "../photos")
    assert float(row["models/stage1/metrics.json:val_accuracy"]) > 0.4  # twice a guess among five breeds


def test_predictions_of_the_readme(quick: tuple[Path, str]) -> None:
    checkout, _ = quick
    answers = list(csv.DictReader(io.StringIO(run(["pawline", "predict", "../photos"], checkout).stdout)))
    assert len(answers) == 400
    right = [row for row in answers if row["class"] == Path(row["path"]).parent.name.lower()]
    assert len(right) > 0.5 * len(answers), "most were trained on"
    run(["pawline", "predict", "../photos", "--unsure-below", "0.9", "--csv", "answers.csv"], checkout)
    with (checkout / "answers.csv").open(newline="", encoding="utf-8") as file:
        labels = [row["class"] for row in csv.DictReader(file)]
    surest = [row["class"] if float(row["probability"]) >= 0.9 else "unsure" for row in answers]
    assert labels == surest
    assert 0 < labels.count("unsure") < len(labels)


@pytest.mark.usefixtures("workdir")
def test_five_classes_get_a_softmax(quick: tuple[Path, str]) -> None:
    """On the photos and the first stage of the quick preset, which has no second."""
    made, _ = quick
    params = check_params(made / "params.yaml")
    data, models = Path("data"), Path("models")
    tail = params.fine_tune.model_copy(update={"unfrozen_layers": 30, "epochs": 1})
    shutil.copytree(made / "models/stage1", models / "stage1")
    features(
        tfrecords_dir=made / "data/tfrecords",
        backbone_dir=made / "models/backbone",
        features_dir=data / "features",
        record_out=data / "features.json",
        params=params.features,
        image=params.image,
        unfrozen_layers=tail.unfrozen_layers,
    )
    fine_tune(
        inputs=FineTuneInputs(data / "features", models / "stage1", made / "models/backbone"),
        stage2_dir=models / "stage2",
        classifier_out=models / "classifier.keras",
        params=tail,
    )
    evaluate(
        tfrecords_dir=made / "data/tfrecords",
        features_dir=data / "features",
        models_dir=models,
        metrics_out=data / "evaluation.json",
        plots_dir=data / "plots",
        predictions_out=data / "predictions.parquet",
    )
    summary = json.loads(Path("models/stage1/summary.json").read_text())
    assert summary["output"] == "softmax"
    assert len(summary["labels"]) == 5
    assert json.loads(Path("models/stage2/summary.json").read_text())["epochs"] == 1
    evaluation = json.loads((data / "evaluation.json").read_text())
    assert evaluation["accuracy"] > 0.4  # twice a guess; look-alike breeds are hard
