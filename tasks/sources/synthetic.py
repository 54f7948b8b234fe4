"""Small, varied drawings of cats and dogs: photos' stand-in where there is no network.

They are real files, always the same ones, and among them are the defects and oddities of real collections, so that
every rule of the pipeline has something to do. `synthetic` is in every path: nobody should take them for photos.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageDraw

from tasks.raw import RawRecord
from tasks.sources.drawing import draw_animal

LABELS = ("cat", "dog")
DEFECT_SHARE = 0.05
MAX_REJECT_SHARE = 0.18  # below `validate.max_reject_share` as committed, however few are drawn
REJECTED_BY_ROUND = 10  # files that one of each defect costs: of the same picture under two labels both go
ODD_EVERY = 8
BOMB_SIDE_PX = 50_000

File = tuple[str, bytes]  # extension, content
Defect = Callable[[str, int], File]


def draw(count: int) -> Iterator[RawRecord]:
    """Yield `count` files in the order of their paths, half of them cats, the same bytes each time."""
    defects = _plan_defects(count)
    for label_index, label in enumerate(LABELS):
        for number in range(1, (count - label_index + 1) // 2 + 1):
            defect = defects.get((label, number))
            extension, content = defect(label, number) if defect else _whole_file(label, number)
            yield RawRecord(f"synthetic/{label}/{number:05d}.{extension}", label, "", content)


def _plan_defects(count: int) -> dict[tuple[str, int], Defect]:
    """Spread the defects evenly over both labels; the pictures before each, which it may refer to, are whole."""
    rounds = max(1, round(count * DEFECT_SHARE / REJECTED_BY_ROUND))
    planned = (DEFECTS * rounds)[: int(count * MAX_REJECT_SHARE)]
    return {
        (LABELS[index % 2], int((index + 0.5) * count / len(planned)) // 2 + 1): defect
        for index, defect in enumerate(planned)
    }


def _picture(label: str, number: int) -> Image.Image:
    return draw_animal(label, np.random.default_rng([LABELS.index(label), number]))


def _whole_file(label: str, number: int) -> File:
    """Return a good picture: mostly plain JPEGs, some in other formats, some odd but harmless."""
    picture = _picture(label, number)
    if number % ODD_EVERY == ODD_EVERY // 2:
        turn = number // ODD_EVERY + LABELS.index(label) * 3
        return "jpg", ODDITIES[turn % len(ODDITIES)](picture)
    if number % 11 == 0:
        return "png", _encoded(picture, "PNG")
    if number % 13 == 0:
        return "webp", _encoded(picture, "WEBP", quality=90)
    return "jpg", _encoded(picture, "JPEG", quality=70 + number % 26)


def _encoded(picture: Image.Image, format_name: str, **options: Any) -> bytes:  # noqa: ANN401 - the encoder's own
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def _turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise, so it is stored turned the other way
    return _encoded(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)


def _cmyk(picture: Image.Image) -> bytes:
    return _encoded(picture.convert("CMYK"), "JPEG")


def _gray(picture: Image.Image) -> bytes:
    return _encoded(picture.convert("L"), "JPEG")


def _transparent_png(picture: Image.Image) -> bytes:
    alpha = Image.new("L", picture.size)
    ImageDraw.Draw(alpha).rounded_rectangle([0, 0, picture.width - 1, picture.height - 1], radius=12, fill=255)
    picture.putalpha(alpha)
    return _encoded(picture, "PNG")


def _without_jfif(picture: Image.Image) -> bytes:
    content = _encoded(picture, "JPEG")
    segment_bytes = int.from_bytes(content[4:6])  # APP0 follows the start marker: FF E0, length, "JFIF"
    return content[:2] + content[4 + segment_bytes :]


def _empty(label: str, number: int) -> File:
    return "jpg", b""


def _truncated(label: str, number: int) -> File:
    content = _encoded(_picture(label, number), "JPEG")
    return "jpg", content[: len(content) * 2 // 3]


def _web_page(label: str, number: int) -> File:
    return "jpg", f"<!DOCTYPE html><html><title>404</title><p>{label} {number} is gone</html>\n".encode()


def _duplicate(label: str, number: int) -> File:
    return _whole_file(label, number - 1)


def _near_duplicate(label: str, number: int) -> File:
    picture = _picture(label, number - 1)
    smaller = picture.resize((picture.width * 9 // 10, picture.height * 9 // 10))
    return "jpg", _encoded(smaller, "JPEG", quality=60)


def _other_label(label: str, number: int) -> File:
    return _whole_file(LABELS[1 - LABELS.index(label)], number - 1)


def _tiny(label: str, number: int) -> File:
    return "jpg", _encoded(_picture(label, number).resize((1, 1)), "JPEG")


def _blank(label: str, number: int) -> File:
    return "jpg", _encoded(Image.new("RGB", (160, 120), (number % 256, 128, 128)), "JPEG")


def _animated(label: str, number: int) -> File:
    picture = _picture(label, number)
    frames = [picture.rotate(5 * turn) for turn in range(1, 4)]
    return "gif", _encoded(picture, "GIF", save_all=True, append_images=frames, duration=200)


def _bomb(label: str, number: int) -> File:
    """Return a PNG of a few bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE_PX, BOMB_SIDE_PX + number, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "png", b"\x89PNG\r\n\x1a\n" + b"".join(packed)


ODDITIES = (_turned, _cmyk, _gray, _transparent_png, _without_jfif)
DEFECTS: tuple[Defect, ...] = (
    _near_duplicate,
    _empty,
    _truncated,
    _web_page,
    _duplicate,
    _other_label,
    _tiny,
    _blank,
    _animated,
    _bomb,
)
