"""An epoch of stage 2: from the stored features, as `fine_tune` trains it, against Keras's plain `fit`.

    python -m benchmarks.stage2                      in a project whose last run was made of petimages.zip
    python -m benchmarks.stage2 --archive photos.zip --images 200

Both sides train the same layers on the same photos with the run's params.yaml, from stage 1's head on and with every
BatchNormalization layer frozen. Ours reads the boundary tensors that `features` stored; computing them is not part of
an epoch. The plain program (benchmarks/reference.py), in a process of its own with TensorFlow's default settings,
decodes, resizes and augments the photos of original size and runs the whole network.

The first epoch of each side traces the network: it is said in a note and not compared. Neither side validates. Photos
in a format that TensorFlow cannot read are left out on both sides. The archive is looked for in the folder that
PAWLINE_SHARED_DATA names (../shared/data).
"""

import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.features import plain_process
from benchmarks.rounds import Result, add_options, compare, report, timed
from benchmarks.seed_table import SHARED_DATA, unpack
from tasks import stage
from tasks.feature_store import Array, FeatureSplit, read_ids, read_manifest
from tasks.image_table import ImageRow, read_images
from tasks.params import FineTuneParams, load_section
from tasks.stage import PawlineError


class Run(NamedTuple):
    """Where a finished run has what both sides need."""

    params: Path
    table: Path
    features_dir: Path
    stage1_dir: Path
    backbone_dir: Path


class Chosen(NamedTuple):
    """The photos that both sides train on: their rows in the stored features, and in the image table."""

    indices: list[int]
    rows: list[ImageRow]


class StoredSplit(FeatureSplit):
    """The stored boundary tensors of some of the training photos."""

    def __init__(self, features_dir: Path, indices: list[int]) -> None:
        super().__init__(features_dir, "train", "boundary")
        self._indices = np.array(indices)
        self.labels = self.labels[self._indices]

    def rows(self, indices: np.ndarray, view: int) -> Array:
        """Return one view of the photos at these places among the chosen."""
        return super().rows(self._indices[indices], view)


class Ours:
    """Stage 2 as `fine_tune` sets it up, trained epoch by epoch."""

    def __init__(self, run: Run, indices: list[int], *, epochs: int) -> None:
        from tasks import folded, keras_files, model, optimization

        manifest = read_manifest(run.features_dir)
        params = load_section(run.params, "fine_tune", FineTuneParams)
        self._params = params.model_copy(update={"epochs": epochs})
        output = stage.read_json(run.stage1_dir / "summary.json")["output"]
        backbone = model.load_backbone(run.backbone_dir, manifest["size_px"])
        boundary = model.freeze_boundary(backbone, self._params.unfrozen_layers)
        model.unfreeze(backbone, self._params.unfrozen_layers)
        head = keras_files.load_model(run.stage1_dir / "head.keras")
        tail = model.build_tail(backbone, boundary, head, pooling=manifest["pooling"])
        self.precision: str = manifest["precision"]
        self.model = folded.fold(tail, manifest["precision"])
        self.split = StoredSplit(run.features_dir, indices)
        steps = math.ceil(len(self.split) / self._params.batch_size)
        optimization.compile_model(self.model, self._params, output=output, steps_per_epoch=steps)
        self._output = output
        self._read_rate = optimization.learning_rate_reader(self.model)
        self.losses: list[float] = []

    def train_epoch(self) -> None:
        """Train the next epoch and keep its mean loss."""
        from tasks.training import _steps, _train_epoch

        steps = _steps(self.model, self.model, self._output, None)
        units, epoch = self.model.output_shape[-1], len(self.losses)
        rows = _train_epoch(steps, units, self.split, self._params, epoch, self._read_rate, "stage 2")
        images = [row["images"] for row in rows]
        self.losses.append(float(np.average([row["loss"] for row in rows], weights=images)))


class Theirs(NamedTuple):
    """What the plain program trains on, and from where on."""

    run: Run
    photos: Path
    rows: tuple[ImageRow, ...]


def train_plain_epoch(theirs: Theirs) -> float:
    """Train the next epoch of the plain program in this process; return its mean loss."""
    model, dataset = make_plain(theirs)
    return float(model.fit(dataset, epochs=1, verbose=0).history["loss"][0])


@cache
def make_plain(theirs: Theirs) -> tuple[Any, Any]:
    """Return the plain program's model at the start of its second stage, and its training photos."""
    import keras

    from benchmarks import reference

    run, labels = theirs.run, read_manifest(theirs.run.features_dir)["labels"]
    params = reference.read_params(run.params)
    training = params["fine_tune"]
    keras.utils.set_random_seed(training["seed"])
    base = reference.load_base(params, run.backbone_dir)
    model = reference.build_model(base, params, len(labels))
    take_head(model, keras.models.load_model(run.stage1_dir / "head.keras"))
    reference.unfreeze(base, training["unfrozen_layers"])
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    reference.compile_model(model, training)
    options = {"size_px": params["image"]["size_px"], "batch_size": training["batch_size"]}
    return model, reference.make_dataset(list(theirs.rows), labels, theirs.photos, shuffle=True, **options)


def take_head(model: Any, head: Any) -> None:  # noqa: ANN401 - Keras ships no types
    """Give a model's dense layers the weights of a head's."""
    dense = [[layer for layer in network.layers if hasattr(layer, "units")] for network in (model, head)]
    for layer, trained in zip(*dense, strict=True):
        layer.set_weights(trained.get_weights())


def choose_photos(run: Run, images: int | None) -> Chosen:
    """Return the first training photos, or all, leaving out what TensorFlow cannot read.

    Raises:
        PawlineError: The features are not of the photos of the table.
    """
    from benchmarks.reference import READABLE_FORMATS

    by_id = {row.id: row for row in read_images(run.table) if row.split == "train"}
    ids = read_ids(run.features_dir, "train")
    if not by_id.keys() >= set(ids):
        raise PawlineError(f"{run.table} and {run.features_dir} are not of the same run: run `dvc repro`")
    rows = [by_id[image_id] for image_id in ids]
    indices = [index for index, row in enumerate(rows) if row.format in READABLE_FORMATS][:images]
    return Chosen(indices, [rows[index] for index in indices])


def unpack_photos(archive: Path, rows: list[ImageRow], out_dir: Path) -> None:
    """Write an archive's files below a folder.

    Raises:
        PawlineError: There is no such archive, or photos of the run are not in it.
    """
    if not archive.is_file():
        raise PawlineError(f"{archive} is missing: name the archive that the run was made of with --archive")
    unpack(archive, out_dir)
    missing = [row.path for row in rows if not Path(out_dir, row.path).is_file()]
    if missing:
        raise PawlineError(
            f"{missing[0]} is not in {archive}: name the archive that the run was made of with --archive"
        )


def check_run(run: Run) -> None:
    """Check that there is a second stage and that the features are stored for it.

    Raises:
        PawlineError: There is none, or they are not.
    """
    wanted = load_section(run.params, "fine_tune", FineTuneParams).unfrozen_layers
    manifest = read_manifest(run.features_dir)
    if manifest["boundary"] is None:
        raise PawlineError(f"{run.features_dir} has no second stage: set fine_tune.unfrozen_layers, run `dvc repro`")
    if manifest["unfrozen_layers"] != wanted:
        raise PawlineError(f"{run.features_dir} was made with other parameters than {run.params}: run `dvc repro`")


def compare_epochs(run: Run, archive: Path, *, images: int | None, rounds: int) -> Result:
    """Train both sides in turn, an epoch each round, after an epoch of each that is not counted."""
    with tempfile.TemporaryDirectory(prefix="pawline-stage2-") as folder, plain_process() as plain:
        chosen = plain.submit(choose_photos, run, images).result()
        unpack_photos(archive, chosen.rows, Path(folder))
        ours = Ours(run, chosen.indices, epochs=rounds + 1)
        plain_side, losses = Theirs(run, Path(folder), tuple(chosen.rows)), []

        def theirs() -> None:
            losses.append(plain.submit(train_plain_epoch, plain_side).result())

        first = [timed(side) for side in (ours.train_epoch, theirs)]
        count = len(chosen.rows)
        what, against = f"an epoch of stage 2, {count:,} photos", "plain Keras, BatchNormalization frozen"
        result = compare(ours.train_epoch, theirs, what=what, against=against, rounds=rounds, bar=2.0)
    result["notes"] = [
        f"our matrix products are of {ours.precision}, as the run's features; plain Keras's of float32",
        f"the first epoch, which traces and is not compared: {first[0]:.2f} s, plain Keras {first[1]:.2f} s",
        f"training loss, epoch by epoch: {_listed(ours.losses)}; plain Keras {_listed(losses)}",
    ]
    return result


def _listed(losses: list[float]) -> str:
    return ", ".join(f"{loss:.4f}" for loss in losses)


def main(argv: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = stage.parser(__doc__)
    archive = SHARED_DATA / "petimages.zip"
    parser.add_argument("--archive", type=Path, default=archive, help="of the run's photos (default: petimages.zip)")
    stage.add_path(parser, "--params", "params.yaml", "reads: the recipe")
    stage.add_path(parser, "--table", "data/images.parquet", "reads: which photos are trained on")
    stage.add_path(parser, "--features-dir", "data/features", "reads: boundary tensors")
    stage.add_path(parser, "--stage1-dir", "models/stage1", "reads: the head of stage 1")
    stage.add_path(parser, "--backbone-dir", "models/backbone", "reads: ImageNet weights")
    parser.add_argument("--images", type=int, help="train on so many photos (default: the whole training split)")
    add_options(parser)
    args = parser.parse_args(argv)
    if args.images is not None and args.images < 1:
        parser.error("--images must be at least 1")
    run = Run(args.params, args.table, args.features_dir, args.stage1_dir, args.backbone_dir)
    check_run(run)
    result = compare_epochs(run, args.archive, images=args.images, rounds=args.rounds)
    report({"stage2_epoch": result}, args.results)


if __name__ == "__main__":
    stage.run(main)
