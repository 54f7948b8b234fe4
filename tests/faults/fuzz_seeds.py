"""What the fuzzer begins with: small pictures in every format, mode and option that Pillow writes, and real photos."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (72, 56)
PHOTO_SIDE_PX = 80
PHOTOS, ORIGINALS = 12, 6
LARGEST_ORIGINAL = 20_000  # bytes: time goes into files, not into pixels
ORIENTATION, MAKER_NOTE, GPS = 0x0112, 0x927C, 0x8825


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE, turn: int = 0) -> Image.Image:
    """Smooth colours and some noise."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([3 * x + turn, 4 * y, x + y], axis=-1) % 256
    noise = np.random.default_rng(turn).integers(0, 24, smooth.shape)
    return Image.fromarray(((smooth + noise) % 256).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:  # noqa: ANN401 - whatever Pillow takes
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def many_scans(image: Image.Image, count: int) -> bytes:
    """Return a gray picture as a progressive JPEG, so many scans of which go over the whole of it."""
    content = encoded(image.convert("L"), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * (count - content.count(b"\xff\xda")) + content[-2:]


def exif() -> Image.Exif:
    """Return an EXIF block with text, rationals, a sub-block and a place."""
    block = Image.Exif()
    block[ORIENTATION] = 6
    block[0x010E] = "<script>alert(1)</script>"
    block[0x011A] = 72.0
    block.get_ifd(0x8769)[MAKER_NOTE] = bytes(range(64))
    block.get_ifd(GPS)[2] = (52.0, 30.0, 11.0)
    return block


def generated() -> dict[str, bytes]:
    """Return files by what they are."""
    return dict([*_jpegs(), *_pngs(), *_bmps(), *_gifs(), *_webps(), *_tiffs()])


def _jpegs() -> Iterator[tuple[str, bytes]]:
    for mode in ("RGB", "L", "CMYK", "YCbCr"):
        yield f"jpeg {mode}", encoded(picture(mode), "JPEG", quality=85)
        yield f"jpeg {mode} progressive", encoded(picture(mode), "JPEG", progressive=True, optimize=True)
    yield "jpeg exif", encoded(picture(), "JPEG", exif=exif(), comment=b"<img src=x>")
    yield "jpeg progressive exif", encoded(picture(), "JPEG", exif=exif(), progressive=True, subsampling=0)
    yield "jpeg restarts", encoded(picture(), "JPEG", restart_marker_blocks=2, subsampling="4:2:2")
    yield "jpeg profile", encoded(picture(), "JPEG", icc_profile=bytes(range(256)) * 3, dpi=(72, 72))
    yield "mpo", encoded(picture(), "MPO", save_all=True, append_images=[picture(size=(40, 40), turn=9)])


def _pngs() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA"):
        yield f"png {mode}", encoded(picture(mode), "PNG")
    levels = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[1], SIZE[0])
    yield "png 16 bit", encoded(Image.fromarray(levels), "PNG")
    yield "png transparent", encoded(picture("P"), "PNG", transparency=3, bits=8)
    yield "png exif", encoded(picture(), "PNG", exif=exif(), icc_profile=bytes(range(256)), dpi=(72, 72))
    frames = [picture(turn=turn) for turn in (5, 10)]
    yield "apng", encoded(picture(), "PNG", save_all=True, append_images=frames)


def _bmps() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"bmp {mode}", encoded(picture(mode), "BMP")
    yield "bmp rle", _run_lengths()


def _run_lengths() -> bytes:
    """A BMP of 8 bits in run lengths, which Pillow reads and does not write."""
    plain = encoded(picture("L", (48, 40)), "BMP")
    start = int.from_bytes(plain[10:14], "little")
    rows = b"".join(bytes([16, row, 16, 255 - row, 0, 16, *range(row, row + 16), 0, 0]) for row in range(40)) + b"\0\1"
    header = bytearray(plain[:start])
    header[30:34] = (1).to_bytes(4, "little")  # BI_RLE8
    header[34:38] = len(rows).to_bytes(4, "little")
    return bytes(header) + rows


def _gifs() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P"):
        yield f"gif {mode}", encoded(picture(mode), "GIF", interlace=mode != "P")
    yield "gif transparent", encoded(picture("P"), "GIF", transparency=2, comment=b"<script>")
    yield "gif animated", encoded(picture(), "GIF", save_all=True, append_images=[picture(turn=30), picture(turn=60)])


def _webps() -> Iterator[tuple[str, bytes]]:
    for mode in ("RGB", "RGBA", "L"):
        yield f"webp {mode}", encoded(picture(mode), "WEBP", quality=70, method=0)
        yield f"webp {mode} lossless", encoded(picture(mode), "WEBP", lossless=True, method=0)
    yield "webp exif", encoded(picture(), "WEBP", exif=exif(), icc_profile=bytes(range(256)), method=0)
    frames = [picture(turn=30), picture(turn=60)]
    yield "webp animated", encoded(picture(), "WEBP", save_all=True, append_images=frames, method=0)


def _tiffs() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F"):
        image = picture(mode) if mode != "LAB" else Image.merge("LAB", picture().split())
        yield f"tiff {mode}", encoded(image, "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        yield f"tiff {compression}", encoded(picture(), "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield f"tiff {compression}", encoded(picture("1"), "TIFF", compression=compression)
    strips = encoded(picture(), "TIFF", compression="tiff_lzw", strip_size=1024, exif=exif())
    yield "tiff strips", strips
    yield "tiff animated", encoded(picture(), "TIFF", save_all=True, append_images=[picture(turn=30)])
    yield "tiff big", encoded(picture(), "TIFF", big_tiff=True, compression="tiff_lzw")


def photos(archive: Path) -> dict[str, bytes]:
    """Return real photos by what they are: some as they came, and some made small, in the formats that photos have."""
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(archive) as packed:
        members = sorted((one for one in packed.infolist() if one.filename.endswith(".jpg")), key=lambda one: one.CRC)
        small = [one for one in members if 2_000 < one.file_size < LARGEST_ORIGINAL]
        found |= {f"photo {one.filename}": packed.read(one) for one in small[:ORIGINALS]}
        for number, member in enumerate(members[:PHOTOS]):
            found |= _shrunk(packed.read(member), number)
    return found


def _shrunk(content: bytes, number: int) -> dict[str, bytes]:
    try:
        image = Image.open(io.BytesIO(content)).convert("RGB")
    except OSError:
        return {}  # one of those that are damaged already
    image.thumbnail((PHOTO_SIDE_PX, PHOTO_SIDE_PX))
    options: tuple[dict[str, Any], ...] = (
        {"image_format": "JPEG", "exif": exif()},
        {"image_format": "JPEG", "progressive": True},
        {"image_format": "PNG"},
        {"image_format": "WEBP", "method": 0},
        {"image_format": "GIF"},
        {"image_format": "TIFF", "compression": "jpeg"},
    )
    chosen = options[number % len(options)]
    return {f"photo {number} as {chosen['image_format']}": encoded(image, **chosen)}
