"""Archives that somebody made to do harm, and what must become of each."""

import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

LONG = "x" * 60_000
NASTY_NAMES = {
    "a line break": "cat/1\nerror: done.jpg",
    "an escape": "cat/\x1b]0;owned\x07\x1b[2J.jpg",
    "right to left": "cat/\u202egpj.exe.jpg",
    "60,000 letters": f"cat/{LONG}.jpg",
    "markup": "cat/<img src=x onerror=alert(1)>.jpg",
    "a shell's": "cat/$(touch CANARY)`touch CANARY`;touch CANARY|touch CANARY&.jpg",
    "an option": "cat/--output=CANARY.jpg",
    "a format": "cat/%s%n{0.__class__}{{7*7}}{%raw%}.jpg",
    "a formula": "cat/=cmd|' ' !A1.jpg",
    "a drive's letter within": "cat/aux.jpg:stream.jpg",
    "upper case beside lower": "CAT/1.JPG",
    "a tilde": "cat/~root.jpg",
    "spaces around": "cat/ 1.jpg ",
}
OUTSIDE = {
    "up": "../CANARY.jpg",
    "up from within": "cat/../../CANARY.jpg",
    "up in Windows": "..\\CANARY.jpg",
    "a mixture": "cat\\..\\..\\CANARY.jpg",
    "the root": "/CANARY.jpg",
    "a drive": "C:\\CANARY.jpg",
    "a share": "\\\\host\\share\\CANARY.jpg",
    "up at the end": "cat/..",
    "up, then a file of the system": "../../../../../../etc/passwd",
}


class Attack(NamedTuple):
    """An archive, and what must be said of it: nothing where it may be taken."""

    what: str
    make: Callable[[], bytes]
    refusal: str = ""


def good(photo: bytes) -> dict[str, bytes]:
    return {"cat/1.jpg": photo, "dog/1.jpg": photo}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], *special: tarfile.TarInfo, mode: str = "w", **options: Any) -> bytes:  # noqa: ANN401 - as tarfile takes them
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as packed:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        for member in special:
            packed.addfile(member)
    return buffer.getvalue()


def tar_member(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("cat/special.jpg")
    member.type, member.linkname, member.devmajor, member.devminor = kind, target, 1, 5
    return member


def tar_octal(number: int) -> bytes:
    return b"%011o\0" % number


def sparse_old_gnu(realsize: int, extended: bytes = b"") -> bytes:
    """A member, header and data, of which one byte is packed (GNU tar's manual, "Old GNU Format")."""
    member = tarfile.TarInfo("cat/sparse.jpg")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 1
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = tar_octal(realsize - 1) + tar_octal(1)
    header[482:495] = bytes([bool(extended)]) + tar_octal(realsize)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * ord(" ") + sum(header[156:]))
    return bytes(header) + extended + b"x".ljust(512, b"\0")


def sparse_pax(headers: dict[str, str], data: bytes = b"x", name: str = "cat/sparse.jpg") -> bytes:
    """A member with an extended header (the same manual, "PAX Format")."""
    member = tarfile.TarInfo(name)
    member.size, member.pax_headers = len(data), {f"GNU.sparse.{key}": value for key, value in headers.items()}
    return member.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def sparse_members(realsize: int) -> dict[str, bytes]:
    """A file of nothing but a byte at its end, in each form that GNU tar knows."""
    where = f"{realsize - 1},1"
    size, version = {"size": f"{realsize}"}, {"major": "1", "minor": "0", "realsize": f"{realsize}"}
    parts = {"offset": f"{realsize - 1}", "numbytes": "1"}
    return {
        "old GNU": sparse_old_gnu(realsize),
        "PAX 0.0": sparse_pax(size | {"numblocks": "1"} | parts),
        "PAX 0.1": sparse_pax(size | {"map": where}),
        "PAX 1.0": sparse_pax(version, f"1\n{realsize - 1}\n1\n".encode().ljust(512, b"\0") + b"x"),
    }


def odd_members() -> dict[str, bytes]:
    """Headers of sparse files that are no headers, or would be held in memory by the gigabyte."""
    endless = b"0\n" * 2**20
    version = {"major": "1", "minor": "0"}
    return {
        "a map of no numbers": sparse_pax({"map": "x,y"}),
        "a map of too many digits": sparse_pax({"map": "9" * 5000}),
        "a map that does not end": sparse_pax(version, f"{2**40}\n".encode() + endless),
        "a map of many blocks": sparse_old_gnu(2**20, (bytes(504) + b"\1" + bytes(7)) * 2**12 + bytes(512)),
    }


def zip_special(photo: bytes, kind: int, content: bytes = b"/etc/passwd") -> bytes:
    buffer = io.BytesIO(zipped(good(photo)))
    with zipfile.ZipFile(buffer, "a") as packed:
        member = zipfile.ZipInfo("cat/special.jpg")
        member.external_attr, member.create_system = (kind | 0o777) << 16, 3
        packed.writestr(member, content)
    return buffer.getvalue()


def overlapping(photo: bytes) -> bytes:
    """A zip whose many entries are all the same bytes (D. Fifield, "A better zip bomb", 2019)."""
    one = zipped(good(photo) | {"cat/bomb.jpg": bytes(2**22)})
    start = one.rindex(b"PK\1\2")  # the last entry of the directory: the bomb's
    directory, end = one.index(b"PK\1\2"), one.rindex(b"PK\5\6")
    entry = one[start:end]
    copies = [entry.replace(b"cat/bomb.jpg", f"cat/{n:04}.jpg".encode().rjust(12, b"_")) for n in range(200)]
    body = one[:start] + b"".join(copies)
    ending = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 202, 202, len(body) - directory, directory, 0)
    return body + ending


def lying(photo: bytes) -> bytes:
    """A zip that says of a gigabyte's member that it is small."""
    packed = zipped(good(photo) | {"cat/bomb.jpg": bytes(3 * 10**6)})
    return packed.replace((3 * 10**6).to_bytes(4, "little"), (300).to_bytes(4, "little"))


def twice(photo: bytes) -> bytes:
    buffer = io.BytesIO(zipped(good(photo)))
    with zipfile.ZipFile(buffer, "a") as packed:
        packed.writestr(zipfile.ZipInfo("./cat/1.jpg"), b"another")
    return buffer.getvalue()


def with_null(photo: bytes) -> bytes:
    return zipped(good(photo) | {"cat/NULL.jpg": photo}).replace(b"cat/NULL.jpg", b"cat/\0ULL.jpg")


def slow_attacks(photo: bytes) -> list[Attack]:
    """Return those that take seconds to make."""
    zeros = {f"{label}/zeros.jpg": bytes(2**28) for label in ("cat", "dog")}
    too_much = good(photo) | {"cat/2.jpg": bytes(2**28 + 1)}
    return [
        Attack("tar: gigabytes of nothing, gzip", lambda: tarred(zeros, mode="w:gz"), "times its size"),
        Attack("tar: gigabytes of nothing, xz", lambda: tarred(zeros, mode="w:xz"), "times its size"),
        Attack("zip: a gigabyte of nothing", lambda: zipped(too_much), "unpacks to"),
    ]


def attacks(photo: bytes) -> list[Attack]:
    """Return the others, as zip and as tar where both can be."""
    outside = "points outside"
    found = [Attack(f"zip: {what}", _zip_of(photo, name), outside) for what, name in OUTSIDE.items()]
    found += [Attack(f"tar: {what}", _tar_of(photo, name), outside) for what, name in OUTSIDE.items()]
    found += [Attack(f"zip: {what}", _zip_of(photo, name)) for what, name in NASTY_NAMES.items()]
    found += [Attack(f"tar: {what}", _tar_of(photo, name)) for what, name in NASTY_NAMES.items()]
    special = "is a link or a device"
    kinds = {"symbolic link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}
    kinds |= {"character device": tarfile.CHRTYPE, "block device": tarfile.BLKTYPE}
    found += [Attack(f"tar: {what}", _tar_with(photo, kind), special) for what, kind in kinds.items()]
    modes = {"symbolic link": stat.S_IFLNK, "pipe": stat.S_IFIFO, "device": stat.S_IFCHR, "socket": stat.S_IFSOCK}
    found += [Attack(f"zip: {what}", _zip_with(photo, mode), special) for what, mode in modes.items()]
    for what, packed in sparse_members(200 * 10**6).items():
        found.append(Attack(f"tar: a sparse file, {what}", _tar_behind(packed, photo), "is sparse"))
    for what, packed in odd_members().items():
        found.append(Attack(f"tar: sparse, {what}", _tar_behind(packed, photo), "damaged|neither"))
    nested = zipped(good(photo) | {"../CANARY.jpg": b""})
    control = "control character"
    return [
        *found,
        Attack("zip: a name twice", lambda: twice(photo), "is in it twice"),
        Attack(
            "tar: a name twice", lambda: tarred({"cat/1.jpg": b""} | {"./cat/1.jpg": b"", "dog/1.jpg": b""}), "twice"
        ),
        Attack("zip: overlapping members", lambda: overlapping(photo), "more than 100 times|damaged"),
        Attack("zip: a member larger than it says", lambda: lying(photo), "damaged"),
        Attack("zip: a null in a name", lambda: with_null(photo), ""),
        Attack("zip: an archive as a photo", lambda: zipped(good(photo) | {"cat/nested.jpg": nested}), ""),
        Attack("zip: a class of control characters", lambda: zipped(good(photo) | {"\x1b[2J/1.jpg": photo}), control),
        Attack("zip: split folders of control characters", lambda: _splits(photo), "beside other folders"),
        Attack("tar: a name that is not UTF-8", lambda: _latin(photo), ""),
        Attack("tar: a header of a gigabyte", lambda: _huge_header(photo), "damaged|neither"),
        Attack("zip: no end", lambda: zipped(good(photo))[:-30], "damaged"),
    ]


def _zip_of(photo: bytes, name: str) -> Callable[[], bytes]:
    return lambda: zipped(good(photo) | {name: photo})


def _tar_of(photo: bytes, name: str) -> Callable[[], bytes]:
    return lambda: tarred(good(photo) | {name: photo})


def _tar_with(photo: bytes, kind: bytes) -> Callable[[], bytes]:
    return lambda: tarred(good(photo), tar_member(kind, "/etc/passwd"))


def _tar_behind(member: bytes, photo: bytes) -> Callable[[], bytes]:
    return lambda: member + tarred(good(photo))


def _zip_with(photo: bytes, kind: int) -> Callable[[], bytes]:
    return lambda: zip_special(photo, kind)


def _splits(photo: bytes) -> bytes:
    return zipped({"train/cat/1.jpg": photo, "test/dog/1.jpg": photo, "\x1b[2J\n/bird/1.jpg": photo})


def _latin(photo: bytes) -> bytes:
    return tarred(good(photo) | {"cat/\xe9.jpg": photo}, encoding="latin-1", format=tarfile.GNU_FORMAT)


def _huge_header(photo: bytes) -> bytes:
    header = tarfile.TarInfo("long name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**30
    return header.tobuf() + tarred(good(photo))


def write_all(attacks: list[Attack], folder: Path) -> dict[str, Attack]:
    """Write archives, and return what each is by its file's name."""
    written = {}
    for number, attack in enumerate(attacks):
        (folder / f"{number:03}").write_bytes(attack.make())
        written[f"{number:03}"] = attack
    return written
