"""Decoding and judging one image."""

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from tasks.images import UndecodableError, Verdict, decode_upright, judge, resize_square
from tests.faults.fuzz_seeds import many_scans

WIDTH, HEIGHT = 80, 48
ORIENTATION = 0x0112


def picture(mode: str = "RGB") -> Image.Image:
    """A picture without symmetry: smooth colours, a red corner at the top left."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([2 * x, 4 * y, x + y], axis=-1).astype(np.uint8)
    pixels[:16, :16] = (255, 0, 0)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def judged(content: bytes) -> Verdict:
    return judge(content, min_side_px=32, max_pixels=1_000_000, blank_max_stddev=2.0)


def noise(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_every_format_is_fine_whatever_its_name(image_format: str) -> None:
    verdict = judged(encoded(picture(), image_format))
    assert (verdict.reason, verdict.evidence) == ("", "")
    assert (verdict.format, verdict.width, verdict.height) == (image_format, WIDTH, HEIGHT)
    assert len(verdict.perceptual_hash) == 16


@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr"])
def test_every_jpeg_mode_becomes_rgb(mode: str) -> None:
    content = encoded(picture(mode), "JPEG", quality=95)
    assert (judged(content).reason, judged(content).mode) == ("", "RGB" if mode == "YCbCr" else mode)
    expected = np.asarray(picture("L").convert("RGB") if mode == "L" else picture(), np.int16)
    assert np.abs(np.asarray(decode_upright(content), np.int16) - expected).mean() < 6


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_every_png_mode_becomes_rgb(mode: str) -> None:
    assert decode_upright(encoded(picture(mode), "PNG")).mode == "RGB"


def test_transparent_pixels_are_shown_over_white() -> None:
    image = picture("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 40, axis=1).repeat(HEIGHT, axis=0)))
    pixels = np.asarray(decode_upright(encoded(image, "PNG")))
    assert (pixels[:, :40] == 255).all()
    assert (pixels[:, 40:] == np.asarray(picture())[:, 40:]).all()


def test_a_transparent_palette_colour_is_shown_over_white() -> None:
    image = Image.new("P", (40, 40), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert decode_upright(encoded(image, "GIF", transparency=1)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grayscale_is_scaled_not_clipped(image_format: str) -> None:
    levels = np.linspace(0, 65535, 64, dtype=np.uint16)[None, :].repeat(64, axis=0)
    pixels = np.asarray(decode_upright(encoded(Image.fromarray(levels), image_format)))
    assert pixels[0, 0, 0] == 0
    assert pixels[0, 32, 0] == 65535 * 32 // 63 >> 8
    assert pixels[0, 63, 0] == 255


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "red_corner"),
    [(1, "tl"), (2, "tr"), (3, "br"), (4, "bl"), (5, "tl"), (6, "tr"), (7, "br"), (8, "bl")],
)
def test_the_exif_orientation_is_undone(image_format: str, orientation: int, red_corner: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = decode_upright(encoded(picture(), image_format, exif=exif))
    assert image.size == ((WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH))
    corner = (4 if "l" in red_corner else image.width - 5, 4 if "t" in red_corner else image.height - 5)
    red, green, _ = np.asarray(image)[corner[1], corner[0]]
    assert red > 200
    assert green < 60


def test_width_and_height_are_as_stored() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    verdict = judged(encoded(picture(), "JPEG", exif=exif))
    assert (verdict.width, verdict.height) == (WIDTH, HEIGHT)


def test_a_damaged_exif_block_is_no_damage_to_the_picture() -> None:
    exif = b"Exif\0\0" + b"MM\0*" + b"\xff" * 20
    content = encoded(picture(), "JPEG", exif=exif)
    assert judged(content).reason == ""
    assert decode_upright(content).size == (WIDTH, HEIGHT)


def test_empty() -> None:
    assert judged(b"") == Verdict(reason="empty", evidence="0 bytes")


def test_not_an_image() -> None:
    verdict = judged(b"<!DOCTYPE html><title>404</title>")
    assert verdict.reason == "not_an_image"
    assert "b'<!DOCTYPE ht'" in verdict.evidence


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_truncated(image_format: str) -> None:
    content = encoded(Image.fromarray(noise(0)), image_format)
    verdict = judged(content[: len(content) // 2])
    assert verdict.reason == "truncated"
    assert verdict.evidence.startswith("Pillow: ")


@pytest.mark.parametrize("content", [b"RIFF\x10\0\0\0WAVEfmt ", b"BMW drives", b"\0\0\0 ftypavif"])
def test_other_files_are_not_taken_for_damaged_images(content: bytes) -> None:
    assert judged(content).reason == "not_an_image"


def test_undecodable_header() -> None:
    verdict = judged(b"\xff\xd8\xff" + bytes(100))
    assert (verdict.reason, verdict.evidence) == (
        "undecodable",
        "Pillow: begins like JPEG, but its header cannot be read",
    )


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


def test_too_large_is_refused_from_the_header() -> None:
    verdict = judged(png_header(2_000_000_000, 2_000_000_000))  # decoding would need 12 exabytes
    assert verdict.reason == "too_large"
    assert "2000000000 x 2000000000" in verdict.evidence
    assert verdict.perceptual_hash == ""


def test_too_many_scans_are_refused_undecoded_and_a_smaller_picture_may_have_more() -> None:
    most = 200**2
    for side_px, allowed in ((200, 20), (100, 80)):
        gradient = Image.linear_gradient("L").resize((side_px, side_px))
        assert decode_upright(many_scans(gradient, allowed), max_pixels=most).size == gradient.size
        verdict = judge(many_scans(gradient, allowed), min_side_px=32, max_pixels=most, blank_max_stddev=2.0)
        assert verdict.reason == ""
        verdict = judge(many_scans(gradient, allowed + 1), min_side_px=32, max_pixels=most, blank_max_stddev=2.0)
        assert verdict.reason == "too_slow"
        assert verdict.evidence == f"{allowed + 1} scans of {side_px} x {side_px} pixels, {allowed} are allowed"
        with pytest.raises(UndecodableError, match=verdict.evidence):
            decode_upright(many_scans(gradient, allowed + 1), max_pixels=most)


def test_too_small_is_the_shorter_side() -> None:
    assert judged(encoded(picture().resize((100, 31)), "PNG")).reason == "too_small"
    assert judged(encoded(picture().resize((100, 32)), "PNG")).reason == ""


def test_blank() -> None:
    assert judged(encoded(Image.new("RGB", (64, 64), "navy"), "JPEG")).reason == "blank"
    invisible = picture("RGBA")
    invisible.putalpha(0)
    assert judged(encoded(invisible, "PNG")).reason == "blank"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_fine_detail_alone_is_not_blank(image_format: str) -> None:
    checkers = Image.fromarray(np.indices((512, 512)).sum(axis=0).astype(np.uint8) % 2 * 40 + 100)
    assert judged(encoded(checkers, image_format)).reason == ""
    assert np.asarray(checkers.resize((64, 64), Image.Resampling.BOX)).std() < 1  # as the hash sees it


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animated(image_format: str) -> None:
    frames = encoded(picture(), image_format, save_all=True, append_images=[picture().rotate(90)])
    assert judged(frames).reason == "animated"


def test_the_second_picture_in_a_camera_jpeg_is_no_animation() -> None:
    content = encoded(picture(), "MPO", save_all=True, append_images=[picture().resize((32, 32))])
    verdict = judged(content)
    assert (verdict.reason, verdict.format) == ("", "MPO")


def test_jfif_is_the_header_rule_of_tfds() -> None:
    assert judged(encoded(picture(), "JPEG")).jfif
    assert not judged(encoded(picture(), "PNG")).jfif


def test_near_duplicates_have_near_hashes() -> None:
    def distance(left: bytes, right: bytes) -> int:
        return (int(judged(left).perceptual_hash, 16) ^ int(judged(right).perceptual_hash, 16)).bit_count()

    image = Image.fromarray(noise(1)[:6, :6]).resize((300, 200), Image.Resampling.BICUBIC)
    original = encoded(image, "PNG")
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    turned = encoded(image.transpose(Image.Transpose.ROTATE_270), "PNG", exif=exif)
    assert distance(original, encoded(image.resize((150, 100)), "JPEG", quality=40)) <= 4
    assert distance(original, turned) <= 4
    assert distance(original, encoded(Image.fromarray(noise(2)), "PNG")) > 12


def test_damaged_files_get_a_verdict_never_an_exception() -> None:
    random_ = random.Random(0)  # noqa: S311 - reproducible, not secret
    sources = [encoded(picture(mode), "TIFF") for mode in ("RGB", "L", "1")]
    sources += [encoded(picture(), image_format) for image_format in ("JPEG", "PNG", "BMP", "GIF", "WEBP")]
    reasons = set()
    for _ in range(3000):
        content = bytearray(random_.choice(sources))
        for _ in range(random_.choice([1, 2, 8])):
            content[random_.randrange(min(len(content), 300))] = random_.choice(
                [0, 1, 127, 255, random_.randrange(256)]
            )
        verdict = judged(bytes(content))
        reasons.add(verdict.reason)
        assert " at 0x" not in verdict.evidence, "an address would differ from run to run"
    assert {"", "undecodable", "truncated", "not_an_image"} <= reasons


FULL_UP = "open_files = [open('/dev/null') for _ in range(8)]; resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))"


@pytest.mark.parametrize(
    ("lacking", "side_px", "raised"),
    [
        (
            "resource.setrlimit(resource.RLIMIT_AS, (400_000_000, 400_000_000))",
            8_000,
            "out_of_memory",
        ),  # which validate looks into: tasks/limits.py
        (FULL_UP, 50, "OSError"),
    ],
)
def test_a_sound_photo_is_not_called_damaged_where_memory_or_files_are_short(
    lacking: str, side_px: int, raised: str
) -> None:
    content = encoded(Image.new("1", (side_px, side_px)), "BMP")
    code = f"""
import resource, sys
from tasks.images import judge
content = sys.stdin.buffer.read()
{lacking}
try:
    print(judge(content, min_side_px=32, max_pixels=64_000_000, blank_max_stddev=2.0).reason)
except Exception as error:
    print(type(error).__name__)
"""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], input=content, env=env, capture_output=True, check=True)
    assert done.stdout.decode().strip() == raised


def test_decode_upright_says_why_it_cannot() -> None:
    with pytest.raises(UndecodableError, match="0 bytes") as caught:
        decode_upright(b"")
    assert caught.value.reason == "empty"


def test_decode_upright_takes_as_many_pixels_as_are_allowed() -> None:
    content = encoded(picture(), "PNG")
    assert decode_upright(content, max_pixels=WIDTH * HEIGHT).size == (WIDTH, HEIGHT)
    with pytest.raises(UndecodableError, match=f"header says {WIDTH} x {HEIGHT} pixels, 9 are allowed") as caught:
        decode_upright(content, max_pixels=9)
    assert caught.value.reason == "too_large"
    with pytest.raises(UndecodableError, match="2000000000 x 2000000000 pixels"):  # 12 exabytes
        decode_upright(png_header(2_000_000_000, 2_000_000_000), max_pixels=10**9)


def test_resize_square_squashes_with_antialiasing() -> None:
    stripes = np.zeros((60, 120, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_square(Image.fromarray(stripes), 10, "squash")
    assert small.shape == (10, 10, 3)
    assert small.dtype == np.uint8
    assert np.abs(small.astype(int) - 127).max() <= 12


RESIZES: tuple[Literal["squash", "crop", "pad"], ...] = ("squash", "crop", "pad")


@pytest.mark.parametrize("upright", [False, True])
def test_resize_square_in_each_way(upright: bool) -> None:
    """Red, green and blue thirds side by side: what becomes of each shows where every column went."""
    thirds = np.zeros((40, 120, 3), np.uint8)
    for third in range(3):
        thirds[:, 40 * third : 40 * (third + 1), third] = 200
    if upright:
        thirds = thirds.transpose(1, 0, 2)
    image = Image.fromarray(thirds)
    squash, crop, pad = (resize_square(image, 30, how).astype(int) for how in RESIZES)
    if upright:
        squash, crop, pad = (square.transpose(1, 0, 2) for square in (squash, crop, pad))
    assert squash.shape == crop.shape == pad.shape == (30, 30, 3)
    colours = (200 * np.eye(3, dtype=int)).tolist()
    assert [squash[15, column].tolist() for column in (4, 15, 25)] == colours
    assert [squash[row, 4].tolist() for row in (0, 29)] == [colours[0]] * 2
    assert (crop[:, 2:-2] == colours[1]).all()  # the middle third alone, its edges blurred at most
    assert [pad[15, column].tolist() for column in (4, 15, 25)] == colours
    assert (pad[:9] == 0).all()
    assert (pad[21:] == 0).all()
    assert (pad[11:19, 2:8] == colours[0]).all()


def test_all_resizes_agree_on_a_square_picture() -> None:
    image = Image.fromarray(noise(1)[:, :HEIGHT])
    squash, crop, pad = (resize_square(image, 20, how) for how in RESIZES)
    assert np.array_equal(squash, crop)
    assert np.array_equal(squash, pad)


@pytest.mark.parametrize("how", RESIZES)
@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (2, 2000)])
def test_resize_square_of_extreme_sizes(size: tuple[int, int], how: Literal["squash", "crop", "pad"]) -> None:
    resized = resize_square(Image.new("RGB", size, (9, 9, 9)), 96, how)
    assert resized.shape == (96, 96, 3)
    assert resized.max() == 9, "something of it is left"


@pytest.mark.parametrize("size", [(120, 40), (41, 120), (97, 96), (96, 97), (3, 5), (1000, 6)])
def test_pad_is_pillows_where_that_leaves_something(size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(2)).resize(size)
    expected = ImageOps.pad(image, (96, 96), Image.Resampling.BILINEAR, color=(0, 0, 0))
    assert np.array_equal(resize_square(image, 96, "pad"), np.asarray(expected))


def tiff(bits: int, sample_format: int, content: bytes) -> bytes:
    """A gray picture of 64 x 64 pixels: TIFF 6.0, whose numbers are unsigned (1), signed (2) or fractions (3)."""
    fields = [(256, 64), (257, 64), (258, bits), (259, 1), (262, 1), (273, 134), (277, 1), (278, 64)]
    fields += [(279, len(content)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag == 279 else 3, 1, value) for tag, value in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + content


@pytest.mark.parametrize("bits", [12, 16])
def test_deep_gray_levels_are_scaled(bits: int) -> None:
    ramp = np.linspace(0, 2**bits - 1, 64 * 64).astype(np.uint16)
    packed = ramp.astype("<u2").tobytes() if bits == 16 else twelve_bits(ramp)
    shown = np.asarray(decode_upright(tiff(bits, 1, packed)))[..., 0].astype(int).ravel()
    assert np.abs(shown - np.linspace(0, 255, 64 * 64)).max() <= 1


def twelve_bits(levels: np.ndarray) -> bytes:
    """Two levels in three bytes, the highest bits first."""
    first, second = levels[::2], levels[1::2]
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()


@pytest.mark.parametrize(("bits", "sample_format", "dtype"), [(16, 2, "<i2"), (32, 1, "<u4"), (32, 3, "<f4")])
def test_gray_levels_of_no_known_range_are_refused(bits: int, sample_format: int, dtype: str) -> None:
    content = tiff(bits, sample_format, np.linspace(0, 1000, 64 * 64).astype(dtype).tobytes())
    with pytest.raises(UndecodableError, match=r"gray levels of Pillow's mode [IF]: only 1 to 16 bits are read"):
        decode_upright(content)
    assert judged(content).reason == "undecodable"
