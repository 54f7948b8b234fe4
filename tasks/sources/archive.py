"""A zip or tar archive (plain or compressed with gzip, bzip2 or xz), read as a stream and never extracted.

An archive is refused, with the member's name, when a member could write outside a folder it is unpacked to (`..`, an
absolute path, a link, a device), is sparse, is named twice, is encrypted, does not fit its checksum, or would need
absurd memory; so nobody who handles the same file with other tools later gets hurt either.
"""

import bz2
import functools
import gzip
import lzma
import re
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from tasks.sources.layout import MAX_FILE_BYTES, Entry
from tasks.stage import PawlineError

MAX_MEMBER_BYTES = MAX_FILE_BYTES
MAX_TAR_HEADER_BYTES = 2**20  # of one member, extended headers included; a path takes some hundreds
MAX_EXPANSION = 100  # unpacked size over the archive's own; photos do not shrink at all
UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 0x1  # APPNOTE.TXT 4.4.4
MS_DOS = 0  # APPNOTE.TXT 4.4.2
DRIVE = re.compile(r"[A-Za-z]:[\\/]")
DAMAGES = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile, ValueError)


class DamagedArchiveError(PawlineError):
    """A file is no archive, or not the whole of one."""


def entries(path: Path) -> Iterator[Entry]:
    """Yield an archive's files: of a zip in the order of their paths, of a tar in the archive's order.

    Raises:
        PawlineError: It is missing, unreadable, not an archive, damaged or hostile.
    """
    with _one_line_errors(path), path.open("rb") as file:
        zipped = file.read(2) == b"PK"
        file.seek(0)
        for entry in _zip_entries(path, file) if zipped else _tar_entries(path, file):
            yield entry._replace(read=functools.partial(_read, path, entry.read))


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGES as error:
        raise DamagedArchiveError(f"archive {path} is truncated or damaged ({error}): fetch or pack it again") from None
    except NotImplementedError as error:
        raise PawlineError(f"archive {path} cannot be unpacked ({error}): pack it with deflate") from None
    except IsADirectoryError:
        raise PawlineError(f"data.path {path} is a folder: set data.source to directory") from None
    except OSError as error:
        raise PawlineError(f"archive {path} cannot be read ({error.strerror or error})") from None


def _read(path: Path, read: Callable[[], bytes]) -> bytes:
    with _one_line_errors(path):
        return read()


def _refusal(path: Path, name: str, why: str) -> PawlineError:
    return PawlineError(f"archive {path} is refused: {name!r} {why}; nothing of it was used")


def _zip_entries(path: Path, file: IO[bytes]) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            _check_zip_member(path, member)
            spelt = _zip_name(member)
            name = _safe_name(path, spelt)
            if name in members:
                raise _refusal(path, name, "is in it twice")
            if name and not spelt.endswith("/"):
                members[name] = member
        _check_total(path, sum(member.file_size for member in members.values()))
        for name, member in sorted(members.items()):
            yield Entry(name, functools.partial(archive.read, member))


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Return a member's name: Info-ZIP writes UTF-8 without saying so, old Windows tools write backslashes."""
    name = member.filename
    if not member.flag_bits & UTF8_FLAG:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if member.create_system == MS_DOS else name


def _check_zip_member(path: Path, member: zipfile.ZipInfo) -> None:
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refusal(path, member.filename, "is a link or a device")
    if member.flag_bits & ENCRYPTED_FLAG:
        raise PawlineError(f"archive {path} is encrypted: pack it again without a password")
    _check_size(path, member.filename, member.file_size)


def _tar_entries(path: Path, file: IO[bytes]) -> Iterator[Entry]:
    stream = _TarStream(_unpacked(file))
    names: set[str] = set()
    total = 0
    with _open_tar(path, stream) as archive:
        while (member := stream.next_member(archive)) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep every header
            name = _safe_name(path, member.name)
            if member.issparse():
                raise _refusal(path, name, "is sparse, larger than what is packed of it")
            total += member.size  # an extended header may say more than there is, up to the next member
            _check_total(path, max(total, archive.offset))
            if member.isreg():
                _check_size(path, name, member.size)
                if name in names:
                    raise _refusal(path, name, "is in it twice")
                names.add(name)
                yield Entry(name, functools.partial(_read_tar, archive, member))
            elif not member.isdir():
                raise _refusal(path, name, "is a link or a device")
    stream.check_end(path)


def _open_tar(path: Path, stream: "_TarStream") -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:", errors="backslashreplace")
    except tarfile.ReadError:
        raise DamagedArchiveError(f"{path} is neither a zip nor a tar archive: check data.path") from None


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(file))
    if magic.startswith(b"BZh"):
        return bz2.open(file)
    return lzma.open(file) if magic == b"\xfd7zXZ\x00" else file


def _read_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"no data for {member.name!r}")
    return content.read()


class _TarStream:
    """An unpacked tar, read forward; remembers its last block, since tarfile takes any bad header for the end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._last, self._may_read = stream, b"", MAX_TAR_HEADER_BYTES
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        self._may_read -= size
        if self._may_read < 0:
            raise tarfile.ReadError("absurd header")
        self._last = self._stream.read(size)
        return self._last

    def next_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        """Read a member's header, of which tarfile holds all in memory: extended ones and the maps of sparse files."""
        self._may_read = MAX_TAR_HEADER_BYTES
        member = archive.next()
        self._may_read = sys.maxsize
        return member

    def check_end(self, path: Path) -> None:
        """Require the end mark, then read on to where compressed formats keep their checksum."""
        if self._last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end-of-archive mark")
        while self._stream.read(2**20):
            _check_total(path, self.tell())


def _safe_name(path: Path, name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or DRIVE.match(name):
        raise _refusal(path, name, "points outside")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _check_size(path: Path, name: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise _refusal(path, name, f"unpacks to {size:,} bytes, above {MAX_MEMBER_BYTES:,}")


def _check_total(path: Path, unpacked: int) -> None:
    if unpacked > MAX_MEMBER_BYTES + MAX_EXPANSION * path.stat().st_size:
        raise PawlineError(f"archive {path} is refused: it unpacks to more than {MAX_EXPANSION} times its size")
