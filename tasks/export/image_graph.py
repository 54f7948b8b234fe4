"""From encoded image bytes to the square that the classifier takes, in TensorFlow operations alone.

This is what a SavedModel carries inside, so that it can be given a photo's bytes where there is no Python. Of what it
reads it makes the same pixels as `tasks.images`.

Read are JPEG (gray, CMYK and progressive included, turned as its EXIF block says), PNG (16 bits and transparency
included), WebP, GIF (the first frame; transparent pixels are black) and BMP (24 and 32 bits). TIFF is not, nor a BMP
with a palette, nor a turn that stands elsewhere than in a JPEG's EXIF block.
"""

from typing import Literal

import PIL

from tasks.images import EXIF_ORIENTATION
from tasks.quiet_tf import Tensor, tf

Resize = Literal["squash", "crop", "pad"]

# An EXIF block has at most 64 KB and stands among the first segments of a JPEG.
HEADER_BYTES = 2**18
JPEG, PNG, GIF, BMP, RIFF = b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF"
APP1, COMMENT = 0xE1, 0xFE  # JPEG: ISO/IEC 10918-1, table B.1; APP0 to APP15 are 0xE0 to 0xEF
EXIF_SIGNATURE = b"Exif\0\0"
LITTLE_ENDIAN = ord("I")  # TIFF 6.0, section 2
IFD_ENTRY_BYTES = 12
# From Pillow 13 on, where the height loses more than twice as many pixels. Found by trying; the tests hold it so.
HEIGHT_CAN_BE_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
WEIGHT_BITS = 22  # of the weights when resizing, in Pillow's Resample.c: 32 less 8 of the pixel and 2 to spare


def squares(contents: Tensor, size_px: int, resize: Resize) -> Tensor:
    """Decode, turn and resize encoded images.

    Args:
        contents: Strings [batch], each an image's bytes.
        size_px: The side of the square.
        resize: As in `tasks.images.resize_square`.

    Returns:
        float32 [batch, size_px, size_px, 3], whole numbers of 0..255.

    Raises:
        tf.errors.InvalidArgumentError: When it runs and one of them cannot be decoded.
    """

    def square(content: Tensor) -> Tensor:
        return tf.ensure_shape(resize_square(decode_upright(content), size_px, resize), (size_px, size_px, 3))

    return tf.cast(tf.map_fn(square, contents, fn_output_signature=tf.uint8), tf.float32)


def decode_upright(content: Tensor) -> Tensor:
    """Decode one image to RGB, uint8 [height, width, 3], turned as a JPEG's EXIF block says; transparent is white."""
    is_jpeg = tf.strings.substr(content, 0, 2) == JPEG
    return tf.cond(is_jpeg, lambda: _turn(_decode_jpeg(content), exif_orientation(content)), lambda: _decode(content))


def resize_square(image: Tensor, size_px: int, resize: Resize) -> Tensor:
    """Resize uint8 [height, width, 3] to uint8 [size_px, size_px, 3], as `tasks.images.resize_square` does."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    if resize == "crop":  # PIL.ImageOps.fit
        side = tf.minimum(height, width)
        return _resample(image, ((height - side) / 2, (width - side) / 2), (side, side), (size_px, size_px))
    if resize == "squash":
        return _resample(image, (0, 0), (height, width), (size_px, size_px))
    # PIL.ImageOps.pad: the longer side fills the square; halves are rounded to even, as Python does.
    sides = tf.cast(tf.stack([height, width]), tf.float64)
    fitted = tf.maximum(tf.cast(tf.round(sides / tf.reduce_max(sides) * size_px), tf.int32), 1)
    before = tf.cast(tf.round((size_px - fitted) / 2), tf.int32)
    resized = _resample(image, (0, 0), (height, width), (fitted[0], fitted[1]))
    return tf.image.pad_to_bounding_box(resized, before[0], before[1], size_px, size_px)


def exif_orientation(content: Tensor) -> Tensor:
    """Return the orientation (EXIF 2.32, tag 0x0112) that a JPEG's EXIF block gives, 1 to 8; 1 where it gives none."""
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, HEADER_BYTES), tf.uint8), tf.int32)
    tiff = _find_exif(header)
    return tf.cond(tiff > 0, lambda: _read_orientation(header, tiff), lambda: tf.constant(1))


def _find_exif(header: Tensor) -> Tensor:
    """Walk the segments before the picture; return where the EXIF block's TIFF header begins, or 0."""
    size = tf.size(header)
    signature = tf.constant(list(EXIF_SIGNATURE))

    def is_exif(at: Tensor) -> Tensor:
        return (_byte(header, at + 1) == APP1) & tf.reduce_all(_byte(header, at + 4 + tf.range(6)) == signature)

    def goes_on(at: Tensor) -> Tensor:
        kind = _byte(header, at + 1)
        is_segment = (_byte(header, at) == 0xFF) & ((kind & 0xF0 == 0xE0) | (kind == COMMENT))
        return is_segment & (at + 4 < size) & ~is_exif(at)

    def next_segment(at: Tensor) -> Tensor:
        return at + 2 + tf.maximum(2, _number(header, at + 2, 2, little=tf.constant(False)))

    (at,) = tf.while_loop(goes_on, lambda at: (next_segment(at),), (tf.constant(2),))
    return tf.where((_byte(header, at) == 0xFF) & is_exif(at), at + 4 + len(EXIF_SIGNATURE), 0)


def _read_orientation(header: Tensor, tiff: Tensor) -> Tensor:
    """Read the orientation from the first directory (IFD) of the TIFF structure that begins at `tiff`."""
    little = _byte(header, tiff) == LITTLE_ENDIAN
    directory = tiff + _number(header, tiff + 4, 4, little=little)
    entries = directory + 2 + IFD_ENTRY_BYTES * tf.range(_number(header, directory, 2, little=little))
    entries = tf.boolean_mask(entries, _number(header, entries, 2, little=little) == EXIF_ORIENTATION)
    value = tf.reduce_max(tf.concat([_number(header, entries + 8, 2, little=little), [1]], axis=0))
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _number(header: Tensor, at: Tensor, length: int, *, little: Tensor) -> Tensor:
    """Read unsigned numbers of so many bytes."""
    digits = [_byte(header, at + place) for place in range(length)]
    upwards = sum(digit * 256**place for place, digit in enumerate(digits))
    downwards = sum(digit * 256**place for place, digit in enumerate(reversed(digits)))
    return tf.where(little, upwards, downwards)


def _byte(header: Tensor, at: Tensor) -> Tensor:
    """Read bytes; beyond either end the first or last one, so that a damaged block is no error."""
    return tf.gather(header, tf.clip_by_value(at, 0, tf.size(header) - 1))


def _decode_jpeg(content: Tensor) -> Tensor:
    """Decode with the transform that Pillow uses, too; TensorFlow's own choice is faster and less exact."""
    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


def _decode(content: Tensor) -> Tensor:
    """Decode what is no JPEG."""
    start = tf.strings.substr(content, 0, 4)
    cases = [
        (start == PNG, lambda: _over_white(_decode_png(content))),
        (start == GIF, lambda: tf.io.decode_gif(content)[0]),
        (start == RIFF, lambda: _over_white(tf.io.decode_webp(content)[0])),
        (tf.strings.substr(content, 0, 2) == BMP, lambda: _first_three(tf.io.decode_bmp(content))),
    ]
    # What is nothing of the kind goes to the PNG decoder, whose refusal is an InvalidArgumentError.
    decoded = tf.case(cases, default=lambda: tf.io.decode_png(content, channels=3))
    return tf.ensure_shape(decoded, (None, None, 3))


def _decode_png(content: Tensor) -> Tensor:
    """Decode to RGBA. Where there is no alpha TensorFlow puts the largest value that the bits of a gray level have."""
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, 26), tf.uint8), tf.int32)
    bits = _byte(header, tf.constant(24))  # in the IHDR chunk, which is always first
    opaque = tf.cast(2 ** tf.clip_by_value(bits, 1, 8) - 1, tf.uint8)
    decoded = tf.io.decode_png(content, channels=4)
    alpha = tf.where(tf.reduce_all(decoded[..., 3:] == opaque), tf.constant(255, tf.uint8), decoded[..., 3:])
    return tf.concat([decoded[..., :3], alpha], axis=-1)


def _over_white(image: Tensor) -> Tensor:
    """Show the transparent parts of uint8 [height, width, 3 or 4] over white, rounded as Pillow does."""

    def blend() -> Tensor:
        alpha = tf.cast(image[..., 3:], tf.float32) / 255
        return tf.cast(tf.round(tf.cast(image[..., :3], tf.float32) * alpha + 255 * (1 - alpha)), tf.uint8)

    return tf.cond(tf.shape(image)[-1] == 4, blend, lambda: image[..., :3])


def _first_three(image: Tensor) -> Tensor:
    tf.debugging.assert_greater_equal(tf.shape(image)[-1], 3, "a BMP of less than 24 bits")
    return image[..., :3]


def _turn(image: Tensor, orientation: Tensor) -> Tensor:
    """Undo an EXIF orientation: along the diagonal first, then left to right, then top to bottom."""

    def apply(to: tuple[int, ...], change: Tensor, image: Tensor) -> Tensor:
        return tf.cond(tf.reduce_any(orientation == tf.constant(to)), lambda: change(image), lambda: image)

    image = apply((5, 6, 7, 8), lambda x: tf.transpose(x, (1, 0, 2)), image)
    image = apply((2, 3, 6, 7), lambda x: x[:, ::-1], image)
    return apply((3, 4, 7, 8), lambda x: x[::-1], image)


def _resample(
    image: Tensor, corner: tuple[Tensor, Tensor], extent: tuple[Tensor, Tensor], size: tuple[Tensor, Tensor]
) -> Tensor:
    """Resize a part of an image, bilinear with antialiasing, to the very pixels that Pillow gives.

    Args:
        image: uint8 [height, width, 3].
        corner: Top and left of the part, in pixels; halves are possible.
        extent: Its height and width in pixels.
        size: Height and width of the result.

    Returns:
        uint8 [*size, 3].
    """

    def down(picture: Tensor) -> Tensor:
        return _resample_rows(picture, corner[0], extent[0], size[0])

    def across(picture: Tensor) -> Tensor:
        return tf.transpose(_resample_rows(tf.transpose(picture, (1, 0, 2)), corner[1], extent[1], size[1]), (1, 0, 2))

    # Rounding in between makes the order matter.
    less_height, less_width = tf.shape(image)[0] - size[0], tf.shape(image)[1] - size[1]
    height_first = HEIGHT_CAN_BE_FIRST & (less_height > 0) & (less_height > 2 * less_width)
    return tf.cond(height_first, lambda: across(down(image)), lambda: down(across(image)))


def _resample_rows(image: Tensor, start: Tensor, extent: Tensor, size: Tensor) -> Tensor:
    """Resize along the first axis, with whole numbers as Pillow does it, one tap of the filter after the other."""
    rows, others = tf.shape(image)[0], tf.shape(image)[1:]
    first, weights = _weights(rows, start, extent, size)

    def add(tap: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        taken = tf.gather(image, tf.minimum(first + tap, rows - 1))
        return tap + 1, total + tf.cast(taken, tf.int32) * weights[:, tap, None, None]

    half = tf.fill(tf.concat([tf.reshape(size, (1,)), others], axis=0), 1 << (WEIGHT_BITS - 1))
    start_at = (tf.constant(0), tf.ensure_shape(half, (None, None, 3)))
    _, total = tf.while_loop(lambda tap, _: tap < tf.shape(weights)[1], add, start_at, parallel_iterations=1)
    return tf.cast(tf.bitwise.right_shift(total, WEIGHT_BITS), tf.uint8)


def _weights(rows: Tensor, start: Tensor, extent: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first row that each new row is made of, and the weights of it and of those after it.

    A triangle around the new row's place, as wide as what it stands for but no narrower than two rows; the weights add
    up to 1 in units of 2 to the power of -`WEIGHT_BITS`: Pillow's Resample.c.
    """
    scale = tf.cast(extent, tf.float64) / tf.cast(size, tf.float64)
    reach = tf.maximum(scale, 1.0)
    centre = tf.cast(start, tf.float64) + (tf.cast(tf.range(size), tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(centre - reach + 0.5, tf.int32), 0)
    end = tf.minimum(tf.cast(centre + reach + 0.5, tf.int32), rows)
    row = first[:, None] + tf.range(2 * tf.cast(tf.math.ceil(reach), tf.int32) + 1)
    distance = tf.abs((tf.cast(row, tf.float64) - centre[:, None] + 0.5) / reach)
    triangle = tf.where(row < end[:, None], tf.maximum(1 - distance, 0.0), tf.zeros_like(distance))
    shares = triangle / tf.reduce_sum(triangle, axis=1, keepdims=True)
    return first, tf.cast(shares * (1 << WEIGHT_BITS) + 0.5, tf.int32)
