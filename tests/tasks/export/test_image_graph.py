"""Decoding and resizing inside a SavedModel, against what training does."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.export import image_graph
from tasks.export.formats import Exporter
from tasks.export.nasty_images import HUGE, TINY, nasty_images
from tasks.export.replay import Photos, open_export
from tasks.images import EXIF_ORIENTATION, decode_upright, resize_square
from tasks.params import ImageParams
from tasks.quiet_tf import keras, tf

UNREAD = {"BMP, palette", "TIFF"}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Waves in three colours, brighter to one corner, so that every turn shows."""
    y, x = np.mgrid[0:211, 0:301]
    pixels = np.stack([127 + 100 * np.sin(x / 9 + y / 5), x * 255 / 301, y * 255 / 211], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def nasty(photo: Image.Image) -> dict[str, bytes]:
    return nasty_images([photo])


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
    encoded = io.BytesIO()
    image.save(encoded, file_format, **options)
    return encoded.getvalue()


decode = tf.function(image_graph.decode_upright, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def test_nasty_images_are_what_they_say(nasty: dict[str, bytes], photo: Image.Image) -> None:
    assert nasty == nasty_images([photo])
    upright = {kind: decode_upright(content) for kind, content in nasty.items()}
    assert {upright[f"JPEG, EXIF turn {turn}"].size for turn in range(1, 5)} == {photo.size}
    assert {upright[f"JPEG, EXIF turn {turn}"].size for turn in range(5, 9)} == {photo.size[::-1]}
    assert (upright["PNG, tiny"].size, upright["JPEG, huge"].size) == (TINY, HUGE)
    stored = {kind: Image.open(io.BytesIO(content)) for kind, content in nasty.items()}
    assert {image.format for image in stored.values()} == {"JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"}
    assert {"L", "CMYK", "I;16", "1", "P", "RGBA", "RGB"} <= {image.mode for image in stored.values()}


def test_every_pixel_of_every_kind_is_that_of_training(nasty: dict[str, bytes]) -> None:
    for kind, content in nasty.items():
        if kind not in UNREAD:
            assert np.array_equal(decode(content).numpy(), np.asarray(decode_upright(content))), kind


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_of_few_bits(photo: Image.Image, bits: int) -> None:
    gray, palette = photo.convert("L"), photo.quantize(2**bits - 1)
    pngs = [encode(gray, "PNG", bits=bits), encode(palette, "PNG"), encode(palette, "PNG", transparency=0)]
    for content in pngs:
        assert np.array_equal(decode(content).numpy(), np.asarray(decode_upright(content)))


@pytest.mark.parametrize("kind", sorted(UNREAD))
def test_what_it_does_not_read(nasty: dict[str, bytes], kind: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(nasty[kind])


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"hi"])
def test_damage_is_an_error_and_no_crash(content: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)


def test_orientations(photo: Image.Image) -> None:
    def orientation(exif: bytes) -> int:
        jpeg = encode(photo, "JPEG", comment=b"before it", exif=exif)
        return int(image_graph.exif_orientation(tf.constant(jpeg)))

    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    little = exif.tobytes()
    big = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x02\0\0\0\x04abc\0\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0"
    assert orientation(little) == 6
    assert orientation(big) == 8
    assert orientation(little.replace(b"\x06\0", b"\x09\0")) == 1  # no such turn
    assert orientation(b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f") == 1  # leads out of the file
    assert int(image_graph.exif_orientation(tf.constant(encode(photo, "JPEG")))) == 1


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_resized_pixels_are_those_of_training(resize: Any) -> None:  # noqa: ANN401 - a literal
    draw = np.random.default_rng(0)
    spec = tf.TensorSpec((None, None, 3), tf.uint8)
    square = tf.function(lambda image: image_graph.resize_square(image, 128, resize), input_signature=[spec])
    sizes = [(375, 500), (500, 375), (60, 97), (8, 8), (30, 1000), (1000, 30), *draw.integers(8, 600, (40, 2)).tolist()]
    for size in sizes:
        pixels = draw.integers(0, 256, (*size, 3), np.uint8)  # noise shows every difference
        assert np.array_equal(square(pixels), resize_square(Image.fromarray(pixels), 128, resize)), size


def test_a_saved_model_of_another_size_takes_bytes(photo: Image.Image, tmp_path: Path) -> None:
    image = keras.Input((128, 128, 3), name="image")
    left = keras.layers.Cropping2D(((0, 0), (0, 64)))(image)  # what is on its left half
    dense = keras.layers.Dense(3, "softmax")
    network = keras.Model(image, dense(keras.layers.GlobalAveragePooling2D()(left)))
    dense.set_weights([0.05 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    how = ImageParams(size_px=128, resize="pad")
    Exporter(tmp_path / "none", network, how, tmp_path).write_saved_model(from_bytes=True)
    contents = [encode(photo.rotate(angle, expand=True), "JPEG") for angle in (0, 90, 180)]
    squares = np.stack([resize_square(decode_upright(content), 128, "pad") for content in contents])
    expected = network.predict_on_batch(squares)
    assert np.ptp(expected, axis=0).min() > 0.01
    replay = open_export("saved_model_bytes", tmp_path / "saved_model")
    np.testing.assert_allclose(replay(Photos(contents, squares)), expected, atol=1e-6)
    assert np.isnan(replay(Photos([b"no image", contents[0]], squares))).all(axis=1).tolist() == [True, False]
    signature = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["from_bytes"]
    np.testing.assert_allclose(signature(tf.constant(contents))["probabilities"], expected, atol=1e-6)
