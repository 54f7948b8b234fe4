import io
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import tfrecords
from benchmarks.seed_table import Workplace
from tasks.stage import read_json
from tests.benchmarks.test_validation import jpeg


def write_photos(path: Path, folders: tuple[str, str] = ("pets/Cat", "pets/Dog")) -> Path:
    """Write 120 photos, a fifth of them without a JFIF header and one a duplicate, and a file that is none."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(120):
            content = jpeg(Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((90, 70)))
            if number % 5 == 0:
                content = content[:2] + content[4 + int.from_bytes(content[4:6], "big") :]  # without its APP0
            archive.writestr(f"{folders[number % 2]}/photo {number}.jpg", content)
        archive.writestr(f"{folders[1]}/photo 119 again.jpg", content)
        archive.writestr(f"{folders[0]}/page.jpg", b"<html>")
    return path


def test_the_zip_has_the_photos_in_the_layout_that_tfds_expects(tmp_path: Path) -> None:
    zipped = tfrecords.write_archive(write_photos(tmp_path / "in.zip"), None, tmp_path / "out.zip")
    assert zipped[1:] == (121, 24, 1)
    with zipfile.ZipFile(tmp_path / "in.zip") as given, zipfile.ZipFile(zipped.path) as written:
        contents = Counter(given.read(name) for name in given.namelist() if "page" not in name)
        assert Counter(written.read(name) for name in written.namelist()) == contents
        assert all(re.fullmatch(r"PetImages/(Cat|Dog)/\d+\.jpg", name) for name in written.namelist())
        assert all(Image.open(io.BytesIO(content)).size == (90, 70) for content in contents)


def test_other_classes_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = write_photos(tmp_path / "in.zip", ("pets/Alien", "pets/Dog"))
    with pytest.raises(SystemExit, match="1"):
        tfrecords.main(["--archive", str(archive)])
    assert capsys.readouterr().err == (f"error: {archive} has a class 'alien': TFDS's builder takes cat and dog only\n")


def test_both_sides_make_tfrecords_of_the_same_photos(tmp_path: Path) -> None:
    zipped = tfrecords.write_archive(write_photos(tmp_path / "in.zip"), None, tmp_path / "out.zip")
    workplace = Workplace(tmp_path)
    result = tfrecords.measure(zipped, workplace, 1)
    counts = read_json(workplace.clone / "reports" / "metrics" / "validation.json")
    assert (counts["images"], counts["by_reason"]) == (121, {"exact_duplicate": 1})
    assert tfrecords.read_written(workplace.clone / "data" / "tfrecords").images == 120
    assert tfrecords.read_written(tfrecords.tfds_dir(workplace)).images == 121 - 24
    assert (result["images"], len(result["ours"]), len(result["theirs"]), result["bar"]) == (121, 1, 1, 3.0)
    assert re.match(r"our stages: source \d.* s, ingest \d.* s, validate \d.* s, preprocess \d.* s", result["notes"][0])
    assert result["notes"][1].endswith("PNG; dropped: exact_duplicate 1")
    assert result["notes"][2].endswith("JPEG; dropped: no JFIF header 24")
