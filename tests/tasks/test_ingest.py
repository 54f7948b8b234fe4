"""The raw table holds every candidate's bytes, whatever the source."""

import functools
import hashlib
import http.server
import logging
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tasks import ingest as ingest_module
from tasks.ingest import ingest
from tasks.params import DataParams, check_params
from tasks.raw import RawRecord, read_shard, shard_paths, write_shards
from tasks.source import source
from tasks.sources.layout import left_out
from tasks.stage import PawlineError
from tests.conftest import ROOT

SOURCE_JSON, RAW = Path("data/source.json"), Path("data/raw")


def data_params(source_name: str, path: Path | str | None = None) -> DataParams:
    values = {"source": source_name, "path": path and str(path), "sha256": None, "tfds_name": "mnist"}
    return DataParams.model_validate({**values, "synthetic_images": 40})


def ingested(params: DataParams) -> list[RawRecord]:
    whole = check_params(ROOT / "params.yaml").model_copy(update={"data": params})
    source(source_out=SOURCE_JSON, weights_out=SOURCE_JSON.with_name("weights.json"), params=whole)
    ingest(source_json=SOURCE_JSON, raw_dir=RAW, params=params)
    return [record for shard in shard_paths(RAW) for record in read_shard(shard)]


def test_zip_folder_and_tar_of_the_same_photos_give_the_same_table(
    shared_data: Path, workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    from_zip = ingested(data_params("archive", shared_data / "petimages.zip"))
    with zipfile.ZipFile(shared_data / "petimages.zip") as packed:
        names = sorted(name for name in packed.namelist() if not name.endswith("/") and not left_out(name))
        assert [record.path for record in from_zip] == names
        assert all(record.content == packed.read(record.path) for record in from_zip)
        packed.extractall(workdir / "folder")  # noqa: S202 - our own archive
    assert {(record.label, record.path.split("/")[1]) for record in from_zip} == {("cat", "Cat"), ("dog", "Dog")}
    assert "files left out: 5 (3 hidden or system, 2 not named as an image)" in caplog.text
    assert "1,317 files of 2 classes (cat 659, dog 658), 60 MB, in data/raw" in caplog.text
    assert ingested(data_params("directory", workdir / "folder")) == from_zip
    with tarfile.open(workdir / "photos.tgz", "w:gz", compresslevel=0) as tar:
        tar.add(workdir / "folder", arcname=".")
    assert sorted(ingested(data_params("archive", workdir / "photos.tgz"))) == from_zip


def test_predefined_splits(shared_data: Path, workdir: Path) -> None:
    records = ingested(data_params("archive", shared_data / "alien_vs_predator.zip"))
    assert Counter((record.split, record.label) for record in records) == {
        ("train", "alien"): 347,
        ("train", "predator"): 347,
        ("val", "alien"): 100,
        ("val", "predator"): 100,
    }


def test_many_classes(shared_data: Path, workdir: Path) -> None:
    records = ingested(data_params("archive", shared_data / "cat_breeds.zip"))
    assert set(Counter(record.label for record in records).values()) == {80}
    assert {record.label for record in records} >= {"abyssinian", "american_bobtail"}
    assert {record.split for record in records} == {""}


def test_two_runs_write_the_same_bytes(workdir: Path) -> None:
    ingested(data_params("synthetic"))
    first = [shard.read_bytes() for shard in shard_paths(RAW)]
    ingested(data_params("synthetic"))
    assert [shard.read_bytes() for shard in shard_paths(RAW)] == first


def test_a_forgotten_photo_is_never_taken_again(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    params = data_params("synthetic")
    records = ingested(params)
    gone = hashlib.sha256(records[3].content).hexdigest()
    again = ingested(params.model_copy(update={"forget": (gone, "f" * 64)}))
    assert again == [record for record in records if record.content != records[3].content]
    assert len(again) < len(records)
    assert f"{len(records) - len(again)} left out by data.forget, in data/raw" in caplog.text


def photos_folder(workdir: Path) -> Path:
    for name in ("cat/1.jpg", "dog/a'b\"<b>&x ça 猫.jpg", "loose.jpg"):
        (workdir / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / "photos" / name).write_bytes(name.encode())
    return workdir / "photos"


def test_names_survive_and_loose_files_are_counted(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    records = ingested(data_params("directory", photos_folder(workdir)))
    assert [record.path for record in records] == ["cat/1.jpg", "dog/a'b\"<b>&x ça 猫.jpg"]
    assert "files left out: 1 (1 beside the class folders)" in caplog.text


AGAIN = r"run `python -m tasks\.source` again"


@pytest.mark.parametrize(
    ("seen", "said"), [(None, AGAIN), ("{ torn", "data/source.json is damaged"), ('{"source": "synthetic"}', AGAIN)]
)
def test_a_source_that_is_not_as_seen_is_refused_and_earlier_outputs_stay(
    workdir: Path, seen: str | None, said: str
) -> None:
    params = data_params("directory", photos_folder(workdir))
    before = ingested(params)
    SOURCE_JSON.unlink()
    if seen:
        SOURCE_JSON.write_text(seen)
    with pytest.raises(PawlineError, match=said):
        ingest(source_json=SOURCE_JSON, raw_dir=RAW, params=params)
    assert [record for shard in shard_paths(RAW) for record in read_shard(shard)] == before


def test_a_photo_that_changed_in_between_is_noticed(workdir: Path) -> None:
    photos = photos_folder(workdir)
    params = data_params("directory", photos)
    ingested(params)
    (photos / "cat/1.jpg").write_bytes(b"another cat")
    with pytest.raises(PawlineError, match="it changed since"):
        ingest(source_json=SOURCE_JSON, raw_dir=RAW, params=params)


def test_a_photo_that_changes_while_it_is_read_is_noticed(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = data_params("directory", photos_folder(workdir))
    before = ingested(params)

    def change_and_write(records: Iterable[RawRecord], folder: Path) -> None:
        (workdir / "photos/cat/1.jpg").write_bytes(b"another cat")
        write_shards(records, folder)

    monkeypatch.setattr(ingest_module, "write_shards", change_and_write)
    with pytest.raises(PawlineError, match="it changed since"):
        ingest(source_json=SOURCE_JSON, raw_dir=RAW, params=params)
    assert [record for shard in shard_paths(RAW) for record in read_shard(shard)] == before


@pytest.fixture
def served(workdir: Path) -> Iterator[str]:
    """The address of a server of the current folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(workdir))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pack_pets() -> None:
    with zipfile.ZipFile("pets.zip", "w") as packed:
        packed.writestr("cat/1.jpg", b"meow")
        packed.writestr("dog/1.jpg", b"woof")


def test_a_url_is_fetched_and_read(served: str) -> None:
    pack_pets()
    records = ingested(data_params("archive", f"{served}/pets.zip"))
    assert [(record.label, record.content) for record in records] == [("cat", b"meow"), ("dog", b"woof")]


@pytest.mark.parametrize("content", [b"<p>Please log in", b"", b"PK and no more"])
def test_a_download_that_is_no_archive_is_fetched_again(served: str, content: bytes) -> None:
    params = data_params("archive", f"{served}/pets.zip")
    Path("pets.zip").write_bytes(content)
    with pytest.raises(PawlineError, match=r"; the download was removed, and the next run fetches it again$"):
        ingested(params)
    pack_pets()
    assert len(ingested(params)) == 2
