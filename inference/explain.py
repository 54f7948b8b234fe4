"""Where the classifier looked: an overlay a photo, by Grad-CAM on the Keras classifier."""

from pathlib import Path

import numpy as np

from inference.answers import Answer
from inference.classifier import FORMATS, exported_file, read_facts
from inference.copies import Copies, name_of
from tasks.stage import PawlineError

BATCH = 16
JPEG_QUALITY = 90


class Explainer:
    """Writes overlays of answered photos, for the class that was predicted; the last ones when it is closed.

    Whatever engine answers, this one is Keras, and takes the seconds of TensorFlow's import.
    """

    def __init__(self, export_dir: Path, labels: list[str], folder: Path) -> None:
        """Load `classifier.keras` of an export folder.

        Raises:
            PawlineError: It is not there, or is not what was exported.
        """
        facts = read_facts(export_dir)
        if FORMATS["keras"] not in facts["formats"]:
            raise PawlineError(
                f"--explain needs {export_dir}/classifier.keras, which is missing: add keras to `export.formats`, "
                "`dvc repro`"
            )
        path = exported_file(export_dir, FORMATS["keras"], facts)
        from tasks import keras_files

        self._network = keras_files.load_model(path)
        self._labels, self._folder, self._copies = labels, folder, Copies()
        self._waiting: list[Answer] = []

    def write(self, answer: Answer) -> None:
        """Take an answer; its overlay is written soon. An unreadable photo has none."""
        if answer.image is not None:
            self._waiting.append(answer)
        if len(self._waiting) == BATCH:
            self.close()

    def close(self) -> None:
        """Write the overlays of the answers that are waiting."""
        if not self._waiting:
            return
        from tasks import gradcam

        images = np.stack([answer.image for answer in self._waiting if answer.image is not None])
        classes = np.array([self._labels.index(str(answer.predicted)) for answer in self._waiting], np.int64)
        jpegs = gradcam.explain(self._network, images, classes, quality=JPEG_QUALITY)
        for answer, jpeg in zip(self._waiting, jpegs, strict=True):
            name = Path(name_of(answer)).with_suffix(".jpg").name
            self._copies.write(self._folder / name, jpeg)
        self._waiting.clear()
