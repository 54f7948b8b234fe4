"""Zips and tars: what is read from good ones, and that bad ones are refused in one line."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.sources import archive
from tasks.stage import PawlineError
from tests.faults.hostile_archives import odd_members, sparse_members, sparse_pax

FILES = {"Cat/1.jpg": b"one" * 400, "Cat/é 猫 <b>'\".jpg": b"two", "Dog/1.jpg": b"", "readme.txt": b"hello"}
TAR_MODES = ["w", "w:gz", "w:bz2", "w:xz"]


def contents(path: Path) -> dict[str, bytes]:
    return {entry.path: entry.read() for entry in archive.entries(path)}


def write_zip(path: Path, files: Mapping[Any, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def write_tar(path: Path, mode: str = "w", members: Callable[[tarfile.TarFile], None] | None = None) -> Path:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, content in FILES.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        if members:
            members(packed)
    return path


def test_zip_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "named.tar", {**dict(reversed(FILES.items())), "Dog/": b""})
    assert contents(path) == FILES
    assert [entry.path for entry in archive.entries(path)] == sorted(FILES)


@pytest.mark.parametrize("mode", TAR_MODES)
def test_tar_is_read_in_its_own_order_whatever_its_name(tmp_path: Path, mode: str) -> None:
    path = write_tar(tmp_path / "named.zip", mode)
    assert list(contents(path).items()) == list(FILES.items())
    assert [entry.path for entry in archive.entries(path)] == list(FILES)  # entries may be skipped unread


def test_zip_names_of_old_tools_are_understood(tmp_path: Path) -> None:
    windows = zipfile.ZipInfo("PetImages\\Cat\\1.jpg")
    windows.create_system = 0
    unflagged = write_zip(
        tmp_path / "a.zip", {"Cat/XXXX.jpg": b"utf-8", "Cat/YY.jpg": b"latin-1", windows: b"backslash"}
    )
    packed = unflagged.read_bytes().replace(b"XXXX", "é1é"[:2].encode() + b"2").replace(b"YY", b"\xe9Y")
    unflagged.write_bytes(packed)
    assert contents(unflagged) == {
        "Cat/é12.jpg": b"utf-8",
        "Cat/ΘY.jpg": b"latin-1",  # code page 437, as the format has it
        "PetImages/Cat/1.jpg": b"backslash",
    }


def test_tar_names_that_are_not_utf8_stay_distinct(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as packed:
        packed.addfile(tarfile.TarInfo("Cat/\xe9.jpg"))
    assert list(contents(tmp_path / "a.tar")) == ["Cat/\\xe9.jpg"]


@pytest.mark.parametrize("name", ["../x.jpg", "Cat/../../x.jpg", "/tmp/x.jpg", "C:\\x.jpg", "..\\x.jpg", "\\x.jpg"])  # noqa: S108
def test_names_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    def outside(packed: tarfile.TarFile) -> None:
        packed.addfile(tarfile.TarInfo(name))

    for path in (
        write_zip(tmp_path / "a.zip", {"Cat/1.jpg": b"", name: b""}),
        write_tar(tmp_path / "a.tar", "w", outside),
    ):
        with pytest.raises(PawlineError, match="points outside"):
            contents(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_tar_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    def special(packed: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("Cat/x.jpg")
        member.type, member.linkname = kind, "1.jpg"
        packed.addfile(member)

    with pytest.raises(PawlineError, match=r"'Cat/x\.jpg' is a link or a device"):
        contents(write_tar(tmp_path / "a.tar", "w:gz", special))


def test_zip_symbolic_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("Cat/x.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(PawlineError, match=r"'Cat/x\.jpg' is a link or a device"):
        contents(write_zip(tmp_path / "a.zip", {link: b"/etc/passwd"}))


def test_a_path_that_is_in_it_twice_is_refused(tmp_path: Path) -> None:
    again = zipfile.ZipInfo("./Cat/1.jpg")
    with pytest.raises(PawlineError, match=r"'Cat/1\.jpg' is in it twice"):
        contents(write_zip(tmp_path / "a.zip", {"Cat/1.jpg": b"a", again: b"b"}))
    with pytest.raises(PawlineError, match=r"'Cat/1\.jpg' is in it twice"):
        contents(write_tar(tmp_path / "a.tar", "w", lambda packed: packed.addfile(tarfile.TarInfo("Cat/1.jpg"))))


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"Cat/1.jpg": b"a"})
    packed = bytearray(path.read_bytes())
    packed[packed.index(b"PK\x01\x02") + 8] |= 1  # general purpose flags in the central directory
    path.write_bytes(packed)
    with pytest.raises(PawlineError, match="is encrypted"):
        contents(path)


def test_members_and_archives_that_unpack_to_absurd_sizes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 20_000)
    zeros = bytes(20_001)
    with pytest.raises(PawlineError, match="unpacks to 20,001 bytes"):
        contents(write_zip(tmp_path / "a.zip", {"Cat/1.jpg": zeros}))
    with pytest.raises(PawlineError, match="more than 100 times its size"):
        contents(write_zip(tmp_path / "b.zip", {f"Cat/{number}.jpg": zeros[1:] for number in range(20)}))

    def bomb(packed: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("Cat/bomb.jpg")
        member.size = 2_000_000
        packed.addfile(member, io.BytesIO(bytes(member.size)))

    with pytest.raises(PawlineError, match="more than 100 times its size"):
        contents(write_tar(tmp_path / "a.tar.gz", "w:gz", bomb))


@pytest.mark.parametrize("kind", sparse_members(1))
def test_sparse_tar_members_are_refused(tmp_path: Path, kind: str) -> None:
    member = sparse_members(200_000_000)[kind]
    (tmp_path / "a.tar").write_bytes(member + write_tar(tmp_path / "good.tar").read_bytes())
    with pytest.raises(PawlineError, match=r"'cat/sparse\.jpg' is sparse"):
        contents(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", odd_members())
def test_odd_headers_of_sparse_tar_members_are_refused(tmp_path: Path, kind: str) -> None:
    good = write_tar(tmp_path / "good.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(good[: 512 * 4] + odd_members()[kind] + good)
    with pytest.raises(PawlineError, match="is truncated or damaged"):
        contents(tmp_path / "a.tar")


def test_tar_members_that_say_to_go_on_into_the_next_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may be read to the archive's end: many would be its size to the power of two."""
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 400_000)
    many = b"".join(sparse_pax({"realsize": "400000"}, name=f"Cat/{number}.jpg") for number in range(200))
    (tmp_path / "a.tar").write_bytes(many + write_tar(tmp_path / "good.tar").read_bytes())
    with pytest.raises(PawlineError, match="more than 100 times its size"):
        list(archive.entries(tmp_path / "a.tar"))  # unread


def test_a_member_larger_than_it_declares_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"Cat/1.jpg": bytes(5000)})
    path.write_bytes(path.read_bytes().replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(PawlineError, match="truncated or damaged"):
        contents(path)


def test_a_tar_header_that_declares_a_gigabyte_is_refused_unread(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**30
    (tmp_path / "a.tar").write_bytes(header.tobuf() + bytes(4096))
    with pytest.raises(PawlineError):
        contents(tmp_path / "a.tar")


@pytest.mark.parametrize("mode", TAR_MODES)
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9])
def test_truncated_tars_are_refused(tmp_path: Path, mode: str, keep: float) -> None:
    path = write_tar(tmp_path / "a.tar", mode)
    end = path.stat().st_size if mode != "w" else 512 * 9  # without the padding that plain tars end with
    path.write_bytes(path.read_bytes()[: int(end * keep)])
    with pytest.raises(PawlineError) as error:
        contents(path)
    assert "\n" not in str(error.value)


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[: 512 * 4])  # header and 1,200 bytes of the first member
    with pytest.raises(PawlineError, match="no end-of-archive mark"):
        contents(path)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("Cat/1.jpg", b"find me here")
    path.write_bytes(path.read_bytes().replace(b"find me", b"lose me"))
    with pytest.raises(PawlineError, match=r"damaged \(Bad CRC-32 for file 'Cat/1\.jpg'\)"):
        contents(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "neither a zip nor a tar"), (b"hello " * 200, "neither a zip nor a tar"), (b"PK\x03\x04 not", "truncated")],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(PawlineError, match=message):
        contents(tmp_path / "a.zip")


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(PawlineError, match=r"is a folder: set data\.source to directory"):
        contents(tmp_path)


@pytest.mark.parametrize("kind", ["zip", *TAR_MODES])
def test_random_damage_is_either_harmless_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    whole = write_zip(tmp_path / "a", FILES) if kind == "zip" else write_tar(tmp_path / "a", kind)
    good = np.frombuffer(whole.read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = good.copy()
        damaged[random.integers(0, min(len(good), 3600), 4)] = random.integers(0, 256, 4)
        whole.write_bytes(damaged.tobytes())
        try:
            contents(whole)
        except PawlineError as error:
            assert "\n" not in str(error)  # noqa: PT017 - most damages raise, some are harmless


def test_a_zip_member_without_a_name_is_skipped(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"Cat/1.jpg": b"a", "NAMELESS": b"b"})
    path.write_bytes(path.read_bytes().replace(b"NAMELESS", b"\0AMELESS"))
    assert list(contents(path)) == ["Cat/1.jpg"]
