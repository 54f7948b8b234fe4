"""The recipes of the seed table as one plain Keras program, the way a practitioner would write it by hand.

    python -m benchmarks.reference --params params.yaml --photos DIR --out reference.json

DIR holds the unpacked photos. Which of them are trained on and which are validated on comes from `data/images.parquet`
of a finished run, and the ImageNet weights from its `models/backbone`, so that the pipeline and this program have the
same of both. Everything else is plain: photos are decoded and resized anew each epoch, the frozen backbone runs in
each epoch, the last epoch counts. Photos in a format that TensorFlow cannot read are left out and counted.

Writes the validation accuracy after each epoch of each stage, and the model. `benchmarks.seed_table` times it.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import keras
import tensorflow as tf
from ruamel.yaml import YAML

from tasks.image_table import ImageRow, read_images

READABLE_FORMATS = {"JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP"}  # what tf.io.decode_image decodes
# What the recipes do not vary: other values of these would be left out in silence.
FIXED = {
    ("image", "resize"): "squash",
    ("backbone", "name"): "MobileNetV2",
    ("features", "pooling"): "average",
    **{
        (stage, key): value
        for stage in ("train_head", "fine_tune")
        for key, value in (("schedule", "constant"), ("label_smoothing", 0.0), ("class_weights", "equal"))
    },
}

Params = dict[str, dict[str, Any]]
# TensorFlow and Keras ship no types; these names say at least what is meant.
Dataset: TypeAlias = Any
Layer: TypeAlias = Any
Model: TypeAlias = Any
Tensor: TypeAlias = Any


def read_params(path: Path) -> Params:
    """Read params.yaml; exit with one line if it asks for something that no seed recipe has."""
    params: Params = YAML(typ="safe", pure=True).load(path)
    one_stage = params["fine_tune"]["unfrozen_layers"] == 0
    for (section, key), value in FIXED.items():
        if params[section][key] != value and not (one_stage and section == "fine_tune"):
            raise SystemExit(
                f"error: {section}.{key} is {params[section][key]!r}: the plain program only has {value!r}"
            )
    if not isinstance(params["fine_tune"]["unfrozen_layers"], int):
        raise SystemExit("error: fine_tune.unfrozen_layers must be a count for the plain program")
    return params


def make_dataset(
    rows: list[ImageRow], labels: list[str], photos_dir: Path, *, size_px: int, batch_size: int, shuffle: bool
) -> Dataset:
    """Return batches of images, float32 [batch, size_px, size_px, 3] in 0..255, and of class indices."""

    def load(path: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return tf.image.resize(image, [size_px, size_px]), label

    paths = [str(photos_dir / row.path) for row in rows]
    dataset = tf.data.Dataset.from_tensor_slices((paths, [labels.index(row.label) for row in rows]))
    if shuffle:
        dataset = dataset.shuffle(len(rows))
    return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def build_augmentation(augment: dict[str, Any]) -> list[Layer]:
    """Return Keras's random layers; they are active in training only."""
    fill = augment["fill"]
    layers: dict[str, Callable[[Any], Layer]] = {
        "flip": lambda _: keras.layers.RandomFlip("horizontal"),
        "rotation_degrees": lambda degrees: keras.layers.RandomRotation(degrees / 360, fill_mode=fill),
        "shift": lambda share: keras.layers.RandomTranslation(share, share, fill_mode=fill),
        "zoom": lambda share: keras.layers.RandomZoom(share, fill_mode=fill),
        "shear_degrees": lambda degrees: keras.layers.RandomShear(math.tan(math.radians(degrees)), fill_mode=fill),
        "contrast": lambda share: keras.layers.RandomContrast(share),
    }
    return [make(augment[key]) for key, make in layers.items() if augment[key]]


def load_base(params: Params, backbone_dir: Path) -> Model:
    """Return MobileNetV2 without its top, with the ImageNet weights that the pipeline uses too."""
    size_px = params["image"]["size_px"]
    base = keras.applications.MobileNetV2(
        input_shape=(size_px, size_px, 3), include_top=False, weights=None, alpha=params["backbone"]["width"]
    )
    with h5py.File(backbone_dir / "weights.h5") as file:
        for variable in base.weights:
            variable.assign(file[variable.path][()])
    return base


def build_model(base: Model, params: Params, classes: int) -> Model:
    """Return the whole network: augmentation, scaling, base in inference mode, pooling, head."""
    head = params["train_head"]
    inputs = x = keras.Input(base.input_shape[1:])
    for layer in build_augmentation(params["features"]["augment"]):
        x = layer(x)
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    for units in head["hidden_units"]:
        x = keras.layers.Dropout(head["dropout"])(x)
        x = keras.layers.Dense(units, activation=head["activation"])(x)
    x = keras.layers.Dropout(head["dropout"])(x)
    output = head["output"] if head["output"] != "auto" else "sigmoid" if classes == 2 else "softmax"
    units, activation = {"sigmoid": (1, "sigmoid"), "logit": (1, None), "softmax": (classes, "softmax")}[output]
    return keras.Model(inputs, keras.layers.Dense(units, activation=activation)(x))


def unfreeze(base: Model, layers: int) -> None:
    """Make the last layers trainable and freeze the rest."""
    base.trainable = True
    for layer in base.layers[:-layers]:
        layer.trainable = False


def compile_model(model: Model, training: dict[str, Any]) -> None:
    """Compile with the section's optimizer and learning rate, and the loss and accuracy that fit the output."""
    rate = training["learning_rate"]
    optimizers: dict[str, Callable[[], Any]] = {
        "adam": lambda: keras.optimizers.Adam(rate),
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=training["weight_decay"]),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=training["momentum"]),
        "rmsprop": lambda: keras.optimizers.RMSprop(rate),
    }
    optimizer = optimizers[training["optimizer"]]()
    activation = model.layers[-1].activation.__name__
    if activation == "softmax":
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    else:
        logits = activation == "linear"
        accuracy = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0 if logits else 0.5)
        model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=logits), metrics=[accuracy])


def fit(model: Model, train_ds: Dataset, val_ds: Dataset, training: dict[str, Any]) -> list[float]:
    """Train as the section says; return the validation accuracy after each epoch."""
    compile_model(model, training)
    patience = training["stop_patience"]
    stop = [keras.callbacks.EarlyStopping(training["monitor"], patience=patience)] if patience else []
    history = model.fit(train_ds, validation_data=val_ds, epochs=training["epochs"], callbacks=stop, verbose=2)
    return [round(float(accuracy), 6) for accuracy in history.history["val_accuracy"]]


def train(params: Params, splits: dict[str, list[ImageRow]], args: argparse.Namespace) -> dict[str, list[float]]:
    """Train the head and, if the recipe has a second stage, the base's last layers; save the model."""
    labels = sorted({row.label for row in splits["train"]})
    base = load_base(params, args.backbone_dir)
    base.trainable = False
    model = build_model(base, params, len(labels))
    accuracies = {}
    for name, section in (("stage1", "train_head"), ("stage2", "fine_tune")):
        training = params[section]
        if section == "fine_tune":
            if not training["unfrozen_layers"]:
                break
            unfreeze(base, training["unfrozen_layers"])
        options = {"size_px": params["image"]["size_px"], "batch_size": training["batch_size"]}
        train_ds = make_dataset(splits["train"], labels, args.photos, shuffle=True, **options)
        val_ds = make_dataset(splits["val"], labels, args.photos, shuffle=False, **options)
        accuracies[name] = fit(model, train_ds, val_ds, training)
    model.save(args.model_out)
    return accuracies


def main() -> None:
    """Run the program from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the recipe")
    parser.add_argument("--photos", type=Path, required=True, help="folder of the unpacked photos")
    parser.add_argument("--images", type=Path, default=Path("data/images.parquet"), help="the splits")
    parser.add_argument("--backbone-dir", type=Path, default=Path("models/backbone"), help="ImageNet weights")
    parser.add_argument("--out", type=Path, required=True, help="writes: validation accuracies, JSON")
    parser.add_argument("--model-out", type=Path, default=Path("reference.keras"), help="writes: the model")
    parser.add_argument("--seed", type=int, default=0, help="of the head, the shuffling and the augmentation")
    args = parser.parse_args()
    params = read_params(args.params)
    keras.utils.set_random_seed(args.seed)
    kept = [row for row in read_images(args.images) if row.split in ("train", "val")]
    readable = [row for row in kept if row.format in READABLE_FORMATS]
    splits = {split: [row for row in readable if row.split == split] for split in ("train", "val")}
    accuracies = train(params, splits, args)
    images = {split: len(rows) for split, rows in splits.items()} | {"unreadable": len(kept) - len(readable)}
    report = {"seed": args.seed, "images": images, "val_accuracies": accuracies}
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
