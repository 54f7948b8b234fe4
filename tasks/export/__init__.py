"""Stage `export`: the classifier in the formats that others load, each held against the original.

reads   models/classifier.keras, data/raw/, data/images.parquet, data/tfrecords/, params.yaml: image, export,
        validate.max_pixels
writes  models/export/ (the exports, labels.txt, export.json)

python -m tasks.export    (half a minute, and about 70 ms a validation photo)

Every export is loaded again and answers for the whole validation split and for some nasty images, from the bytes of
their files on. One that is beyond its tolerance is removed; the log and export.json say why.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks import records, seals, stage
from tasks.export.replay import PATHS
from tasks.params import ExportParams, ImageParams, PixelsParams, load_part, load_section
from tasks.progress import Progress
from tasks.stage import PawlineError

if TYPE_CHECKING:  # TensorFlow takes seconds to import
    from tasks.export.check import Comparison
    from tasks.export.formats import Exporter
    from tasks.quiet_tf import Model

log = logging.getLogger(__name__)

NAMES = {  # the exports that each of `export.formats` stands for
    "keras": ("keras",),
    "h5": ("h5",),
    "saved_model": ("saved_model", "saved_model_bytes"),
    "litert": ("litert_float32", "litert_float16", "litert_int8"),
    "openvino": ("openvino",),
    "onnx": ("onnx",),
}
# Of 16 to 100, none gave another accuracy on 247 real photos, nor a smaller mean difference; each takes 0.1 s.
CALIBRATION_IMAGES = 32


class ExportInputs(NamedTuple):
    """The paths that the stage reads."""

    classifier_path: Path
    raw_dir: Path
    images_path: Path
    tfrecords_dir: Path


def export(
    *, inputs: ExportInputs, export_dir: Path, image: ImageParams, params: ExportParams, max_pixels: int
) -> None:
    """Write each format, replay it, and remove what disagrees with the classifier.

    `max_pixels` is the most that `validate` let a photo have: who shows the classifier others is told by export.json.

    Raises:
        PawlineError: The classifier, the photos and the TFRecords are not of one run.
    """
    from tasks import quiet_tf  # noqa: F401 - before `formats` imports parts of TensorFlow, which are not quiet
    from tasks.export.formats import Exporter

    seals.check(inputs.tfrecords_dir)
    classifier = _load_classifier(inputs.classifier_path, image)
    formats = [name for name in NAMES if name in params.formats]
    with stage.whole_dir(export_dir) as unfinished:
        exporter = Exporter(inputs.classifier_path, classifier, image, unfinished)
        _write_all(exporter, formats, inputs.tfrecords_dir)
        names = [name for kind in formats for name in NAMES[kind]]
        compared = _compare(classifier, unfinished, names, inputs, image)
        refused = _remove_refused(compared, exporter, unfinished)
        labels = records.read_labels(inputs.tfrecords_dir)
        (unfinished / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        facts = {
            "labels": labels,
            "image": image.model_dump(),
            "max_pixels": max_pixels,
            "classifier_sha256": stage.sha256_of(inputs.classifier_path),
            "images": compared.images,
            "nasty_images": compared.nasty_images,
            "formats": {name: _figures(name, compared, unfinished) for name in names if name not in refused},
            "refused": refused,
            "sha256": {path.relative_to(unfinished).as_posix(): stage.sha256_of(path) for path in _files(unfinished)},
        }
        facts[stage.FACTS_DIGEST] = stage.facts_digest(facts)
        stage.write_json(facts, unfinished / "export.json")
    _log_outcome(facts, export_dir)


def _load_classifier(path: Path, image: ImageParams) -> "Model":
    from tasks import keras_files

    classifier = keras_files.load_model(path)
    size_px = classifier.input_shape[1]
    if size_px != image.size_px:
        raise PawlineError(f"{path} takes {size_px} px and image.size_px is {image.size_px}: `dvc repro`")
    return classifier


def _write_all(exporter: "Exporter", formats: Sequence[str], tfrecords_dir: Path) -> None:
    with Progress("export", total=len(formats), unit="formats") as progress:
        for name in formats:
            _write(exporter, name, tfrecords_dir)
            progress.advance()


def _write(exporter: "Exporter", name: str, tfrecords_dir: Path) -> None:
    match name:
        case "keras":
            exporter.write_keras()
        case "h5":
            exporter.write_h5()
        case "saved_model":
            exporter.write_saved_model(from_bytes=True)
        case "litert":
            from tasks.export.photos import read_calibration

            exporter.write_litert("float32")
            exporter.write_litert("float16")
            exporter.write_litert("int8", read_calibration(tfrecords_dir, CALIBRATION_IMAGES))
        case "openvino":
            exporter.write_openvino()
        case "onnx":
            exporter.write_onnx()


def _compare(
    classifier: "Model", folder: Path, names: list[str], inputs: ExportInputs, image: ImageParams
) -> "Comparison":
    from tasks.export import check
    from tasks.export.photos import read_validation

    total = records.split_sizes(inputs.tfrecords_dir)["val"]
    batches = read_validation(inputs.raw_dir, inputs.images_path, inputs.tfrecords_dir, image)
    return check.compare(classifier, folder, names, batches, image=image, total=total)


def _remove_refused(compared: "Comparison", exporter: "Exporter", folder: Path) -> dict[str, str]:
    """Remove the exports that are not good enough; return the reason for each."""
    from tasks.export.check import reason_to_refuse

    reasons = {name: reason_to_refuse(name, agreement) for name, agreement in compared.agreements.items()}
    refused = {name: reason for name, reason in reasons.items() if reason}
    if "saved_model" in refused:
        refused["saved_model_bytes"] = "it is part of saved_model, which is refused"
    for name, why in refused.items():
        log.warning("export: %s is not written: %s", name, why)
        path = folder / Path(PATHS[name]).parts[0]
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if "saved_model_bytes" in refused and "saved_model" not in refused:
        exporter.write_saved_model(from_bytes=False)
    return refused


def _figures(name: str, compared: "Comparison", folder: Path) -> dict[str, Any]:
    from tasks.export.check import tolerance

    path = PATHS[name]
    return {"path": path, "bytes": _size(folder / path), **tolerance(name), **compared.agreements[name].figures()}


def _size(path: Path) -> int:
    """Return the bytes of an export's files."""
    if path.suffix == ".xml":  # the weights lie beside it
        return path.stat().st_size + path.with_suffix(".bin").stat().st_size
    return sum(file.stat().st_size for file in ([path] if path.is_file() else _files(path)))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _log_outcome(facts: Mapping[str, Any], export_dir: Path) -> None:
    sizes = ", ".join(f"{name} {fact['bytes'] / 1e6:.1f} MB" for name, fact in facts["formats"].items())
    log.info(
        *("export: %s; each replayed on %d validation photos and %d nasty images; in %s", sizes or "nothing"),
        *(facts["images"], facts["nasty_images"], export_dir),
    )


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--classifier-path", "models/classifier.keras", "reads: the classifier")
    stage.add_path(parser, "--raw-dir", "data/raw", "reads: photos to replay")
    stage.add_path(parser, "--images-path", "data/images.parquet", "reads: which photos")
    stage.add_path(parser, "--tfrecords-dir", "data/tfrecords", "reads: pixels, labels, photos to calibrate int8")
    stage.add_path(parser, "--export-dir", "models/export", "writes: the exports")
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    args = vars(parser.parse_args(argv))
    path, export_dir = args.pop("params"), args.pop("export_dir")
    image, params = load_section(path, "image", ImageParams), load_section(path, "export", ExportParams)
    max_pixels = load_part(path, "validate", PixelsParams).max_pixels
    export(inputs=ExportInputs(**args), export_dir=export_dir, image=image, params=params, max_pixels=max_pixels)
