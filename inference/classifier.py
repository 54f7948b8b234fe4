"""An exported classifier: photos in, probabilities out, by whichever engine is there.

No TensorFlow unless the engine is keras.
"""

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from inference import engines
from inference.engines import Answers, Engine, Images, Precision, Runner
from tasks import images as pixels
from tasks.metrics import probs_of_classes
from tasks.params import ImageParams
from tasks.params_file import checked
from tasks.stage import FACTS_DIGEST, SCRATCH, PawlineError, facts_digest

FORMATS = {"openvino": "openvino", "litert": "litert_float32", "keras": "keras"}  # engine to its name in export.json
log = logging.getLogger(__name__)
MAX_PIXELS = 64_000_000  # for exports that do not say what `validate.max_pixels` was; refused from the header


@dataclass(frozen=True)
class Classifier:
    """A loaded classifier.

    Attributes:
        labels: The classes, in the order of the probabilities.
        image: How a photo becomes the square that the network sees, as in training.
        engine: openvino, litert or keras.
        precision: float32 or bfloat16, of the arithmetic.
        sha256: Of the `classifier.keras` that this was exported from: what `pawline lineage` finds again.
        max_pixels: A photo of more is refused, as `validate` refused it.
    """

    labels: list[str]
    image: ImageParams
    engine: str
    precision: str
    sha256: str
    max_pixels: int
    run: Runner = field(repr=False, compare=False)

    def prepare(self, content: bytes) -> Images:
        """Decode a photo's bytes, upright, to uint8 [size, size, 3], as training did. Of an animation, the first frame.

        Raises:
            UndecodableError: With what the decoder said, or if the header says that there are more pixels.
        """
        upright = pixels.decode_upright(content, max_pixels=self.max_pixels)
        return pixels.resize_square(upright, self.image.size_px, self.image.resize)

    def probabilities(self, images: Images) -> Answers:
        """Return one probability a class, float32 [images, classes], of uint8 [images, size, size, 3]. Thread-safe."""
        return probs_of_classes(self.run(images))


def load(
    export_dir: Path, *, engine: Engine = "auto", precision: Precision = "auto", threads: int | None = None
) -> Classifier:
    """Load a classifier from an export folder.

    Args:
        export_dir: What the stage `export` wrote.
        engine: auto takes the first of openvino, litert, keras that was exported and is there; a warning is logged
            where one was exported and is not there.
        precision: bfloat16 is for openvino alone; auto is float32.
        threads: Processors for one call; None is all of them. Give fewer where several threads call at a time. Keras
            goes by TensorFlow's own setting, and takes one call at a time.

    Raises:
        PawlineError: The folder is missing, or not what `export` wrote, or has not got this engine.
    """
    facts = read_facts(export_dir)
    chosen = _choose(engine, facts, export_dir)
    if precision == "bfloat16" and chosen != "openvino":
        raise PawlineError(f"--precision bfloat16: {chosen} computes in float32 only; choose --engine openvino")
    if precision == "auto":
        precision = "float32"
    path = exported_file(export_dir, FORMATS[chosen], facts)
    try:
        run = _runner(chosen, path, precision, threads)
        image = checked(ImageParams, facts["image"], export_dir / "export.json", prefix="image.")
        most = int(facts.get("max_pixels", MAX_PIXELS))
        sha256 = str(facts["classifier_sha256"])
        loaded = Classifier(list(facts["labels"]), image, chosen, precision, sha256, most, run)
        _check_answer(loaded, path)
    except PawlineError:
        raise
    except Exception as error:  # each library has its own for a file that is not what it was, and pages of words
        raise _broken(path, f"{chosen} cannot load it: {type(error).__name__}") from error
    return loaded


def _runner(engine: str, path: Path, precision: Precision, threads: int | None) -> Runner:
    if engine == "openvino":
        return engines.openvino_runner(path, precision, threads)
    if engine == "litert":
        return engines.litert_runner(path, threads)
    return engines.keras_runner(path)


def read_facts(export_dir: Path) -> dict[str, Any]:
    """Return export.json, with what is needed here in it.

    Raises:
        PawlineError: It is missing, or not what the stage `export` writes.
    """
    path = export_dir / "export.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        needed = {"labels": list, "image": dict, "formats": dict, "classifier_sha256": str}
        wrong = [key for key, kind in needed.items() if not isinstance(facts[key], kind)]
        digest = facts_digest(facts)
        wrong += [] if facts.get(FACTS_DIGEST, digest) == digest else [FACTS_DIGEST]
    except FileNotFoundError:
        raise PawlineError(
            f"{export_dir} has no export.json: `dvc repro` exports the project's classifier, --model names another"
        ) from None
    except (KeyError, TypeError, ValueError):
        wrong = ["file"]
    if wrong:
        raise PawlineError(f"{path} is not what the stage export writes now: `dvc repro export` writes it anew")
    return dict(facts)


def _choose(engine: Engine, facts: dict[str, Any], export_dir: Path) -> str:
    """Return the engine, once it is known that its format was exported."""
    if engine not in get_args(Engine):
        raise PawlineError(f"--engine {engine}: there are {', '.join(get_args(Engine))}")
    wanted = list(FORMATS) if engine == "auto" else [engine]
    exported = [name for name in wanted if FORMATS[name] in facts["formats"]]
    if exported:
        return _first_there(exported, facts, export_dir)
    refused = facts.get("refused", {}).get(FORMATS[wanted[0]])
    why = f" ({refused})" if refused else ""
    there = [name for name, exported in FORMATS.items() if exported in facts["formats"]]
    raise PawlineError(
        f"{export_dir} has no export for {', '.join(wanted)}{why}: it has {', '.join(there) or 'none'}; "
        "`export.formats` in params.yaml says what is exported"
    )


def _first_there(exported: list[str], facts: dict[str, Any], export_dir: Path) -> str:
    """Return the first engine whose files are there; without any, the first: loading it says what is missing."""
    first = exported[0]
    missing = _missing(_files(export_dir, FORMATS[first], facts))
    if missing is None:
        return first
    for name in exported[1:]:
        if _missing(_files(export_dir, FORMATS[name], facts)) is None:
            log.warning("%s is missing: %s answers instead of %s", missing, name, first)
            return name
    return first


def exported_file(export_dir: Path, name: str, facts: dict[str, Any]) -> Path:
    """Return the path of an exported file, once it has the size, and the SHA-256 where that is known, of the export.

    Args:
        export_dir: Where it is.
        name: Of the format, as in export.json.
        facts: What export.json says.

    Raises:
        PawlineError: It is missing, or is not what was exported.
    """
    files = _files(export_dir, name, facts)
    missing = _missing(files)
    if missing is not None:
        raise PawlineError(f"{missing} is missing: {_restore(missing)}")
    known = {"classifier.keras": facts["classifier_sha256"], **facts.get("sha256", {})}
    for file in files:  # before the size, which is that of all of them: the digest tells which is damaged
        wanted = known.get(file.relative_to(export_dir).as_posix())
        if wanted is not None and _sha256(file) != wanted:
            raise _broken(file, "its SHA-256 is another")
    size, written = sum(file.stat().st_size for file in files), facts["formats"][name]["bytes"]
    if size != written:
        beside = f" with {files[1].name}" if len(files) > 1 else ""
        raise _broken(files[0], f"{size:,} bytes{beside}, {written:,} were written")
    return files[0]


def _files(export_dir: Path, name: str, facts: dict[str, Any]) -> list[Path]:
    path = export_dir / str(facts["formats"][name]["path"])
    if not path.resolve().is_relative_to(export_dir.resolve()):
        raise PawlineError(f"{export_dir / 'export.json'} names {path} as {name}, which is no file of its folder")
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def _missing(files: list[Path]) -> Path | None:
    return next((file for file in files if not file.is_file()), None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_answer(loaded: Classifier, path: Path) -> None:
    """Let it answer once, on black: its classes must be as many as the labels, and its answers probabilities."""
    size = loaded.image.size_px
    probs = loaded.probabilities(np.zeros((1, size, size, 3), np.uint8))
    if probs.shape != (1, len(loaded.labels)):
        raise PawlineError(
            f"{path} answers for {probs.shape[1]} classes, its labels are {', '.join(loaded.labels)}: {_restore(path)}"
        )
    if not np.isfinite(probs).all() or abs(float(probs.sum()) - 1) > 0.01:
        raise _broken(path, f"its answers are no probabilities: {probs[0].tolist()}")


def _broken(path: Path, why: str) -> PawlineError:
    return PawlineError(f"{path} is not what was exported ({why}): {_restore(path)}")


def _restore(path: Path) -> str:
    """Say how to get an export back: a copy of a version's is made again, the project's own is DVC's."""
    parts = path.parts
    if str(SCRATCH) in parts:
        return f"remove {Path(*parts[: parts.index(str(SCRATCH)) + 3])} and run this again"
    return "`dvc checkout --force models/export` brings the project's own back, `dvc repro --force export` renews it"
