"""Bad parameters: one line that names the key, the value and what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.params import (
    BACKBONE_LAYERS,
    DataParams,
    TrainHeadParams,
    check_params,
    load_count,
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
        ("train_head.output", "tanh", "is 'tanh': allowed is one of auto, sigmoid, softmax"),
        ("features.augment.flip", "yes", "is 'yes': allowed is true or false"),
        ("features.augment.zoom", 1, "is 1: allowed is a number at least 0, below 1"),
        ("features.seed", -1, "is -1: allowed is an integer at least 0, below 2147483648"),
        ("data.source", "s3", "is 's3': allowed is one of synthetic, archive, directory, tfds"),
        ("data.sha256", "abc", "is 'abc': allowed is text that matches ^[0-9a-f]{64}$ or null"),
        ("data.path", 7, "is 7: allowed is text or null"),
        ("image.size_px", 32, "is 32: allowed is an integer at least 96, at most 320"),
        ("backbone.name", "ResNet50", "is 'ResNet50': allowed is one of MobileNetV2"),
        ("validate.splits.val", 1.5, "is 1.5: allowed is a number at least 0, at most 1"),
        ("validate.keep", ["a", 3], ".1 is 3: allowed is text"),
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


def test_more_layers_than_the_backbone_has(write: Callable[..., Path]) -> None:
    line = one_line(write("fine_tune.unfrozen_layers", 155))
    assert line == "fine_tune.unfrozen_layers is 155: MobileNetV2 has 154 layers, so 0 to 154 are allowed"
    check_params(write("fine_tune.unfrozen_layers", 154))
    check_params(write("fine_tune.unfrozen_layers", 0))


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
    path.write_text(text.split("fine_tune:")[0])
    assert one_line(path) == "fine_tune is missing"
    path.write_text(text.replace("image:\n  size_px: 224", "image:"))
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
    with pytest.raises(PawlineError, match=r"params\.yaml: fine_tune\.layers is missing$"):
        load_count(path, "fine_tune.layers")
    assert load_count(write("fine_tune.unfrozen_layers", 7), "fine_tune.unfrozen_layers") == 7
    with pytest.raises(PawlineError, match=r"fine_tune\.unfrozen_layers is 'many': allowed is an integer"):
        load_count(write("fine_tune.unfrozen_layers", "many"), "fine_tune.unfrozen_layers")


def test_the_layer_counts_are_kerass() -> None:
    from tasks.model import BACKBONES

    assert {name: len(build(include_top=False, weights=None).layers) for name, build in BACKBONES.items()} == (
        BACKBONE_LAYERS
    )
