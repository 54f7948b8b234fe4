"""What spoils photos, in small and large amounts, to see how a classifier bears it.

In the spirit of ImageNet-C (Hendrycks and Dietterich 2019), on the square image that the classifier sees.
"""

import io
import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter

Pixels = npt.NDArray[np.uint8]  # [size, size, 3]
Kind = Literal["blur", "noise", "jpeg", "rotation", "brightness"]

# Amounts by what people read of them, from mild to strong.
AMOUNTS: dict[Kind, dict[str, float]] = {
    "blur": {"1 px": 1, "2 px": 2, "4 px": 4},
    "noise": {"10 levels": 10, "25 levels": 25, "50 levels": 50},
    "jpeg": {"quality 50": 50, "quality 20": 20, "quality 10": 10},
    "rotation": {"15 degrees": 15, "30 degrees": 30, "45 degrees": 45},
    "brightness": {"x 0.5": 0.5, "x 1.5": 1.5, "x 0.25": 0.25},
}


def corrupt(image: Pixels, image_id: str, kind: Kind, amount: float) -> Pixels:
    """Return a spoilt copy of an image: the same one for the same id, whatever was spoilt before."""
    if kind == "blur":
        return blur(image, amount)
    if kind == "noise":
        return add_noise(image, amount, seed=int(image_id, 16))
    if kind == "jpeg":
        return compress(image, round(amount))
    if kind == "rotation":
        return rotate(image, amount)
    return brighten(image, amount)


def blur(image: Pixels, sigma_px: float) -> Pixels:
    """Blur by a Gaussian of this standard deviation."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma_px)))


def add_noise(image: Pixels, sigma: float, *, seed: int) -> Pixels:
    """Add Gaussian noise of this standard deviation, in gray levels of 0..255, to every channel by itself."""
    drawn = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image + np.float32(sigma) * drawn), 0, 255).astype(np.uint8)


def compress(image: Pixels, quality: int) -> Pixels:
    """Save as a JPEG of this quality (libjpeg's, 1 to 95) and load that."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def rotate(image: Pixels, degrees: float) -> Pixels:
    """Turn counter-clockwise about the middle; the corners show what mirrors along the edges would."""
    size = len(image)
    margin = math.ceil(size * (math.sqrt(2) - 1) / 2)  # what a turn by 45 degrees needs, the most of all
    mirrored = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "reflect"))
    turned = mirrored.rotate(degrees, Image.Resampling.BILINEAR)
    return np.asarray(turned.crop((margin, margin, margin + size, margin + size)))


def brighten(image: Pixels, factor: float) -> Pixels:
    """Multiply the gray levels, darker below 1; what would be brighter than white is white."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))
