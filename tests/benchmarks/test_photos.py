import io
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import photos
from tasks.images import judge
from tasks.sources import archive
from tasks.stage import PawlineError
from tests.conftest import ROOT


def jpeg(seed: int, *, exif: bool = False) -> bytes:
    """Noise as a JPEG; with EXIF, turned by a quarter."""
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)
    out, tags = io.BytesIO(), Image.Exif()
    if exif:
        tags[0x0112] = 6
    Image.fromarray(pixels).save(out, "JPEG", exif=tags)
    return out.getvalue()


def pixels_of(photo: bytes) -> bytes:
    return Image.open(io.BytesIO(photo)).tobytes()


PNG = io.BytesIO()
Image.new("RGB", (40, 40), "red").save(PNG, "PNG")
FILES = {
    "Pets/Cat/1.jpg": jpeg(1),
    "Pets/Cat/2.jpg": jpeg(2, exif=True),
    "Pets/Cat/sub/ça va.jpg": jpeg(3),
    "Pets/Dog/1.jpg": jpeg(4),
    "Pets/Dog/cut.jpg": jpeg(5)[:300],
    "Pets/Dog/stub.jpg": jpeg(5)[:9],
    "Pets/Dog/png.jpg": PNG.getvalue(),
    "Pets/Dog/page.jpg": b"<!DOCTYPE html>",
    "Pets/Dog/Thumbs.db": jpeg(6),
}
JPEGS = 6


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, content in FILES.items():
            zipped.writestr(path, content)
    return tmp_path / "pets.zip"


def read(path: Path) -> dict[str, bytes]:
    return {entry.path: entry.read() for entry in archive.entries(path)}


def test_copies_have_other_bytes_and_the_same_pixels(packed: Path, tmp_path: Path) -> None:
    repeated = read(photos.repeat_archive(packed, 20, tmp_path / "out.zip"))
    assert len(set(repeated.values())) == len(repeated) == 20
    originals: Counter[str] = Counter()
    judge_like_the_stage = partial(judge, min_side_px=32, max_pixels=10**6, blank_max_stddev=2.0)
    for path, content in repeated.items():
        folder, _, name = path.rpartition("/")
        number, _, name = name.partition("-")
        original = FILES[f"{folder}/{name}"]
        originals[f"{folder}/{name}"] += 1
        assert (content == original) == (number == "00000")
        if name not in ("cut.jpg", "stub.jpg"):
            assert pixels_of(content) == pixels_of(original)
        verdict = replace(judge_like_the_stage(content), bytes=len(original))
        assert verdict == judge_like_the_stage(original), "damage, header, orientation stay"
    assert len(originals) == JPEGS
    assert set(originals.values()) == {3, 4}


def test_a_part_of_an_archive_has_all_classes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as zipped:
        for number in range(40):
            zipped.writestr(f"{'Cat' if number < 20 else 'Dog'}/{number}.jpg", jpeg(number))
    repeated = read(photos.repeat_archive(tmp_path / "pets.zip", 20, tmp_path / "out.zip"))
    labels = Counter(path.partition("/")[0] for path in repeated)
    assert labels.total() == 20
    assert min(labels["Cat"], labels["Dog"]) >= 5


def test_bytes_depend_on_archive_and_count_alone(packed: Path, tmp_path: Path) -> None:
    first = photos.repeat_archive(packed, 10, tmp_path / "first.zip").read_bytes()
    assert photos.repeat_archive(packed, 10, tmp_path / "second.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "first.zip") as zipped:
        assert {member.compress_type for member in zipped.infolist()} == {zipfile.ZIP_STORED}


def test_what_is_there_is_not_made_again(packed: Path, tmp_path: Path) -> None:
    out = photos.repeat_archive(packed, 10, tmp_path / "out.zip")
    made = out.stat().st_ino
    assert photos.repeat_archive(packed, 10, out).stat().st_ino == made
    assert len(read(photos.repeat_archive(packed, 11, out))) == 11


def test_nothing_to_repeat_is_said_in_one_line(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as zipped:
        zipped.writestr("Cat/1.png", PNG.getvalue())
    with pytest.raises(PawlineError, match=r"none\.zip holds no JPEG to repeat: give"):
        photos.repeat_archive(tmp_path / "none.zip", 10, tmp_path / "out.zip")
    with pytest.raises(PawlineError, match="cannot write 0 photos: ask for 1 or more"):
        photos.repeat_archive(packed, 0, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_command_says_what_it_wrote(packed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.photos", str(packed), "7", str(tmp_path / "out.zip")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"7 photos, 0 MB, in {tmp_path / 'out.zip'}\n"
    assert len(read(tmp_path / "out.zip")) == 7


def test_photos_that_come_later_have_other_bytes_and_come_after_the_others(packed: Path, tmp_path: Path) -> None:
    out = photos.repeat_archive(packed, 20, tmp_path / "out.zip")
    before = read(out)
    photos.append_photos(packed, 2, out)
    after = read(out)
    new = after.keys() - before.keys()
    assert len(new) == 2
    assert {path: after[path] for path in before} == before
    assert not {after[path] for path in new} & set(before.values())
    for path in new:
        folder = path.rpartition("/")[0]
        assert path == max(other for other in after if other.startswith(folder))
