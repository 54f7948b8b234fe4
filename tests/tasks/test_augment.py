"""Random views: exact where they can be, in their ranges where they are drawn."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.augment import _rng, augment, draw_affine
from tasks.params import AugmentParams

OFF: dict[str, Any] = {
    "flip": False,
    "rotation_degrees": 0.0,
    "zoom": 0.0,
    "shift": 0.0,
    "shear_degrees": 0.0,
    "contrast": 0.0,
    "fill": "reflect",
}
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
IDS = [f"id{n}" for n in range(8)]


def params(**values: Any) -> AugmentParams:  # noqa: ANN401 - any value of a section
    return AugmentParams(**{**OFF, **values})


class Fixed(np.random.Generator):
    """Draws the upper end of every range, and a number of its own for `random`."""

    def __init__(self, coin: float = 0.0) -> None:
        super().__init__(np.random.PCG64(0))
        self._coin = coin

    def uniform(self, low: Any = 0, high: Any = 1, size: Any = None) -> Any:  # noqa: ANN401 - as in numpy
        return high if size is None else np.full(size, high)

    def random(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - as in numpy
        return self._coin


def shown(matrix: np.ndarray, x: float, y: float) -> list[float]:
    """Where in the image the view's pixel (x, y) is taken from."""
    source: list[float] = (matrix @ [x, y, 1])[:2].tolist()
    return source


def test_nothing_on_changes_nothing() -> None:
    assert np.array_equal(augment(IMAGES, IDS, 0, params=params(), seed=0), IMAGES)


def test_a_flip_is_an_exact_mirror_of_about_half() -> None:
    views = [augment(IMAGES, IDS, view, params=params(flip=True), seed=0) for view in range(8)]
    mirrored = IMAGES[:, :, ::-1]
    flipped = [[np.array_equal(image, other) for image, other in zip(view, mirrored, strict=True)] for view in views]
    same = [[np.array_equal(image, other) for image, other in zip(view, IMAGES, strict=True)] for view in views]
    assert np.array_equal(np.logical_not(flipped), same)
    assert 20 <= np.sum(flipped) <= 44  # 32 of 64 expected; beyond these, 0.2 %


def test_a_quarter_turn_moves_each_pixel_where_the_formula_says() -> None:
    matrix = draw_affine(Fixed(), params(rotation_degrees=90.0), 5)
    # About the middle (2, 2): source = middle + [[cos, -sin], [sin, cos]] (pixel - middle), y downwards.
    assert shown(matrix, 4, 2) == pytest.approx([2, 4])
    assert shown(matrix, 2, 0) == pytest.approx([4, 2])
    assert shown(matrix, 0, 0) == pytest.approx([4, 0])


def test_zoom_shift_shear_and_flip_matrices() -> None:
    assert shown(draw_affine(Fixed(), params(zoom=0.5), 5), 4, 0) == pytest.approx([5, -1])
    assert shown(draw_affine(Fixed(), params(shift=0.2), 5), 1, 3) == pytest.approx([2, 4])
    assert shown(draw_affine(Fixed(), params(shear_degrees=30.0), 5), 2, 4) == pytest.approx([1, 2 + 3**0.5])
    assert shown(draw_affine(Fixed(coin=0.4), params(flip=True), 5), 0, 3) == pytest.approx([4, 3])
    assert shown(draw_affine(Fixed(coin=0.6), params(flip=True), 5), 0, 3) == pytest.approx([0, 3])


def test_draws_stay_in_their_ranges_and_reach_both_ends() -> None:
    rng = np.random.default_rng(1)
    draws = [draw_affine(rng, params(rotation_degrees=10.0), 5) for _ in range(500)]
    angles = np.rad2deg([np.arctan2(matrix[1, 0], matrix[0, 0]) for matrix in draws])
    assert -10 <= angles.min() < -9 < 9 < angles.max() <= 10
    scales = np.array([draw_affine(rng, params(zoom=0.2), 5)[0, 0] for _ in range(500)])
    assert 0.8 <= scales.min() < 0.82 < 1.18 < scales.max() <= 1.2
    shifts = np.array([draw_affine(rng, params(shift=0.1), 50)[:2, 2] for _ in range(500)])
    assert (shifts.min(axis=0) >= -5).all()
    assert (shifts.max(axis=0) <= 5).all()
    assert shifts.min() < -4.5 < 4.5 < shifts.max()


@pytest.mark.parametrize(("fill", "edge"), [("reflect", [1, 0, 0, 1]), ("nearest", [0, 0, 0, 1])])
def test_what_shows_beyond_the_edge(monkeypatch: pytest.MonkeyPatch, fill: str, edge: list[int]) -> None:
    columns = np.tile(np.arange(8, dtype=np.uint8)[None, None, :, None], (1, 8, 1, 3))
    two_to_the_right = np.array([[1, 0, -2], [0, 1, 0], [0, 0, 1]], float)
    monkeypatch.setattr("tasks.augment.draw_affine", lambda *_: two_to_the_right)
    moved = augment(columns, ["a"], 0, params=params(fill=fill, zoom=0.1), seed=0)
    assert moved[0, 3, :, 1].tolist() == [*edge, 2, 3, 4, 5]


@pytest.mark.parametrize("fill", ["reflect", "nearest"])
def test_views_are_those_of_tensorflow(fill: str) -> None:
    """TensorFlow's own resampling, which Keras's random layers use too, but for the last bit of the rounding."""
    from tasks.quiet_tf import tf

    on = params(flip=True, rotation_degrees=30.0, zoom=0.2, shift=0.2, shear_degrees=10.0, fill=fill)
    smooth = np.asarray([np.asarray(Image.fromarray(image).resize((64, 64))) for image in IMAGES])
    matrices = [draw_affine(_rng(5, name, 1), on, 64).reshape(-1)[:8] for name in IDS]
    theirs = tf.raw_ops.ImageProjectiveTransformV3(
        images=smooth.astype(np.float32),
        transforms=np.array(matrices, np.float32),
        output_shape=[64, 64],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill.upper(),
    ).numpy()
    ours = augment(smooth, IDS, 1, params=on, seed=5)
    assert np.abs(ours - theirs).max() <= 1
    assert np.mean(np.abs(ours - theirs)) <= 0.3  # 0.25 is what rounding to whole numbers alone costs


def test_contrast_stretches_about_each_channels_mean() -> None:
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, :, :, 0] = [[100, 100], [140, 140]]
    image[0, :, :, 1] = 7
    factors = set()
    for view in range(40):
        out = augment(image, ["a"], view, params=params(contrast=0.5), seed=0).astype(int)
        assert (out[..., 1] == 7).all()
        low, high = out[0, 0, 0, 0], out[0, 1, 0, 0]
        assert low + high == 240
        assert 10 <= 120 - low <= 30  # 20 times a factor of 0.5 to 1.5
        factors.add(120 - low)
    assert min(factors) < 13
    assert max(factors) > 25


def test_values_are_clipped_not_wrapped() -> None:
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0] = 255
    for view in range(10):
        out = augment(image, ["a"], view, params=params(contrast=0.9), seed=0)
        assert (out[0, 0] > 127).all()
        assert (out[0, 1] < 128).all()


def test_a_view_depends_on_seed_id_and_number_alone() -> None:
    everything = params(flip=True, rotation_degrees=20.0, zoom=0.2, shift=0.1, shear_degrees=5.0, contrast=0.3)
    views = augment(IMAGES, IDS, 1, params=everything, seed=7)
    order = [5, 2, 6]
    some = augment(IMAGES[order], [IDS[n] for n in order], 1, params=everything, seed=7)
    assert np.array_equal(some, views[order])
    for view, seed, ids in ((2, 7, IDS), (1, 8, IDS), (1, 7, [f"other{n}" for n in range(8)])):
        assert not np.array_equal(augment(IMAGES, ids, view, params=everything, seed=seed), views)
