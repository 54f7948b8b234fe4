import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import validation
from benchmarks.validation import Photos
from tasks.params import ValidateParams, load_section
from tasks.raw import read_shard, shard_paths
from tasks.sources.synthetic import draw
from tests.conftest import ROOT


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def noise(width: int, height: int) -> Image.Image:
    """Gray noise, the same each time: by chance it could look like other noise."""
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width), np.uint8))


def write_archive(path: Path) -> Path:
    """Write drawn pictures, defects included, and some whose findings are known."""
    gray = noise(90, 70)
    files = [(record.path, record.content) for record in draw(30)]
    files += [("synthetic/cat/same-a.jpg", jpeg(gray)), ("synthetic/cat/same-b.jpg", jpeg(gray))]
    files += [("synthetic/dog/small.jpg", jpeg(noise(20, 20))), ("synthetic/dog/none.jpg", b"no picture")]
    files += [("synthetic/dog/blank.jpg", jpeg(Image.new("RGB", (64, 64), "red")))]
    files += [("synthetic/dog/inks.jpg", jpeg(Image.merge("CMYK", [noise(80, 80)] * 4)))]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive") / "photos.zip")


@pytest.fixture(scope="module")
def params() -> ValidateParams:
    return load_section(ROOT / "params.yaml", "validate", ValidateParams)


@pytest.fixture(scope="module")
def photos(archive: Path, params: ValidateParams, tmp_path_factory: pytest.TempPathFactory) -> Photos:
    return validation.prepare(archive, None, tmp_path_factory.mktemp("photos"), params)


def test_all_sides_get_the_same_bytes(photos: Photos, archive: Path) -> None:
    table = [record.content for shard in shard_paths(photos.raw_dir) for record in read_shard(shard)]
    assert table == [path.read_bytes() for path in photos.files]
    with zipfile.ZipFile(archive) as zipped:
        assert len(zipped.namelist()) == len(table) + photos.unreadable
    assert photos.unreadable >= 1
    assert b"no picture" not in table


def test_all_sides_find_the_same(photos: Photos, params: ValidateParams) -> None:
    ours = validation.count_findings(validation.scan(photos, params), params)
    assert ours == validation.scan_with_pillow(photos, params)
    assert ours.duplicates >= 2
    assert ours.blank >= 1
    assert ours.small >= 1
    cleanvision = validation.scan_with_cleanvision(photos)
    assert cleanvision.duplicates == ours.duplicates
    assert cleanvision.alike == ours.alike
    assert cleanvision.blank >= ours.blank


def test_fewer_photos_come_from_all_of_the_archive(archive: Path) -> None:
    records = list(validation.read_photos(archive, 8))
    assert len(records) == 8
    assert [record.label for record in records].count("cat") == 4


def test_more_photos_than_there_are_is_one_line(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        validation.main(["--archive", str(archive), "--images", "1000"])
    assert capsys.readouterr().err == (
        f"error: {archive} holds 36 photos: give --images from 1 to that, or an archive that "
        "`python -m benchmarks.photos` wrote\n"
    )


def test_each_comparison_says_what_its_sides_found(photos: Photos, params: ValidateParams) -> None:
    jpegs = [Image.open(path).format for path in photos.files].count("JPEG")
    assert photos.jpegs == jpegs < len(photos.files)
    results = validation.measure(photos, params, 1)
    assert {name: result["bar"] for name, result in results.items()} == {
        "validation_cleanvision": 3.0,
        "validation_pillow": 3.0,
        "validation_libjpeg": 0.8,
    }
    for result in results.values():
        assert (result["images"], len(result["ours"]), len(result["theirs"])) == (len(photos.files), 1, 1)
        assert result["notes"][0].startswith("Pawline: ")
    assert results["validation_libjpeg"]["notes"][1].startswith(f"libjpeg-turbo's decoder alone: {jpegs} JPEGs")
    json.dumps(results)
