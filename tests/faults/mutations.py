"""Ways to damage a file: some know nothing of its format, and some change its parts and keep the rest in order."""

import random
import struct
import zlib
from collections.abc import Callable

Mutator = Callable[[bytes, bytes, random.Random], bytes]

NASTY_BYTES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
NASTY_NUMBERS = (
    *(0, 1, 2, 7, 8, 16, 255, 256, 4096, 8000, 16_383, 20_000, 32_767, 32_768, 65_535),
    *(65_536, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1),
)
HEADER_BYTES = 400
PNG = b"\x89PNG\r\n\x1a\n"
IN_SCANS = (0, *range(0xD0, 0xD8))  # what follows 0xFF within a JPEG's scan: a stuffed byte, restart markers
BLANK_ROWS = 40_000_000  # zeros that a PNG's data may unpack to


def flip_bits(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Flip some bits anywhere."""
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def replace_bytes(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Replace some bytes, more often near the beginning."""
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 2, 4, 16))):
        place = chance.randrange(min(len(damaged), chance.choice((HEADER_BYTES, len(damaged)))))
        damaged[place] = chance.choice((*NASTY_BYTES, chance.randrange(256)))
    return bytes(damaged)


def truncate(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Cut the end off."""
    return content[: chance.randrange(len(content))]


def remove(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Take a piece out."""
    start, stop = _piece(content, chance)
    return content[:start] + content[stop:]


def repeat(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Have a piece several times."""
    start, stop = _piece(content, chance)
    return content[:stop] + content[start:stop] * chance.choice((1, 2, 50)) + content[stop:]


def insert(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Put noise in."""
    start, _ = _piece(content, chance)
    return content[:start] + chance.randbytes(chance.choice((1, 4, 200))) + content[start:]


def splice(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Begin as one file and end as another."""
    return content[: chance.randrange(len(content))] + other[chance.randrange(len(other)) :]


def transplant(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Overwrite a piece with one of another file."""
    start, stop = _piece(other, chance)
    place = chance.randrange(len(content))
    return content[:place] + other[start:stop] + content[place + stop - start :]


def edit_number(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Write a nasty number over two or four bytes of what may be a header: a size, a count, an offset."""
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 2))):
        size, order = chance.choice((2, 4)), chance.choice((">", "<"))
        place = chance.randrange(max(min(len(damaged), HEADER_BYTES) - size, 1))
        number = chance.choice(NASTY_NUMBERS) % 256**size
        damaged[place : place + size] = struct.pack(f"{order}{'H' if size == 2 else 'I'}", number)
    return bytes(damaged)


def damage_exif(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Damage an EXIF block alone; where there is none, whatever lies at the beginning."""
    start = max(content.find(b"Exif\0\0"), content.find(b"eXIf"), content.find(b"EXIF"))
    stop = min(start + 300, len(content)) if start >= 0 else min(len(content), HEADER_BYTES)
    damage = chance.choice((flip_bits, replace_bytes, edit_number))
    start = max(start, 0)
    return content[:start] + damage(content[start:stop], other, chance) + content[stop:]


def change_parts(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Drop, repeat, swap, borrow or damage parts of a file, and put it together so that lengths and sums fit."""
    split, join = _format_of(content)
    if split is None or join is None:
        return edit_number(content, other, chance)
    parts = split(content)
    theirs = split(other) if _format_of(other)[0] is split else parts
    for _ in range(chance.choice((1, 1, 2, 3))):
        _change_one(parts, theirs, chance)
    return join(parts)


Part = tuple[bytes, bytes]  # what it is called, and its content


def _change_one(parts: list[Part], theirs: list[Part], chance: random.Random) -> None:
    if not parts:
        return
    place = chance.randrange(len(parts))
    name, content = parts[place]
    change = chance.choice(("drop", "repeat", "swap", "borrow", "damage", "damage", "field", "field", "bomb"))
    if change == "drop":
        del parts[place]
    elif change == "repeat":
        parts[place:place] = [parts[place]] * chance.choice((1, 2, 30))
    elif change == "swap":
        to = chance.randrange(len(parts))
        parts[place], parts[to] = parts[to], parts[place]
    elif change == "borrow" and theirs:
        parts.insert(place, chance.choice(theirs))
    elif change == "bomb" and name == b"IDAT":
        parts[place] = name, zlib.compress(bytes(chance.choice((0, 1000, BLANK_ROWS))), 1)
    elif content:
        damage = edit_number if change == "field" else chance.choice((flip_bits, replace_bytes, truncate, repeat))
        parts[place] = name, damage(content, content, chance)


def _format_of(content: bytes) -> tuple[Callable[[bytes], list[Part]] | None, Callable[[list[Part]], bytes] | None]:
    if content.startswith(PNG):
        return _png_parts, _join_png
    if content.startswith(b"\xff\xd8"):
        return _jpeg_parts, _join_jpeg
    if content.startswith(b"RIFF"):
        return _riff_parts, _join_riff
    return None, None


def _png_parts(content: bytes) -> list[Part]:
    parts, place = [], len(PNG)
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        parts.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return parts


def _join_png(parts: list[Part]) -> bytes:
    named = [name + data for name, data in parts]
    return PNG + b"".join(struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in named)


def _jpeg_parts(content: bytes) -> list[Part]:
    """Return segments by their markers; what follows a scan's header belongs to it."""
    parts, place = [], 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, length = content[place : place + 2], int.from_bytes(content[place + 2 : place + 4], "big")
        stop = place + 2 + length
        if marker[1] == 0xDA:
            while stop + 1 < len(content) and (content[stop] != 0xFF or content[stop + 1] in IN_SCANS):
                stop += 1
        parts.append((marker, content[place + 4 : stop]))
        place = stop
    return parts


def _join_jpeg(parts: list[Part]) -> bytes:
    segments = []
    for marker, data in parts:
        header = data[0] * 2 + 4 if marker[1:] == b"\xda" and data else len(data)
        segments.append(marker + struct.pack(">H", (min(header, len(data)) + 2) % 65_536) + data)
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xd9"


def _riff_parts(content: bytes) -> list[Part]:
    parts, place = [], 12
    while place + 8 <= len(content):
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        parts.append((content[place : place + 4], content[place + 8 : place + 8 + length]))
        place += 8 + length + length % 2
    return parts


def _join_riff(parts: list[Part]) -> bytes:
    chunks = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in parts)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def _piece(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content))
    return start, min(len(content), start + chance.choice((1, 2, 8, 64, 500)))


BLIND: tuple[Mutator, ...] = (
    flip_bits,
    replace_bytes,
    truncate,
    remove,
    repeat,
    insert,
    splice,
    transplant,
    edit_number,
    damage_exif,
)
MUTATORS: tuple[Mutator, ...] = (*BLIND, *(change_parts,) * 4)


def mutate(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Damage a file in one way or several."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        content = chance.choice(MUTATORS)(content, other, chance) or b"\0"
    return content
