"""Photos in a bucket, through a real S3 API on loopback: the same table as from the disk, and refusals in one line."""

import contextlib
import importlib.util
import logging
import os
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.ingest import ingest
from tasks.object_store import Store
from tasks.params import DataParams, check_params
from tasks.raw import shard_paths
from tasks.source import source
from tasks.sources import bucket as buckets
from tasks.sources.fingerprint import fingerprint
from tasks.stage import PawlineError, TemporaryError
from tests.conftest import ROOT
from tests.s3 import Bucket, free_port

NAMES = (
    "cat/1.jpg",
    "cat/sub/2.jpg",
    "cat/[a]?*.jpg",
    "cat/10.jpg",
    "dog/ça #1%20.jpg",
    "dog/empty.jpg",
    "dog/notes.txt",
)
SOURCE_JSON, RAW = Path("data/source.json"), Path("data/raw")


def data(source_name: str, path: object, sha256: str | None = None) -> DataParams:
    values = {"source": source_name, "path": str(path), "sha256": sha256, "tfds_name": "mnist"}
    return DataParams.model_validate({**values, "synthetic_images": 40})


def write_photos(folder: Path) -> Path:
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"" if "empty" in name else name.encode() * 50)
    return folder


def ingested(params: DataParams) -> list[bytes]:
    whole = check_params(ROOT / "params.yaml").model_copy(update={"data": params})
    source(source_out=SOURCE_JSON, weights_out=SOURCE_JSON.with_name("weights.json"), params=whole)
    ingest(source_json=SOURCE_JSON, raw_dir=RAW, params=params)
    return [shard.read_bytes() for shard in shard_paths(RAW)]


def pack(folder: Path, path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as packed:
        for name in NAMES:
            packed.write(folder / name, name)
    return path.read_bytes()


def test_a_folder_in_a_bucket_gives_the_same_table_as_one_on_disk(
    bucket: Bucket, workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    local = ingested(data("directory", write_photos(workdir / "photos")))
    bucket.put_folder(workdir / "photos", "all/")
    bucket.put("all/cat/", b"")  # what consoles write for a folder
    bucket.put("all-others/cat/9.jpg", b"not below the folder")
    for url in (f"{bucket.url}/all", f"{bucket.url}/all/"):
        assert ingested(data("directory", url)) == local
    assert "files left out: 1 (1 not named as an image)" in caplog.text


def test_an_archive_in_a_bucket_gives_the_same_table_as_one_on_disk(bucket: Bucket, workdir: Path) -> None:
    packed = pack(write_photos(workdir / "photos"), workdir / "pets.zip")
    bucket.put("sets/pets.zip", packed)
    local = ingested(data("archive", "pets.zip"))
    assert ingested(data("archive", f"{bucket.url}/sets/pets.zip")) == local
    wrong = "0" * 64
    with pytest.raises(PawlineError, match=rf"^{bucket.url}/sets/pets.zip has SHA-256 .*, data.sha256 says {wrong}"):
        ingested(data("archive", f"{bucket.url}/sets/pets.zip", wrong))


def test_a_new_object_is_noticed_without_reading_any(bucket: Bucket, workdir: Path) -> None:
    bucket.put_folder(write_photos(workdir / "photos"))
    params = data("directory", bucket.url)
    before = fingerprint(params)
    bucket.put("cat/1.jpg", (workdir / "photos/cat/1.jpg").read_bytes())
    bucket.put("readme.txt", b"no candidate")
    bucket.deny("s3:GetObject")
    assert fingerprint(params) == before, "the same photos, written again"
    assert (before["files"], before["classes"]) == (6, 2)
    bucket.put("dog/3.jpg", b"new")
    after = fingerprint(params)
    assert (after["files"], after["bytes"]) == (7, before["bytes"] + 3)
    assert after["fingerprint"] != before["fingerprint"]
    bucket.put("dog/3.jpg", b"neW")
    assert fingerprint(params)["fingerprint"] != after["fingerprint"], "as long, with other bytes"


def test_an_object_larger_than_any_photo_is_refused_unread(bucket: Bucket) -> None:
    bucket.put("cat/1.jpg", b"one")
    [item] = buckets.find_items(bucket.url)
    [entry] = buckets.entries(bucket.url, [item._replace(size=2**40)])
    with pytest.raises(PawlineError, match=r"'cat/1\.jpg' has 1,099,511,627,776 bytes, above 268,435,456:"):
        entry.read()


def test_another_archive_under_the_same_name_is_noticed_and_fetched(bucket: Bucket, workdir: Path) -> None:
    for content in (b"first", b"other"):
        bucket.put("a.zip", content)
        assert buckets.fetch(f"{bucket.url}/a.zip", sha256=None).read_bytes() == content
    assert len(list((workdir / ".user-cache").rglob("archive*"))) == 1, "one content of a URL is kept"


def test_a_folder_that_changes_while_it_is_read_is_refused(
    bucket: Bucket, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_folder(write_photos(workdir / "photos"))
    read = buckets._fetch_missing

    def read_and_change(*args: object) -> None:
        read(*args)  # type: ignore[arg-type]
        bucket.put("cat/1.jpg", b"x" * 450)

    monkeypatch.setattr(buckets, "_fetch_missing", read_and_change)
    with pytest.raises(PawlineError, match=r"^the source is not what data/source\.json describes, it changed since"):
        ingested(data("directory", bucket.url))
    assert not RAW.exists()


class Relay(threading.Thread):
    """Passes connections on to the store; cuts each of the first few after some bytes of the answer."""

    def __init__(self, port: int, cuts: int, after_bytes: int) -> None:
        super().__init__(daemon=True)
        self._target, self.cuts, self._after = port, cuts, after_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, contextlib.suppress(OSError):
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            answered = 0
            while piece := server.recv(2**16):
                client.sendall(piece)
                answered += len(piece)
                if self.cuts and answered > self._after:
                    self.cuts -= 1
                    return client.shutdown(socket.SHUT_RDWR)  # the other thread reads from it

    @staticmethod
    def _forward(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(2**16):
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relayed(bucket: Bucket, *, cuts: int, after_bytes: int) -> Iterator[Relay]:
    relay = Relay(int(bucket.endpoint.rpartition(":")[2]), cuts, after_bytes)
    relay.start()
    yield relay
    relay.stop()


def test_cut_connections_are_tried_again(bucket: Bucket, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(3 * 2**20)
    bucket.put("a.tar", content)
    with relayed(bucket, cuts=2, after_bytes=2**20) as relay:
        monkeypatch.setenv("AWS_ENDPOINT_URL", relay.address)
        assert buckets.fetch(f"{bucket.url}/a.tar", sha256=None).read_bytes() == content
    assert relay.cuts == 0


def test_an_interrupted_download_is_carried_on(bucket: Bucket, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, read, starts = os.urandom(5 * 2**10 + 1), buckets._read_piece, []

    def read_three(store: Store, start: int, end: int) -> bytes:
        starts.append(start)
        if len(starts) == 3:
            bucket.deny("s3:GetObject")
        return read(store, start, end)

    monkeypatch.setattr(buckets, "PIECE_BYTES", 2**10)
    monkeypatch.setattr(buckets, "_read_piece", read_three)
    bucket.put("a.tar", content)
    url = f"{bucket.url}/a.tar"
    with pytest.raises(PawlineError, match=rf"^{url} refuses access \(.*\): set AWS_PROFILE, or AWS_ACCESS_KEY_ID and"):
        buckets.fetch(url, sha256=None)
    bucket.allow()
    assert buckets.fetch(url, sha256=None).read_bytes() == content
    assert starts == [0, 1024, 2048, 2048, 3072, 4096, 5120]
    assert buckets.fetch(url, sha256=None).read_bytes() == content
    assert len(starts) == 7, "an earlier download is used again"


def test_a_store_that_is_away_is_tried_again_and_may_be_back_later(
    bucket: Bucket, workdir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bucket.put_folder(write_photos(workdir / "photos"))
    items = buckets.find_items(bucket.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    first = next(iter(buckets.entries(bucket.url, items, (0.0,))))
    with pytest.raises(TemporaryError, match=rf"^{bucket.url} cannot be reached \(Could not connect to .*try again$"):
        first.read()
    assert caplog.text.count("next try in 0 s") == 1


def refusal(source_name: str, url: str) -> str:
    with pytest.raises(PawlineError) as error:
        fingerprint(data(source_name, url))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refusals_are_one_line_that_says_what_to_do(
    bucket: Bucket, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_folder(write_photos(workdir / "photos"), "all/")
    bucket.put("one/cat/1.jpg", b"meow")
    assert refusal("directory", "s3://no-such-bucket/x").startswith("s3://no-such-bucket/x does not exist (")
    assert refusal("directory", f"{bucket.url}/none").startswith(f"data.path {bucket.url}/none holds no objects")
    assert refusal("archive", f"{bucket.url}/none.zip").startswith(f"{bucket.url}/none.zip does not exist")
    assert refusal("directory", f"{bucket.url}/all/cat/1.jpg").endswith("set data.source to archive")
    assert refusal("archive", f"{bucket.url}/all").endswith("is a folder: set data.source to directory")
    assert "one class only, 'cat'" in refusal("directory", f"{bucket.url}/one")
    assert refusal("archive", "s3://Not_a!name/x").startswith("s3://Not_a!name/x cannot be used (Parameter validation")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "(Unable to locate credentials): set AWS_PROFILE, or AWS_ACC" in refusal("directory", bucket.url)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "(The config profile (nobody) could not be found): set AWS_PROFILE" in refusal("directory", bucket.url)


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed here")
def test_a_missing_library_is_named_by_what_installs_it(workdir: Path) -> None:
    assert refusal("directory", "gs://b/x").endswith('is not installed: `pip install "pawline[gcs]"`')


def test_a_profile_leads_to_its_own_place(bucket: Bucket, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put_folder(write_photos(workdir / "photos"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    (workdir / ".aws-config").write_text(f"[profile elsewhere]\nendpoint_url = {bucket.endpoint}\n")
    (workdir / ".aws-credentials").write_text("[elsewhere]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    assert fingerprint(data("directory", bucket.url))["files"] == 6


@pytest.mark.parametrize(
    ("source_name", "url", "message"),
    [
        (
            "directory",
            "s3://key:secret@bucket/x",
            "path has credentials or a query in it: take them out, and set AWS_PROF",
        ),
        ("archive", "az://box/x.zip?sig=secret", "take them out, and set AZURE_STORAGE_ACCOUNT_NAME"),
        ("directory", "s3:///x", "path names no bucket: s3://BUCKET/..."),
        ("directory", "https://host/x", "archive reads http"),
        ("tfds", "s3://bucket/x", "archive and directory read s3://, gs:// and az://"),
    ],
)
def test_urls_that_cannot_be_or_would_give_a_secret_away(source_name: str, url: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        data(source_name, url)
