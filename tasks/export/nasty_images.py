"""Images of the kinds that exports are known to get wrong, made of a few ordinary photos.

Every format and mode that validation accepts, all EXIF turns, very small, very large and very long pictures.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from tasks.images import EXIF_ORIENTATION

TINY, HUGE, LONG = (8, 8), (6000, 4000), (3000, 40)  # px
COLOURS = 32  # of the palette


def nasty_images(photos: Sequence[Image.Image]) -> dict[str, bytes]:
    """Return encoded images by what is nasty about them, the same bytes for the same photos.

    Args:
        photos: Upright RGB pictures, one or more; the nasty images take turns in using them.
    """
    makers: dict[str, Callable[[Image.Image], bytes]] = {
        **{f"JPEG, EXIF turn {turn}": _turned(turn) for turn in range(1, 9)},
        "JPEG, progressive": lambda photo: _encode(photo, "JPEG", progressive=True),
        "JPEG, gray": lambda photo: _encode(photo.convert("L"), "JPEG"),
        "JPEG, CMYK": lambda photo: _encode(photo.convert("CMYK"), "JPEG"),
        "JPEG, huge": lambda photo: _encode(photo.resize(HUGE, Image.Resampling.NEAREST), "JPEG"),
        "PNG, gray of 16 bits": lambda photo: _encode(_gray_of_16_bits(photo), "PNG"),
        "PNG, black and white": lambda photo: _encode(photo.convert("1"), "PNG"),
        "PNG, transparent": lambda photo: _encode(_transparent(photo), "PNG"),
        "PNG, palette": lambda photo: _encode(photo.quantize(COLOURS), "PNG"),
        "PNG, tiny": lambda photo: _encode(photo.resize(TINY), "PNG"),
        "PNG, long": lambda photo: _encode(photo.resize(LONG), "PNG"),
        "BMP": lambda photo: _encode(photo, "BMP"),
        "BMP, palette": lambda photo: _encode(photo.quantize(COLOURS), "BMP"),
        "GIF": lambda photo: _encode(photo, "GIF"),
        "WebP": lambda photo: _encode(photo, "WEBP"),
        "WebP, transparent": lambda photo: _encode(_transparent(photo), "WEBP", lossless=True),
        "TIFF": lambda photo: _encode(photo, "TIFF"),
    }
    return {kind: make(photos[at % len(photos)]) for at, (kind, make) in enumerate(makers.items())}


def _encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, file_format, **options)
    return encoded.getvalue()


def _turned(turn: int) -> Callable[[Image.Image], bytes]:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = turn
    return lambda photo: _encode(photo, "JPEG", exif=exif)


def _gray_of_16_bits(photo: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)


def _transparent(photo: Image.Image) -> Image.Image:
    """Fade the picture out from left to right."""
    transparent = photo.copy()
    transparent.putalpha(Image.linear_gradient("L").rotate(90).resize(photo.size))
    return transparent
