"""Activity in blocks, and the filter that it disturbs least."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from gpucalcium.registration import activity
from gpucalcium.registration.activity import Activity
from gpucalcium.registration.matching import wave_number


def spot(shape: tuple[int, ...], at: tuple[int, ...], width: float = 2.0) -> np.ndarray:
    """A Gaussian of height one."""
    grid = np.indices(shape).reshape(len(shape), -1).T - np.array(at)
    return np.exp(-0.5 * (grid**2).sum(1) / width**2).reshape(shape)


def scenery(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Spots; the mean is zero."""
    image = gaussian_filter((np.random.default_rng(seed).uniform(size=shape) > 0.98).astype(float), 1.6) * 400
    return image - image.mean()


def only_photons(variance: np.ndarray, margin: int = 0) -> Activity:
    return Activity(variance, (), (margin,) * variance.ndim)


@pytest.mark.parametrize("shape", [(64, 60), (32, 97), (31, 5), (33, 40, 9), (1, 70)])
def test_tapers_of_blocks_sum_to_one(shape):
    total = np.zeros(shape)
    for at, taper in activity.blocks(shape):
        assert total[at].shape == taper.shape
        total[at] += taper**2
    assert_allclose(total, 1)


def test_a_cell_that_flickers_is_a_mode_of_its_block():
    rng = np.random.default_rng(0)
    cell = spot((64, 60), (20, 41))
    residuals = rng.normal(0, 2, (90, 64, 60)) + 30 * rng.normal(size=(90, 1, 1)) * cell
    found = Activity.measured(residuals.astype(np.float32), 4.0, (2, 2))
    assert found is not None
    assert_allclose(np.median(found.photons), 4.0, rtol=1e-6)
    assert_allclose(found.photons[30:], 4.0, rtol=0.4)
    probe = cell / np.linalg.norm(cell)
    true = 4.0 + 900 * np.linalg.norm(cell) ** 2
    assert (
        0.6 * true < np.vdot(probe, found.covariance(probe)) < 1.2 * true
    )  # a block's taper cuts a cell short
    elsewhere = spot((64, 60), (50, 10))
    elsewhere /= np.linalg.norm(elsewhere)
    assert np.vdot(elsewhere, found.covariance(elsewhere)) < 8


def test_noise_alone_has_no_modes():
    residuals = np.random.default_rng(1).normal(0, 3, (60, 64, 60)).astype(np.float32)
    found = Activity.measured(residuals - residuals.mean(0), 9.0, (0, 0))
    assert found is not None
    assert (
        sum(len(images) for _, images in found.modes) <= 2
    )  # the edge of the spectrum is a mean, not a bound


def test_too_few_frames_or_nothing_that_varies_is_left_alone():
    some = np.random.default_rng(0).normal(size=(activity.FEWEST - 1, 20, 20)).astype(np.float32)
    assert Activity.measured(some, 1.0, (0, 0)) is None
    assert Activity.measured(np.zeros((50, 20, 20), np.float32), 1.0, (0, 0)) is None
    assert Activity.measured(np.ones((50, 20, 20), np.float32), 0.0, (0, 0)) is None


def test_frames_of_hardly_more_than_a_block_are_left_alone():
    some = np.random.default_rng(0).normal(size=(50, 30, 40)).astype(np.float32)  # two blocks
    assert Activity.measured(some, 1.0, (0, 0)) is None
    larger = np.random.default_rng(0).normal(size=(50, 40, 40)).astype(np.float32)
    assert Activity.measured(larger, 1.0, (0, 0)) is not None


@pytest.mark.parametrize("shape", [(40, 37), (24, 20, 9)])
def test_without_activity_the_filter_is_the_template(shape):
    image = scenery(shape)
    ones = np.ones_like(wave_number(shape))
    h = only_photons(np.full(shape, 5.0)).filter(image, ones, ones)
    likeness = np.vdot(h, image) / np.linalg.norm(h) / np.linalg.norm(image)
    assert likeness > 0.99


@given(st.integers(0, 50))
@settings(max_examples=8, deadline=None)
def test_a_flickering_cell_does_not_pull(seed):
    rng = np.random.default_rng(seed)
    shape = (48, 44)
    image = scenery(shape, seed)
    cell = spot(shape, tuple(rng.integers(12, 32, 2)), 2.5)
    ones = np.ones_like(wave_number(shape))
    plain = only_photons(np.full(shape, 4.0), 3)
    aware = Activity(plain.photons, (((slice(None), slice(None)), 30 * cell.reshape(1, -1)),), (3, 3))

    def pull(h: np.ndarray) -> float:
        """Gradient of the cell's correlation with h, in units of the curvature of the template's."""
        slopes = np.gradient(h)
        curvature = sum(np.vdot(s, g) for s, g in zip(slopes, np.gradient(image), strict=True))
        return float(np.linalg.norm([np.vdot(s, cell) for s in slopes]) / abs(curvature))

    assert pull(aware.filter(image, ones, ones)) < 0.2 * pull(plain.filter(image, ones, ones)) + 1e-5


def test_the_filter_is_zero_on_the_margin():
    shape = (30, 28)
    ones = np.ones_like(wave_number(shape))
    h = Activity(np.full(shape, 1.0), (), (3, 2)).filter(scenery(shape), ones, ones)
    assert not h[:3].any()
    assert not h[-3:].any()
    assert not h[:, :2].any()
    assert h[3:-3, 2:-2].any()


def test_white_level_is_that_of_white_noise():
    frames = np.random.default_rng(0).normal(0, 3, (200, 40, 36))
    power = (np.abs(np.fft.rfftn(frames, axes=(1, 2))) ** 2).mean(0) / frames[0].size
    assert_allclose(activity.white_level(power, wave_number((40, 36))), 9.0, rtol=0.05)


def test_covariance_is_symmetric_and_positive():
    rng = np.random.default_rng(0)
    residuals = (
        rng.normal(size=(40, 40, 36)) + 5 * rng.normal(size=(40, 1, 1)) * spot((40, 36), (9, 9))
    ).astype(np.float32)
    found = Activity.measured(residuals, 1.0, (0, 0))
    assert found is not None
    x, y = rng.normal(size=(2, 40, 36))
    assert_allclose(np.vdot(x, found.covariance(y)), np.vdot(y, found.covariance(x)))
    assert np.vdot(x, found.covariance(x)) > 0
    assert_array_equal(found.covariance(np.zeros((40, 36))), 0)
