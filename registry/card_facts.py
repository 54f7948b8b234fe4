"""What a model card says of a run, in words and rows, each from something on record."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lineage.records import CountsRecord, EnvironmentRecord
from registry import card_licences
from registry.card_run import NOT_RECORDED, CardRun, Recorded
from tasks import slices as slicing
from tasks.metrics import BOOTSTRAP_SAMPLES
from tasks.params import TrainHeadParams
from tasks.words import SPLIT_NAMES, explain_selection, figure, percent

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[object, ...]

EVEN_UP_TO = 1.5  # largest class over smallest

REASONS = {
    "animated": "animated: more than one frame",
    "blank": "blank: one colour, or nearly",
    "crashes_decoder": "crashes its decoder",
    "empty": "empty: no bytes",
    "exact_duplicate": "exact duplicate: the same bytes as a file that was kept",
    "label_conflict": "label conflict: the same bytes in more than one class",
    "not_an_image": "not an image",
    "out_of_memory": "out of memory: decoding takes more than a photo may",
    "rejected": "rejected by a person",
    "split_leak": "split leak: a near-duplicate is in an evaluation split",
    "too_large": "too large: more pixels than allowed",
    "too_slow": "too slow: decoding takes longer than a photo may",
    "too_small": "too small: the short side has fewer pixels than allowed",
    "truncated": "truncated: the file ends early",
    "undecodable": "undecodable: damaged",
}
SOURCES = {
    "synthetic": "Pictures drawn by Pawline's generator: no photos.",
    "archive": "An archive with a folder for each class.",
    "directory": "A folder with a folder for each class.",
    "tfds": "A TensorFlow Datasets data set, its files as TFDS stores them.",
}
SOURCE_FACTS = {
    "fingerprint": "SHA-256",
    "sha256": "SHA-256",
    "source": "data.source",
    "generator": "generator's version",
}
RESIZING = {  # in words, and in Pillow's
    "squash": ("squashed to the square whatever the aspect", "photo.resize({}, Image.Resampling.BILINEAR)"),
    "crop": ("the middle square", "ImageOps.fit(photo, {}, Image.Resampling.BILINEAR)"),
    "pad": ("the whole picture, between black bars", "ImageOps.pad(photo, {}, Image.Resampling.BILINEAR)"),
}
ONLY_IF = {  # a parameter of training, and what another must be for it to count
    "momentum": ("optimizer", "sgd"),
    "weight_decay": ("optimizer", "adamw"),
    "warmup_epochs": ("schedule", "cosine"),
    "plateau_factor": ("schedule", "plateau"),
    "plateau_patience": ("schedule", "plateau"),
}
OF_THE_HEAD = {"output", "hidden_units", "activation"}  # said of the architecture
AUGMENTATIONS = {
    "rotation_degrees": "rotation up to {:g} degrees",
    "zoom": "zoom up to {:.0%}",
    "shift": "shift up to {:.0%}",
    "shear_degrees": "shear up to {:g} degrees",
    "contrast": "contrast up to {:.0%}",
}


def collect(run: CardRun) -> dict[str, Any]:
    """Return what the template fills in."""
    return {
        "lineage": run.lineage,
        "params": run.params,
        "labels": run.labels,
        "synthetic": run.synthetic,
        **_model(run),
        **_data(run),
        **_training(run),
        **_metrics(run),
        "weights_licence": card_licences.weights_licence(run.lineage.weights),
        "data_licence": card_licences.data_licence(run),
        "model_licence": card_licences.model_licence(run),
        "environment": _environment(run.lineage.environment),
    }


def _model(run: CardRun) -> dict[str, Any]:
    params = run.params
    how, in_pillow = RESIZING.get(params["image.resize"], (NOT_RECORDED, RESIZING["squash"][1]))
    size, hidden = params["image.size_px"], params["train_head.hidden_units"]
    width = f" of width {params['backbone.width']}" if params["backbone.name"] == "MobileNetV2" else ""
    metrics, stage2 = run.lineage.metrics, run.stage2 or {"best": None}
    return {
        "size_px": size,
        "resizing": how,
        "resize_code": in_pillow.format((size, size)),
        "backbone": f"{params['backbone.name']}{width}",
        "hidden": f"{params['train_head.activation']} layers of {_shown(hidden)}" if hidden else "no hidden layer",
        "answer": (run.stage1 or {}).get("output"),
        "stage2": stage2,
        "selected": metrics["selected"] if metrics else stage2.get("selected"),
    }


def _data(run: CardRun) -> dict[str, Any]:
    counts, source = run.lineage.counts, run.lineage.source
    facts = [(SOURCE_FACTS.get(key, key), value) for key, value in sorted((source.fingerprint or {}).items()) if value]
    drawn = {"synthetic": "The classes are what was drawn.", "tfds": "The classes are those of the data set."}
    name = run.params["data.source"]
    return {
        "counts": counts,
        "source_words": SOURCES.get(name, f"{name}."),
        "label_words": drawn.get(name, "The class of a photo is the name of its folder."),
        "source_rows": [("name", card_licences.data_name(run)), *facts],
        "class_rows": _class_rows(counts) if counts else [],
        "reason_rows": [(_reason(name), files) for name, files in counts.by_reason.items()] if counts else [],
        "near_duplicates": _near_duplicates(run),
        "overridden": (run.validation or {}).get("overridden", {"kept": 0, "rejected": 0}),
        "balance": _balance(counts) if counts else NOT_RECORDED,
    }


def _reason(name: str) -> str:
    return REASONS.get(name, name.replace("_", " "))


def _class_rows(counts: CountsRecord) -> list[dict[str, Any]]:
    """Return a row a class: how many of its photos are in each split, and its share of all that were kept."""
    rows = []
    for label in counts.labels:
        of_split = {split: photos.get(label, 0) for split, photos in counts.splits.items()}
        total = sum(of_split.values())
        rows.append({"label": label, **of_split, "all": total, "share": total / max(counts.kept, 1)})
    return rows


def _near_duplicates(run: CardRun) -> str:
    bits = run.params["validate.near_duplicate_bits"]
    rule = f"(perceptual hashes at most {bits} of 64 bits apart)"
    if run.validation is None:
        return f"how many photos look alike {rule} is not recorded."
    groups = run.validation["near_duplicate_groups"]
    if not groups:
        return f"no photos that look alike {rule} were found."
    photos = "" if run.images is None else f"{slicing.count_grouped(run.images):,} photos "
    named = "1 group" if groups == 1 else f"{groups:,} groups"
    whole = "each group is in one split as a whole, unless the splits were predefined"
    return f"{photos}in {named} look alike {rule}; {whole}."


def _balance(counts: CountsRecord) -> str:
    """Compare the largest and the smallest class of the training split."""
    train = counts.splits["train"]
    smallest, *_, largest = sorted(counts.labels, key=lambda label: train.get(label, 0))
    if not train.get(smallest):
        return f"{smallest} has no training images."
    ratio = train[largest] / train[smallest]
    counts_of_both = f"{largest} has {train[largest]:,} training images, {smallest} has {train[smallest]:,}"
    if ratio <= EVEN_UP_TO:
        return f"about even; {counts_of_both}."
    return f"uneven by a factor of {ratio:.1f}, so a bias towards larger classes is to be expected; {counts_of_both}."


def _training(run: CardRun) -> dict[str, Any]:
    stage1, stage2 = run.stage1, run.stage2
    return {
        "training_rows": [*_recipe(run.params), *_outcome(stage1, stage2)],
        "selection": explain_selection(stage1["best"], stage2) if stage1 and stage2 else None,
        "witness": _witness(stage1, stage2),
        "augmentation": ", ".join(_augmentations(run.params)) or "none is changed at random",
    }


def _recipe(params: Recorded) -> list[Row]:
    """Return what both stages were told: a row a parameter that counts in either."""
    keys = {key.removeprefix("train_head.") for key in params if key.startswith("train_head.")} - OF_THE_HEAD
    order = list(TrainHeadParams.model_fields)
    in_order = sorted(keys, key=lambda key: (order.index(key) if key in order else len(order), key))
    rows = [(key, [_setting(params, stage, key) for stage in ("train_head", "fine_tune")]) for key in in_order]
    return [(key.replace("_", " "), *cells) for key, cells in rows if any(cells)]


def _setting(params: Recorded, stage: str, key: str) -> str:
    """Return a parameter of a stage; empty if the stage has none of that name, or others make it meaningless."""
    other, value = ONLY_IF.get(key, (key, params.get(f"{stage}.{key}")))
    if f"{stage}.{key}" not in params or params[f"{stage}.{other}"] != value:
        return ""
    return _shown(params[f"{stage}.{key}"])


def _outcome(stage1: dict[str, Any] | None, stage2: dict[str, Any] | None) -> list[Row]:
    stages = [summary if summary and summary["best"] else None for summary in (stage1, stage2)]

    def row(name: str, value_of: Callable[[dict[str, Any]], str]) -> Row:
        return name, *("" if summary is None else value_of(summary) for summary in stages)

    return [
        row("best epoch", lambda summary: f"{summary['best']['epoch']} of {summary['epochs']}"),
        row("its validation accuracy", lambda summary: percent(summary["best"]["val_accuracy"])),
        row("its validation loss", lambda summary: figure(summary["best"]["val_loss"])),
        row("frozen tensors", lambda summary: f"{summary['witness']['frozen_tensors']:,}"),
        row("of them moved", lambda summary: f"{summary['witness']['moved']:,}"),
    ]


def _augmentations(params: Recorded) -> Iterator[str]:
    if params.get("features.augment.flip"):
        yield "left-right flips"
    for name, words in AUGMENTATIONS.items():
        if params.get(f"features.augment.{name}"):
            yield words.format(params[f"features.augment.{name}"]).replace("%", " %")


def _metrics(run: CardRun) -> dict[str, Any]:
    metrics = run.lineage.metrics
    if metrics is None:
        return {"evaluation": None, "split": None}
    known = run.predictions is not None and run.images is not None
    parts = slicing.slices(run.predictions, run.images) if known else []
    low, high = metrics["accuracy_interval"]
    return {
        "evaluation": metrics,
        "split": SPLIT_NAMES[metrics["split"]],
        "points": f"{100 * (high - low):.1f}",
        "loss_interval": None if run.predictions is None else _loss_interval(run.predictions, run.labels),
        "stage_rows": _stage_rows(metrics),
        "slices": parts,
        "worse": [str(part) for part in parts if part.is_clearly_below(metrics["accuracy"])],
        "too_few": [str(part) for part in parts if not part.says_enough],
        "unseen": [f"{by}: {value}" for by, value in slicing.never_seen(parts)],
    }


def _stage_rows(metrics: dict[str, Any]) -> list[Row]:
    """Return accuracy, AUC and loss of both stages, on the validation split and on the test split if there is one.

    None if there was no stage 2.
    """
    rows: list[Row] = []
    if "stage2" not in metrics:
        return rows
    for split in dict.fromkeys(("val", metrics["split"])):
        scores = [metrics[stage]["val"] if split == "val" else metrics[stage] for stage in ("stage1", "stage2")]
        for name, key, shown in (("accuracy", "accuracy", percent), ("AUC", "auc", figure), ("loss", "loss", figure)):
            rows.append((f"{SPLIT_NAMES[split]} {name}", *(shown(score[key]) for score in scores)))
    return rows


def _loss_interval(predictions: "pa.Table", labels: list[str]) -> tuple[float, float]:
    """Return the 95 % percentile interval of the loss over resampled images, as `evaluate` has it for the AUC."""
    probs = np.array(predictions["probabilities"].to_pylist())
    truth = [labels.index(label) for label in predictions["label"].to_pylist()]
    losses = -np.log(np.clip(probs[np.arange(len(truth)), truth], 1e-7, 1))
    rng = np.random.default_rng(0)
    means = [losses[rng.integers(0, len(losses), len(losses))].mean() for _ in range(BOOTSTRAP_SAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _witness(stage1: dict[str, Any] | None, stage2: dict[str, Any] | None) -> str:
    trained = [
        (name, run["witness"]) for name, run in (("stage 1", stage1), ("stage 2", stage2)) if run and run["best"]
    ]
    if not trained:
        return NOT_RECORDED
    counts = " and ".join(f"{witness['frozen_tensors']:,} tensors in {name}" for name, witness in trained)
    same = all(witness["before"] == witness["after"] for _, witness in trained)
    verdict = "are the same" if same else "DIFFER"
    return f"the digests of what had to stay frozen, {counts}, taken before and after training, {verdict}."


def _environment(environment: EnvironmentRecord) -> list[Row]:
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    lock, engine = environment.lock_file, environment.engine
    return [
        ("Python", environment.python or NOT_RECORDED),
        ("machine", environment.machine or NOT_RECORDED),
        ("instruction sets", ", ".join(environment.processor_features) or NOT_RECORDED),
        ("threads", environment.threads or NOT_RECORDED),
        ("packages", packages or NOT_RECORDED),
        (
            "frozen features by",
            f"{engine} in {environment.precision}" if engine else NOT_RECORDED,
        ),
        ("all packages", f"{lock.path} at the commit, MD5 {lock.md5}" if lock else NOT_RECORDED),
    ]


def _shown(value: object) -> str:
    """Show a parameter: 0.00003 as 3e-05, a list by its members."""
    if value is None or value == [] or value == ():
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
