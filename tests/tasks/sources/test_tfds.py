"""TFDS itself, with its own cats_vs_dogs builder, on a small archive in the layout of the original one."""

import hashlib
import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tasks.params import DataParams, check_params
from tasks.raw import read_shard, shard_paths
from tasks.sources import tfds as tfds_source
from tasks.sources.synthetic import draw
from tasks.stage import PawlineError, TemporaryError
from tests.conftest import ROOT
from tests.tasks.answering import answering

WITHOUT_JFIF = 3


def data_params(data_dir: Path, name: str = "cats_vs_dogs") -> DataParams:
    return DataParams(source="tfds", path=str(data_dir), sha256=None, tfds_name=name, synthetic_images=40)


def small_original() -> bytes:
    """Twelve drawn JPEGs, two without a JFIF header, one of no bytes and a readme, named as in PetImages."""
    jpegs = [record for record in draw(60) if b"JFIF" in record.content[:10]]
    cats = [record.content for record in jpegs if record.label == "cat"][:6]
    dogs = [record.content for record in jpegs if record.label == "dog"][:6]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme[1].txt", "hello")
        for folder, contents in (("Cat", cats), ("Dog", dogs)):
            for number, content in enumerate(contents):
                archive.writestr(f"PetImages/{folder}/{number}.jpg", content)
            archive.writestr(f"PetImages/{folder}/666.jpg", contents[0].replace(b"JFIF", b"XXXX", 1))
        archive.writestr("PetImages/Dog/11702.jpg", b"")
    return buffer.getvalue()


@pytest.fixture
def data_dir(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TFDS folder in which the download of cats_vs_dogs was put by hand, as our error message advises."""
    tfds = tfds_source._import_tfds()
    from tensorflow_datasets.image_classification import cats_vs_dogs

    content = small_original()
    manual = workdir / "tfds" / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "kagglecatsanddogs_5340.zip").write_bytes(content)
    url_info = tfds.download.checksums.UrlInfo(
        size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename="kagglecatsanddogs_5340.zip"
    )
    monkeypatch.setattr(cats_vs_dogs.CatsVsDogs, "url_infos", {cats_vs_dogs._URL: url_info})
    monkeypatch.setattr(cats_vs_dogs, "_NUM_CORRUPT_IMAGES", WITHOUT_JFIF)
    return workdir / "tfds"


def stored_images(data_dir: Path) -> dict[str, bytes]:
    """The image bytes in the TFRecord files, read without TFDS."""
    from tasks.quiet_tf import tf

    files = sorted(str(path) for path in data_dir.glob("cats_vs_dogs/*/*.tfrecord-*"))
    stored: dict[str, Any] = {}
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        stored[feature["image/filename"].bytes_list.value[0].decode()] = feature["image"].bytes_list.value[0]
    return stored


def test_gives_the_bytes_that_tfds_stores(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    from tasks.ingest import ingest
    from tasks.source import source

    caplog.set_level(logging.INFO)
    params = check_params(ROOT / "params.yaml").model_copy(update={"data": data_params(data_dir)})
    source(source_out=Path("data/source.json"), weights_out=Path("data/weights.json"), params=params)
    ingest(source_json=Path("data/source.json"), raw_dir=Path("data/raw"), params=data_params(data_dir))
    records = [record for shard in shard_paths(Path("data/raw")) for record in read_shard(shard)]
    names = [record.path.split("/", maxsplit=2) for record in records]
    assert {(split, len(index)) for split, index, _ in names} == {("train", 7)}
    contents = {name[2]: record.content for name, record in zip(names, records, strict=True)}
    assert contents == stored_images(data_dir)
    assert sorted((record.label, record.split) for record in records) == [("cat", "")] * 6 + [("dog", "")] * 6
    assert all(f"/petimages/{record.label}/" in record.path.lower() for record in records)
    assert "12 files of 2 classes (cat 6, dog 6)" in caplog.text


def test_unknown_name_suggests_the_nearest(workdir: Path) -> None:
    with pytest.raises(PawlineError, match=r"no data set 'cats_v_dogs': did you mean cats_vs_dogs\?$"):
        list(tfds_source.read("cats_v_dogs", str(workdir)))


def test_an_unknown_version_is_one_line(workdir: Path) -> None:
    with pytest.raises(PawlineError, match=r"^data\.tfds_name: TFDS cannot find 'cats_vs_dogs:9\.9\.9': .*$"):
        list(tfds_source.read("cats_vs_dogs:9.9.9", str(workdir)))


def test_refuses_a_data_set_without_labelled_images(workdir: Path) -> None:
    with pytest.raises(PawlineError, match=r"imdb_reviews has no pair of an image and a class label"):
        list(tfds_source.read("imdb_reviews", str(workdir)))


def test_unreachable_download_says_how_to_provide_the_file(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tfds = tfds_source._import_tfds()
    from tensorflow_datasets.image_classification import cats_vs_dogs

    url_info = tfds.download.checksums.UrlInfo(size=1, checksum="0" * 64, filename="pets.zip")
    monkeypatch.setattr(cats_vs_dogs.CatsVsDogs, "url_infos", {"http://127.0.0.1:9/pets.zip": url_info})
    with pytest.raises(
        TemporaryError, match=r"127\.0\.0\.1:9 could not be reached.*downloads/manual as pets\.zip"
    ) as error:
        list(tfds_source.read("cats_vs_dogs", str(workdir / "tfds")))
    assert "\n" not in str(error.value)


def test_a_refused_archive_is_one_line(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorflow_datasets.image_classification import cats_vs_dogs

    monkeypatch.setattr(cats_vs_dogs, "_NUM_CORRUPT_IMAGES", 0)
    with pytest.raises(PawlineError, match=r"could not prepare cats_vs_dogs: .*found 3") as error:
        list(tfds_source.read("cats_vs_dogs", str(data_dir)))
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, TemporaryError)


@pytest.mark.parametrize(("status", "temporary"), [(503, True), (429, True), (404, False)])
def test_a_server_that_is_busy_may_be_asked_later(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, status: int, temporary: bool
) -> None:
    tfds = tfds_source._import_tfds()
    from tensorflow_datasets.image_classification import cats_vs_dogs

    monkeypatch.setattr("tensorflow_datasets.core.download.downloader.MAX_RETRIES", 1)
    with answering(status) as address:
        url_info = tfds.download.checksums.UrlInfo(size=1, checksum="0" * 64, filename="pets.zip")
        monkeypatch.setattr(cats_vs_dogs, "_URL", f"{address}/pets.zip")
        monkeypatch.setattr(cats_vs_dogs.CatsVsDogs, "url_infos", {f"{address}/pets.zip": url_info})
        with pytest.raises(PawlineError, match=r"could not prepare cats_vs_dogs: ") as error:
            list(tfds_source.read("cats_vs_dogs", str(workdir / "tfds")))
    assert isinstance(error.value, TemporaryError) == temporary
    assert "\n" not in str(error.value)
