"""How pages and cards write figures, names, and why a stage was selected."""

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from markupsafe import Markup

T = TypeVar("T")

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
FORMAT_NAMES = {
    "keras": "Keras",
    "h5": "HDF5",
    "saved_model": "SavedModel",
    "saved_model_bytes": "SavedModel, from the file's bytes",
    "litert_float32": "LiteRT float32",
    "litert_float16": "LiteRT float16",
    "litert_int8": "LiteRT int8",
    "openvino": "OpenVINO",
    "onnx": "ONNX",
}
MINUS = "\N{MINUS SIGN}"


@overload
def visible(value: str) -> str: ...
@overload
def visible(value: object) -> object: ...
def visible(value: object) -> object:
    """Spell out characters that would not be seen, would reorder the text around them, or would steer a terminal.

    Only those of text: `Markup`, which is ours, and other values are left as they are.
    """
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)
    return value


def name(value: str) -> Markup:
    """Set a user's name apart in HTML: written from right to left it leaves the text around it, and `_` ends a line."""
    return Markup("<bdi>{}</bdi>").format(Markup("_<wbr>").join(visible(value).split("_")))


def percent(share: float) -> str:
    """Format a share: 98.4 %. What is not all of it is 99.9 % at most, and what is something 0.1 % at least."""
    shown = min(max(share, 0.001), 0.999) if 0 < share < 1 else share
    return f"{shown:.1%}".replace("%", " %")


def points(difference: float) -> str:
    """Format a difference of two shares in percentage points, with its sign: +1.6."""
    number = round(100 * difference, 1)
    return f"{number:+.1f}".replace("-", MINUS) if number else "0.0"


def figure(value: float | None) -> str:
    """Format a figure of merit."""
    return "unknown" if value is None else f"{value:.4f}"


def small(value: float) -> str:
    """Format a difference that may be tiny: 0, 0.00015, 1.2e-07."""
    return f"{value:.2g}"


def megabytes(size: int) -> str:
    """Format a number of bytes."""
    return f"{size / 1e6:,.1f} MB"


def seconds(value: float) -> str:
    """Format a time: 0.8 s, 42 s, 12 min."""
    if value >= 600:
        return f"{value / 60:,.0f} min"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Say how many there are: 1 photo, 1,200 photos."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def name_formats(exports: Mapping[str, T]) -> list[tuple[str, str, T]]:
    """Return the export formats as (name, key, what is known of it), in the order of `FORMAT_NAMES`."""
    order = list(FORMAT_NAMES)
    keys = sorted(exports, key=lambda key: (order.index(key) if key in order else len(order), key))
    return [(FORMAT_NAMES.get(key, key), key, exports[key]) for key in keys]


def explain_selection(best1: Mapping[str, float], stage2: Mapping[str, Any]) -> str:
    """Say in words why the selected stage was selected."""
    best2 = stage2["best"]
    if best2 is None:
        return "Stage 1 is the classifier: nothing was unfrozen (fine_tune.unfrozen_layers comes to 0)."
    accuracies = f"{percent(best2['val_accuracy'])} against {percent(best1['val_accuracy'])}"
    losses = f"{best2['val_loss']:.4f} against {best1['val_loss']:.4f}"
    selected = stage2["selected"] == "stage2"
    verdict = "Stage 2 was selected" if selected else "Stage 1 was kept, stage 2 discarded"
    if best1["val_accuracy"] == best2["val_accuracy"]:
        compared = "lower" if best2["val_loss"] < best1["val_loss"] else "not lower"
        equal = f"both reach a validation accuracy of {percent(best1['val_accuracy'])}"
        return f"{verdict}: {equal}, and stage 2's validation loss is {compared}, {losses}."
    compared = "higher" if best2["val_accuracy"] > best1["val_accuracy"] else "lower"
    return f"{verdict}: stage 2's validation accuracy is {compared}, {accuracies}."
