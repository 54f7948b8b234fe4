"""One image: from encoded bytes to an upright RGB picture, and a verdict on whether it is fit to train on.

`decode_upright` is the only way in this project from a file's bytes to pixels, so that validation, preprocessing and
prediction see the same picture. The format is read from the bytes, whatever the file's name says: JPEG, PNG, BMP, GIF,
WebP and TIFF.
"""

import io
import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")  # fewer decoders, fewer ways in for hostile bytes
SIGNATURES = {
    "JPEG": rb"\xff\xd8",
    "PNG": rb"\x89PNG",
    "BMP": rb"BM.{4}\0{4}",
    "GIF": rb"GIF8[79]a",
    "WebP": rb"RIFF.{4}WEBP",
    "TIFF": rb"II\*\0|MM\0\*",
}
# A scan of ten bytes may go over a whole picture, so that 0.3 MB take a decoder half a minute. Progressive photos have
# some ten; a picture of `max_pixels` may have twenty, a smaller one as many more.
MAX_SCANS, SCAN_MARKER, SCAN_BYTES = 20, b"\xff\xda", 10
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
OUT_OF_MEMORY = "out_of_memory"  # the reason of what says little about the file unless all it may take was there
EXIF_ORIENTATION = 0x0112
TO_UPRIGHT = {  # EXIF 2.32, tag 0x0112: what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UNSCALED = ("I", "F")  # whole and broken numbers of any range
TIFF_BITS = 0x0102  # TIFF 6.0, BitsPerSample
HASH_SIDE, HASH_INPUT_SIDE = 8, 32
# libjpeg decodes a picture of half, a quarter or an eighth of the size by leaving out high frequencies, and gray by
# leaving out colour: in two thirds of the time, though it still reads every byte. Twice the hash's input is left.
GRAY_SIDE = 2 * HASH_INPUT_SIDE

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked from the header, before anything is allocated


class UndecodableError(Exception):
    """Bytes that do not become a picture: `reason` is the quarantine reason, the message what was seen."""

    def __init__(self, reason: str, evidence: str) -> None:
        super().__init__(reason, evidence)  # both, so that it can be sent from a worker process
        self.reason = reason
        self.evidence = evidence

    def __str__(self) -> str:
        return self.evidence


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of one candidate file from its bytes alone.

    `reason` is empty for a fit image. `width`, `height` and `mode` are as stored, before the EXIF orientation; they
    are 0 and empty when the header could not be read. `perceptual_hash` is 16 hex digits, or empty when undecodable.
    """

    reason: str = ""
    evidence: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    bytes: int = 0
    perceptual_hash: str = ""
    jfif: bool = False


def judge(content: bytes, *, min_side_px: int, max_pixels: int, blank_max_stddev: float) -> Verdict:
    """Decode an image once and say what, if anything, makes it unfit.

    Args:
        content: The file's bytes.
        min_side_px: A shorter side is `too_small`.
        max_pixels: More pixels are `too_large`, and many scans over as many are `too_slow`: both without decoding.
        blank_max_stddev: An image whose gray levels (0-255) deviate no more than this is `blank`.
    """
    jfif = has_jfif(content)
    try:
        image = _open(content)
    except UndecodableError as error:
        return Verdict(reason=error.reason, evidence=str(error), bytes=len(content), jfif=jfif)
    width, height = image.size
    stored_format, mode = image.format or "", image.mode
    reason, evidence, perceptual_hash = _judge_pixels(image, content, min_side_px, max_pixels, blank_max_stddev)
    return Verdict(
        reason=reason,
        evidence=evidence,
        width=width,
        height=height,
        format=stored_format,
        mode=mode,
        bytes=len(content),
        perceptual_hash=perceptual_hash,
        jfif=jfif,
    )


def has_jfif(content: bytes) -> bool:
    """Say whether TFDS's cats_vs_dogs and Keras's image_classification_from_scratch would keep a file."""
    return b"JFIF" in content[:10]


def decode_upright(content: bytes, *, max_pixels: int | None = None) -> Image.Image:
    """Decode to RGB, turned as its EXIF orientation says.

    Transparent pixels are shown over white, as a browser shows them: what lies under them is often garbage. Gray levels
    of 12 or 16 bits are scaled to 8; signed ones, those of 32 bits and fractions are `undecodable`: nobody says which
    are white. Of several frames the first counts.

    Args:
        content: The file's bytes.
        max_pixels: More pixels are `too_large`, and many scans over as many are `too_slow`: both without decoding. None
            is any number.

    Raises:
        UndecodableError: With what the decoder said, or how large the picture is.
    """
    image = _open(content)
    if max_pixels is not None:
        _check_work(image, content, max_pixels)
    return _upright(image, "RGB")


def resize_square(image: Image.Image, size_px: int, how: Literal["squash", "crop", "pad"]) -> npt.NDArray[np.uint8]:
    """Resize an RGB image to uint8 [size_px, size_px, 3], bilinear with antialiasing.

    Args:
        image: Of any width and height.
        size_px: The side of the square.
        how: squash: the whole picture, its aspect given up; crop: the largest square in its middle; pad: the whole
            picture in its aspect, between black bars.
    """
    size, bilinear = (size_px, size_px), Image.Resampling.BILINEAR
    if how == "crop":
        return np.asarray(ImageOps.fit(image, size, bilinear))
    if how == "pad":
        return np.asarray(_pad(image, size_px))
    return np.asarray(image.resize(size, bilinear))


def _pad(image: Image.Image, size_px: int) -> Image.Image:
    """Fit a picture into a square as `ImageOps.pad` does, which leaves nothing of one that is very long."""
    longest = max(image.size)
    width, height = (max(1, round(side / longest * size_px)) for side in image.size)
    padded = Image.new("RGB", (size_px, size_px), BLACK)
    fitted = image.resize((width, height), Image.Resampling.BILINEAR)
    padded.paste(fitted, (round((size_px - width) / 2), round((size_px - height) / 2)))
    return padded


def perceptual_hash_of(gray: Image.Image) -> str:
    """Return the 64-bit pHash of a grayscale image as 16 hex digits.

    The signs, about their median, of the lowest 8x8 frequencies of the 32x32 thumbnail's DCT: Zauner, "Implementation
    and Benchmarking of Perceptual Image Hash Functions" (2010), in the bit order of the imagehash library.
    """
    size, lanczos = (HASH_INPUT_SIDE, HASH_INPUT_SIDE), Image.Resampling.LANCZOS
    # The gap: a large picture is first averaged down to no less than twice that size.
    thumbnail = np.asarray(gray.resize(size, lanczos, reducing_gap=2.0), np.float64)
    basis = _dct_basis()
    low_frequencies = basis @ thumbnail @ basis.T  # [8, 8]
    bits = low_frequencies > np.median(low_frequencies)
    return np.packbits(bits).tobytes().hex()


@cache
def _dct_basis() -> npt.NDArray[np.float64]:
    """The first 8 rows of the 32-point DCT-II, unnormalised: float64 [8, 32]."""
    frequency, position = np.arange(HASH_SIDE)[:, None], np.arange(HASH_INPUT_SIDE)[None, :]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * HASH_INPUT_SIDE))


def _judge_pixels(
    image: Image.Image, content: bytes, min_side_px: int, max_pixels: int, blank_max_stddev: float
) -> tuple[str, str, str]:
    """Return reason, evidence and perceptual hash of an image whose header was read."""
    width, height = image.size
    try:
        _check_work(image, content, max_pixels)
        frames = _frames(image)
        image.draft("L", (GRAY_SIDE, GRAY_SIDE))
        gray = _upright(image, "L")
    except UndecodableError as error:
        return error.reason, str(error), ""
    perceptual_hash = perceptual_hash_of(gray)
    if frames > 1:
        return "animated", "more than one frame", perceptual_hash
    if min(width, height) < min_side_px:
        return "too_small", f"{width} x {height} pixels", perceptual_hash
    stddev = _stddev(gray)
    if stddev <= blank_max_stddev:  # which fine detail alone may exceed: all of it decides
        stddev = _stddev(decode_upright(content).convert("L"))
    if stddev <= blank_max_stddev:
        return "blank", f"gray levels have a standard deviation of {stddev:.2f}", perceptual_hash
    return "", "", perceptual_hash


def _stddev(gray: Image.Image) -> float:
    """Return the standard deviation of the gray levels, by their counts: numpy would take eight times the picture."""
    counts, levels = np.array(gray.histogram(), np.float64), np.arange(256)
    mean = counts @ levels / counts.sum()
    return float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum()))


def _open(content: bytes) -> Image.Image:
    """Read the header."""
    if not content:
        raise UndecodableError("empty", "0 bytes")
    try:
        with warnings.catch_warnings(action="ignore"):
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise _unidentified(content) from None
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises, it is the file's
        raise _undecodable(error) from None


def _check_work(image: Image.Image, content: bytes, max_pixels: int) -> None:
    """Look at how much there is to decode. In a JPEG, the marker of a scan stands for nothing else but in metadata."""
    width, height = image.size
    pixels, most = width * height, MAX_SCANS * max_pixels
    if pixels > max_pixels:
        raise UndecodableError("too_large", f"header says {width} x {height} pixels, {max_pixels} are allowed")
    if image.format not in ("JPEG", "MPO") or len(content) // SCAN_BYTES * pixels <= most:
        return
    scans = content.count(SCAN_MARKER)
    if scans * pixels > most:
        raise UndecodableError("too_slow", f"{scans} scans of {width} x {height} pixels, {most // pixels} are allowed")


def _frames(image: Image.Image) -> int:
    """1, or 2 for any more; the second picture inside a camera's JPEG (MPO) is no animation."""
    if image.format == "MPO":
        return 1
    try:
        return 2 if getattr(image, "is_animated", False) else 1
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises, it is the file's
        raise _undecodable(error) from None


def _upright(image: Image.Image, mode: Literal["RGB", "L"]) -> Image.Image:
    """Decode the pixels; the image is no more then, so that of a large picture no more than two copies are held."""
    if image.mode in UNSCALED:
        raise UndecodableError("undecodable", f"gray levels of Pillow's mode {image.mode}: only 1 to 16 bits are read")
    try:
        with warnings.catch_warnings(action="ignore"):
            image.load()
            opaque = _opaque(image)
            turn = _turn(image)
            converted = _convert(opaque if opaque.mode in ("L", "RGB") else opaque.convert("RGB"), mode)
            if converted is not image:
                image.close()
            converted.info = {}  # pixels alone: a comment would go on into every thumbnail
            return converted if turn is None else converted.transpose(turn)
    except Exception as error:  # noqa: BLE001 - as above
        raise _undecodable(error) from None


def _convert(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _opaque(image: Image.Image) -> Image.Image:
    """Scale gray of more than 8 bits to 8, and lay what is transparent over white."""
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        bits = image.tag_v2.get(TIFF_BITS, (16,))[0] if isinstance(image, TiffImageFile) else 16
        image = Image.fromarray((np.asarray(image) >> bits - 8).astype(np.uint8))
    if image.has_transparency_data:
        rgba = _convert(image, "RGBA")
        rgb = Image.new("RGB", rgba.size, WHITE)
        rgb.paste(rgba, mask=rgba.getchannel("A"))
        return rgb
    return image


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TO_UPRIGHT.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        _raise_if_machines(error)
        return None  # a damaged EXIF block is no damage to the picture


def _unidentified(content: bytes) -> UndecodableError:
    for name, signature in SIGNATURES.items():
        if re.match(signature, content, re.DOTALL):
            return UndecodableError("undecodable", f"Pillow: begins like {name}, but its header cannot be read")
    return UndecodableError("not_an_image", f"Pillow: none of {', '.join(FORMATS)}; begins with {content[:12]!r}")


def _undecodable(error: BaseException) -> UndecodableError:
    _raise_if_machines(error)
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in message.lower():
        return UndecodableError(OUT_OF_MEMORY, f"Pillow: {message}")
    ends_early = isinstance(error, EOFError) or "truncated" in message.lower()
    return UndecodableError("truncated" if ends_early else "undecodable", f"Pillow: {message}")


def _raise_if_machines(error: BaseException) -> None:
    """Raise an error again that is not about the bytes: a sound photo must not be called damaged for it.

    Nothing is opened here but Pillow's modules, so that what has the system's number is about those.
    """
    if isinstance(error, OSError) and error.errno is not None:
        raise error
