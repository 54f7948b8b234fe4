"""The drawn pictures: always the same, varied, and with every defect among them."""

import hashlib
import io
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from tasks.raw import RawRecord
from tasks.sources.synthetic import draw

SHOWS_DIGEST = """
import hashlib; from tasks.sources.synthetic import draw
print(hashlib.sha256(b''.join(record.content for record in draw(60))).hexdigest())
"""


@pytest.fixture(scope="module")
def records() -> list[RawRecord]:
    return list(draw(120))


def kind(content: bytes) -> str:
    """What a decoder makes of a file."""
    if not content:
        return "empty"
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if getattr(image, "is_animated", False):
                return "animated"
            if image.size == (1, 1):
                return "tiny"
            return "blank" if np.asarray(image).std(axis=(0, 1)).max() < 2 else "fine"
    except UnidentifiedImageError:
        return "not an image"
    except Image.DecompressionBombError:
        return "bomb"
    except OSError:
        return "truncated"


def test_the_same_bytes_in_every_process(records: list[RawRecord]) -> None:
    here = hashlib.sha256(b"".join(record.content for record in draw(60))).hexdigest()
    there = subprocess.run([sys.executable, "-c", SHOWS_DIGEST], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


@pytest.mark.parametrize("count", [40, 41, 57])
def test_as_many_files_as_asked_for_sorted_and_called_synthetic(count: int) -> None:
    records = list(draw(count))
    paths = [record.path for record in records]
    assert len(set(paths)) == count
    assert paths == sorted(paths)
    assert all(path.startswith(f"synthetic/{record.label}/") for path, record in zip(paths, records, strict=True))
    assert abs(sum(1 if record.label == "cat" else -1 for record in records)) <= 1


def test_every_defect_is_there(records: list[RawRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90_000_000)  # about Pillow's own limit, which tasks.images lifts
    kinds = Counter(kind(record.content) for record in records)
    assert set(kinds) == {"fine", "empty", "truncated", "not an image", "tiny", "blank", "animated", "bomb"}
    assert 0.85 < kinds["fine"] / len(records) < 0.97
    twice = [
        content for content, number in Counter(record.content for record in records).items() if number > 1 and content
    ]
    labels = sorted(sorted(record.label for record in records if record.content == content) for content in twice)
    assert ["cat", "dog"] in labels
    assert ["cat", "cat"] in labels or ["dog", "dog"] in labels


def test_harmless_oddities_are_there_even_among_few() -> None:
    fine = [record.content for record in draw(40) if kind(record.content) == "fine"]
    images = [Image.open(io.BytesIO(content)) for content in fine]
    assert {"RGB", "CMYK", "L", "RGBA"} <= {image.mode for image in images}
    assert any(image.getexif().get(0x0112) == 6 for image in images)
    assert any(content[:2] == b"\xff\xd8" and b"JFIF" not in content[:20] for content in fine)
    assert any(image.format == "PNG" for image in images)
    sides = {side for image in images for side in image.size}
    assert min(sides) >= 80
    assert max(sides) <= 256


@pytest.mark.parametrize("count", [40, 56, 62])
def test_few_enough_are_spoilt_for_the_committed_rules(count: int) -> None:
    records = list(draw(count))
    labels: dict[bytes, list[str]] = {}
    for record in records:
        labels.setdefault(record.content, []).append(record.label)
    whole = [named for content, named in labels.items() if kind(content) == "fine" and len(set(named)) == 1]
    assert count - len(whole) <= 0.2 * count


def test_different_pictures_look_different(records: list[RawRecord]) -> None:
    """Coarse thumbnails of different pictures are far apart; the near-duplicate pair is close."""
    fine = {record.content: None for record in records if kind(record.content) == "fine"}
    images = (Image.open(io.BytesIO(content)).convert("L").resize((8, 8)) for content in fine)
    thumbnails = np.stack([np.asarray(image, np.float32).ravel() for image in images])
    bits = thumbnails > np.median(thumbnails, axis=1, keepdims=True)
    distances = (bits[:, None] != bits[None]).sum(axis=-1)[np.triu_indices(len(bits), k=1)]
    assert 1 <= (distances <= 3).sum() <= 2
