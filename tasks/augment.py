"""Random views of training images: one affine resampling and a contrast change, drawn for each image and view.

The draw depends on the seed, the image's id and the view's number only, so it is the same in any order, shard or
machine.
"""

import hashlib

import cv2
import numpy as np

from tasks.params import AugmentParams

WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # the matrix leads from a pixel of the view to one of the image
BORDERS = {"reflect": cv2.BORDER_REFLECT, "nearest": cv2.BORDER_REPLICATE}


def augment(images: np.ndarray, ids: list[str], view: int, *, params: AugmentParams, seed: int) -> np.ndarray:
    """Return one view of each image.

    Args:
        images: uint8 [batch, size, size, 3].
        ids: The images' ids.
        view: The view's number, from 0.
        params: Ranges of the random changes.
        seed: The stage's seed.

    Returns:
        uint8 [batch, size, size, 3].
    """
    if not any(params.model_dump(exclude={"fill"}).values()):
        return images
    size = images.shape[1]
    view_images = np.empty_like(images)
    for image, image_id, view_image in zip(images, ids, view_images, strict=True):
        rng = _rng(seed, image_id, view)
        matrix = draw_affine(rng, params, size)
        cv2.warpAffine(image, matrix[:2], (size, size), view_image, WARP, BORDERS[params.fill])
        if params.contrast:
            view_image[:] = _change_contrast(view_image, rng.uniform(1 - params.contrast, 1 + params.contrast))
    return view_images


def draw_affine(rng: np.random.Generator, params: AugmentParams, size: int) -> np.ndarray:
    """Draw one 3x3 matrix that maps a pixel of the view to the pixel of the image it shows (x, y, 1; pixels)."""
    angle, shear = np.deg2rad(rng.uniform(-1, 1, 2) * [params.rotation_degrees, params.shear_degrees])
    scale = 1 + rng.uniform(-params.zoom, params.zoom)
    shift_x, shift_y = rng.uniform(-params.shift, params.shift, 2) * size
    mirror = -1.0 if params.flip and rng.random() < 0.5 else 1.0
    cos, sin = np.cos(angle), np.sin(angle)
    rotate = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    lean = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    resize = np.diag([mirror * scale, scale, 1.0])
    middle = (size - 1) / 2
    to_middle = np.array([[1, 0, -middle], [0, 1, -middle], [0, 0, 1]])
    back = np.array([[1, 0, middle + shift_x], [0, 1, middle + shift_y], [0, 0, 1]])
    matrix: np.ndarray = back @ rotate @ lean @ resize @ to_middle
    return matrix


def _change_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Move every value towards or away from its channel's mean."""
    mean = image.mean(axis=(0, 1))
    changed: np.ndarray = np.clip(np.rint((image - mean) * factor + mean), 0, 255)
    return changed


def _rng(seed: int, image_id: str, view: int) -> np.random.Generator:
    key = hashlib.sha256(f"{seed}:{image_id}:{view}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
