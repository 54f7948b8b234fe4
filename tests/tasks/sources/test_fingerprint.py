"""What identifies a source: everything that matters changes it, nothing else does."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.params import DataParams
from tasks.sources import directory
from tasks.sources import fingerprint as module
from tasks.sources.fingerprint import fingerprint, public_url
from tasks.stage import PawlineError

HOUR_AGO = time.time() - 3600


def of(source: str, path: Path | str | None = None, sha256: str | None = None) -> dict[str, Any]:
    values = {"source": source, "path": path and str(path), "sha256": sha256}
    return fingerprint(DataParams.model_validate({**values, "tfds_name": "mnist", "synthetic_images": 50}))


@pytest.fixture
def photos(workdir: Path) -> Path:
    folder = workdir / "photos"
    for name in ("cat/1.jpg", "cat/deep/é 2.jpg", "dog/1.jpg", "dog/.DS_Store", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let new files count as old enough to be remembered."""
    monkeypatch.setattr("tasks.sources.digests.SETTLED_NS", -(10**12))


def test_directory_changes_with_bytes_names_and_places_only(photos: Path) -> None:
    first = of("directory", photos)
    assert first["files"] == 3
    assert first["bytes"] == sum(len(name.encode()) for name in ("cat/1.jpg", "cat/deep/é 2.jpg", "dog/1.jpg"))
    os.utime(photos / "cat/1.jpg", (HOUR_AGO, HOUR_AGO))
    (photos / "dog/Thumbs.db").write_bytes(b"junk")
    (photos / "loose.jpg").write_bytes(b"no class")
    assert of("directory", photos) == first
    moved = photos.rename(photos.with_name("elsewhere"))
    assert of("directory", moved) == first
    (moved / "cat/1.jpg").rename(moved / "cat/2.jpg")
    renamed = of("directory", moved)
    (moved / "cat/2.jpg").write_bytes(b"Cat/1.jpg")
    assert len({facts["fingerprint"] for facts in (first, renamed, of("directory", moved))}) == 3


@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_not_read_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = of("directory", photos)
    read: list[str] = []

    def noted(file: str) -> bytes:
        read.append(file)
        return Path(file).read_bytes()

    monkeypatch.setattr(directory, "read", noted)
    assert of("directory", photos) == first
    assert read == []
    os.utime(photos / "cat/1.jpg", (HOUR_AGO, HOUR_AGO))
    assert of("directory", photos) == first
    assert read == [str(photos / "cat/1.jpg")]


@pytest.mark.usefixtures("settled")
def test_a_changed_byte_is_seen_though_size_and_time_are_the_same(photos: Path) -> None:
    first = of("directory", photos)
    status = (photos / "cat/1.jpg").stat()
    (photos / "cat/1.jpg").write_bytes(b"CAT/1.jpg")
    os.utime(photos / "cat/1.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert of("directory", photos) != first


@pytest.mark.usefixtures("settled")
def test_losing_or_breaking_what_was_remembered_costs_only_time(photos: Path, workdir: Path) -> None:
    first = of("directory", photos)
    (remembered,) = (workdir / ".user-cache").rglob("*.json")
    remembered.write_text("{ torn")
    assert of("directory", photos) == first
    shutil.rmtree(workdir / ".user-cache")
    (workdir / ".user-cache").write_text("not a folder")
    assert of("directory", photos) == first


def test_links_are_not_followed(photos: Path, workdir: Path) -> None:
    first = of("directory", photos)
    (workdir / "secret.jpg").write_bytes(b"outside")
    (photos / "cat/link.jpg").symlink_to(workdir / "secret.jpg")
    (photos / "bird").symlink_to(workdir)
    assert of("directory", photos) == first
    (workdir / "links").mkdir()
    (workdir / "links/a.jpg").symlink_to(workdir / "secret.jpg")
    with pytest.raises(PawlineError, match="symbolic links only"):
        of("directory", workdir / "links")


def test_names_that_are_not_utf8_are_spelt_out(photos: Path) -> None:
    Path(os.fsdecode(os.fsencode(photos) + b"/cat/\xe9.jpg")).write_bytes(b"x")
    assert "cat/\\xe9.jpg" in [file.path for file in directory.list_files(photos)]
    assert of("directory", photos)["files"] == 4


@pytest.mark.parametrize(
    ("source", "path", "message"),
    [
        ("directory", "missing", "data.path missing does not exist"),
        ("archive", "missing.zip", r"data.path missing\.zip does not exist"),
        ("directory", "photos/notes.txt", "is not a folder: for a zip or tar set data.source to archive"),
        ("archive", "photos", "is a folder: set data.source to directory"),
        ("archive", "photos/notes.txt/a.zip", "cannot be read"),
        ("directory", "photos/cat", "one class only, 'deep'"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(photos: Path, source: str, path: str, message: str) -> None:
    with pytest.raises(PawlineError, match=message) as error:
        of(source, path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", ["cat", "cat/1.jpg"])
def test_what_may_not_be_read_is_named(photos: Path, name: str) -> None:
    (photos / name).chmod(0)
    with pytest.raises(PawlineError, match=rf"{name}' cannot be read \(Permission denied\)"):
        of("directory", photos)


@pytest.mark.usefixtures("settled")
def test_archive_is_known_by_its_digest_and_checked_once(
    photos: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Path(shutil.make_archive(str(workdir / "pets"), "zip", photos))
    first = of("archive", packed)
    assert first["files"] == 3
    monkeypatch.setattr(module, "check_archive", lambda path: pytest.fail("checked again"))
    assert of("archive", packed, sha256=first["fingerprint"]) == first
    with pytest.raises(PawlineError, match=r"pets\.zip has SHA-256 .*, data.sha256 says 000"):
        of("archive", packed, sha256="0" * 64)


def test_the_rest_is_known_by_its_parameters(workdir: Path) -> None:
    url = "https://example.org:8443/a/pets.zip?download=1#top"
    assert of("archive", url, "a" * 64) == {
        "source": "archive",
        "url": "https://example.org:8443/a/pets.zip",
        "sha256": "a" * 64,
    }
    with_secrets = "http://me:secret@example.org/x.tar.gz?token=secret#secret"
    assert public_url(with_secrets) == "http://example.org/x.tar.gz"
    assert of("tfds") == {"source": "tfds", "name": "mnist"}
    assert of("synthetic") == {"source": "synthetic", "images": 50, "generator": module.SYNTHETIC_VERSION}
