"""The high-pass of one-photon movies in the matched filter: as documented for what is smooth, nearly whole beyond."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.fft import idctn
from scipy.ndimage import correlate

from gpucalcium.registration import RigidParams
from gpucalcium.registration.pass_band import KEPT_POWER, gain, passed

KERNEL = RigidParams(gSig_filt=(3, 3)).high_pass()
PEAK = 0.14  # cycles per pixel, where KERNEL passes most along an axis


def wave(shape, index):
    """A cosine of half-sample symmetry: what mirrored filters keep the shape of."""
    spectrum = np.zeros(shape)
    spectrum[index] = 1
    return idctn(spectrum)


@pytest.mark.parametrize("index", [(3, 0), (0, 5), (4, 6)])
def test_smooth_images_are_filtered_as_documented(index):
    image = wave((48, 52), index)
    scale = np.abs(gain_along_axes()).max()
    assert_allclose(
        passed(image, KERNEL) * scale, correlate(image, KERNEL, mode="reflect"), atol=1e-3 * image.max()
    )


def gain_along_axes():
    line = np.linspace(0, 0.5, 257)
    places = np.arange(9) - 4
    return np.cos(2 * np.pi * np.outer(line, places)) @ KERNEL.sum(axis=1)


def test_fine_detail_is_kept_but_for_a_power():
    image = wave((64, 64), (0, 40))  # 0.31 cycles per pixel
    filtered = correlate(image, KERNEL, mode="reflect")
    share = np.abs(filtered).max() / np.abs(image).max() / np.abs(gain_along_axes()).max()
    assert share < 0.35
    assert_allclose(np.abs(passed(image, KERNEL)).max() / np.abs(image).max(), share**KEPT_POWER, rtol=1e-3)


def test_constant_images_become_zero():
    assert_allclose(passed(np.full((30, 20), 7.0), KERNEL), 0, atol=1e-6)


def test_images_are_filtered_one_by_one():
    images = np.random.default_rng(0).normal(size=(3, 24, 30))
    assert_allclose(passed(images, KERNEL), [passed(image, KERNEL) for image in images], atol=1e-12)


def test_wider_along_one_axis_is_turned_with_the_image():
    image = np.random.default_rng(0).normal(size=(40, 50))
    wide = RigidParams(gSig_filt=(2, 5)).high_pass()
    assert_allclose(passed(image, wide), passed(image.T, wide.T).T, atol=1e-12)


def test_volumes():
    kernel = RigidParams(gSig_filt=(3, 3, 1)).high_pass()
    image = np.random.default_rng(0).normal(size=(20, 22, 1))
    assert passed(image, kernel).shape == image.shape
    assert np.isfinite(passed(image, kernel)).all()


def test_nothing_passes_a_kernel_that_is_zero():
    assert_array_equal(passed(np.ones((8, 9)), np.zeros((1, 1))), 0)


def test_gain_is_largest_at_the_peak_and_never_above_one():
    line = np.linspace(0, 0.5, 501)
    along = gain(KERNEL, [line, np.zeros(1)])[:, 0]
    assert along.max() <= 1 + 1e-3
    assert abs(line[along.argmax()] - PEAK) < 0.01
    assert along[0] < 1e-9
