"""The corruptions do what their amounts say."""

import numpy as np
import pytest

from tasks import corruptions
from tasks.corruptions import AMOUNTS, Kind

IDS = ("0a" * 32, "f1" * 32)
GRAY = np.full((96, 96, 3), 128, np.uint8)
PHOTO = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
EVERY = [(kind, name) for kind, amounts in AMOUNTS.items() for name in amounts]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_corruption_depends_on_the_image_and_its_id_alone(kind: Kind, name: str) -> None:
    before = PHOTO.copy()
    spoilt = corruptions.corrupt(PHOTO, IDS[0], kind, AMOUNTS[kind][name])
    other = corruptions.corrupt(PHOTO, IDS[1], kind, AMOUNTS[kind][name])
    assert spoilt.dtype == np.uint8
    assert spoilt.shape == PHOTO.shape
    assert not np.array_equal(spoilt, PHOTO)
    assert np.array_equal(spoilt, corruptions.corrupt(PHOTO, IDS[0], kind, AMOUNTS[kind][name]))
    assert np.array_equal(spoilt, other) == (kind != "noise")
    assert np.array_equal(PHOTO, before)


@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg", "rotation"])
def test_amounts_are_from_mild_to_strong(kind: Kind) -> None:
    spoilt = [corruptions.corrupt(PHOTO, IDS[0], kind, amount).astype(float) for amount in AMOUNTS[kind].values()]
    differences = [float(np.abs(image - PHOTO).mean()) for image in spoilt]
    assert len(differences) == 3
    assert differences == sorted(differences)


@pytest.mark.parametrize("sigma_px", [1.0, 2.0, 4.0])
def test_blur_spreads_a_point_by_its_standard_deviation(sigma_px: float) -> None:
    line = np.zeros((96, 96, 3), np.uint8)
    line[:, 48] = 255
    profile = corruptions.blur(line, sigma_px)[48, :, 0].astype(float)
    spread = np.sqrt((profile * (np.arange(96) - 48) ** 2).sum() / profile.sum())
    assert spread == pytest.approx(sigma_px, rel=0.1)


@pytest.mark.parametrize("sigma", [10.0, 25.0])
def test_noise_has_its_standard_deviation_in_every_channel(sigma: float) -> None:
    added = corruptions.add_noise(GRAY, sigma, seed=1).astype(float) - 128
    np.testing.assert_allclose(added.std(axis=(0, 1)), sigma, rtol=0.05)
    np.testing.assert_allclose(added.mean(axis=(0, 1)), 0, atol=0.05 * sigma)
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.05


def test_noise_does_not_wrap_round() -> None:
    assert corruptions.add_noise(np.full_like(GRAY, 255), 50, seed=1).min() > 20
    assert corruptions.add_noise(np.zeros_like(GRAY), 50, seed=1).max() < 235


def test_rotation_is_counter_clockwise_and_fills_the_corners() -> None:
    np.testing.assert_allclose(corruptions.rotate(PHOTO, 90), np.rot90(PHOTO), atol=1)
    for degrees in AMOUNTS["rotation"].values():
        assert np.array_equal(corruptions.rotate(GRAY, degrees), GRAY)


def test_brightness_multiplies() -> None:
    for level, factor, expected in ((100, 0.5, 50), (100, 1.5, 150), (200, 1.5, 255), (100, 0.25, 25)):
        assert set(np.unique(corruptions.brighten(np.full_like(GRAY, level), factor))) == {expected}
