import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.answers import answer
from inference.classifier import load
from inference.explain import Explainer
from inference.inputs import Photo
from tasks.stage import PawlineError


def test_every_answered_photo_gets_an_overlay(
    exports: Path, predicted: list[tuple[bytes, list[float]]], tmp_path: Path
) -> None:
    classifier = load(exports)
    photos = [Photo("a/x.png", content=predicted[0][0]), Photo("b/x.png", content=predicted[1][0])]
    photos.append(Photo("text.txt", content=b"text"))
    answers = list(answer(photos, classifier, keep=True))
    with closing(Explainer(exports, classifier.labels, tmp_path)) as explainer:
        for one in answers:
            explainer.write(one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-2.jpg", "x.jpg"]
    overlay = np.asarray(Image.open(tmp_path / "x.jpg"))
    assert answers[0].image is not None
    assert overlay.shape == answers[0].image.shape
    assert np.abs(overlay.astype(int) - answers[0].image).mean() > 5, "there is heat over the photo"


def test_without_keras_there_is_no_explanation(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(PawlineError, match=r"--explain needs .*classifier.keras, which is missing: add keras"):
        Explainer(colours, ["red"], tmp_path)


def test_a_damaged_classifier_gets_one_line(exports: Path, tmp_path: Path) -> None:
    for name in ("export.json", "classifier.keras"):
        shutil.copyfile(exports / name, tmp_path / name)
    damaged = tmp_path / "classifier.keras"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    with pytest.raises(PawlineError, match=r"is not what was exported \(its SHA-256 is another\): `dvc checkout"):
        Explainer(tmp_path, ["cat", "dog"], tmp_path)
