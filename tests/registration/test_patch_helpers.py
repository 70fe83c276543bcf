"""Functions around patches: against stored results and plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import fourier_shift as scipy_fourier_shift

from gpucalcium import backend, registration
from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError
from gpucalcium.registration.patch_helpers import (
    apply_pw_shifts_remap_2d,
    apply_pw_shifts_remap_3d,
    apply_shifts_dft,
    blending_weights,
    get_patch_centers,
    get_patch_edges,
    interpolate_shifts,
    sliding_window,
    sliding_window_3d,
)
from gpucalcium.registration.tile import tile_and_correct, tile_and_correct_3d

DIMS, OVERLAPS, STRIDES = (96, 88), (16, 16), (24, 24)
REMAP_CENTRES = ([15.5, 35.5, 55.5, 79.5], [15.5, 35.5, 55.5, 71.5])


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def test_centres_edges_and_windows_are_the_stored_ones(reference):
    stored = reference.load("motion")
    assert_array_equal(get_patch_centers(DIMS, OVERLAPS, STRIDES), stored["get_patch_centers"])
    image = reference.inputs("motion")[1]["Y"][0]
    windows = list(sliding_window(image, OVERLAPS, STRIDES))
    assert_array_equal([window[:4] for window in windows], stored["sliding_window"])
    edges = get_patch_edges(DIMS, OVERLAPS, STRIDES)
    for i, j, row, column, patch in windows:
        assert tuple(edges[0][i]) == (row, row + 40)
        assert tuple(edges[1][j]) == (column, column + 40)
        assert_array_equal(patch, image[row : row + 40, column : column + 40])


def test_tiles_of_the_finer_grid():
    assert len(get_patch_centers(DIMS, OVERLAPS, STRIDES, shifts_opencv=False)) == 14 * 12
    assert len(get_patch_edges(DIMS, OVERLAPS, STRIDES, shifts_opencv=False, upsample_factor_grid=2)[0]) == 7
    with pytest.raises(ParameterError, match="upsample_factor_grid=0"):
        get_patch_centers(DIMS, OVERLAPS, STRIDES, upsample_factor_grid=0)


def test_windows_of_a_volume_are_views():
    volume = noise((9, 8, 7))
    windows = list(sliding_window_3d(volume, (2, 2, 1), (4, 3, 3)))
    assert len(windows) == 2 * 2 * 2
    for *place, patch in windows:
        i, j, k = place[3:]
        assert_array_equal(patch, volume[i : i + 6, j : j + 5, k : k + 4])
        assert patch.base is volume
    with pytest.raises(ArrayShapeError, match="takes a volume"):
        sliding_window_3d(volume[0], (2, 2), (4, 4))


def test_blending_weights(reference):
    first = next(blending_weights(DIMS, (8, 8), STRIDES))
    assert_allclose(first, reference.load("motion")["weight_matrix"], atol=1e-6)
    weights = list(blending_weights((20, 11), (3, 0), (6, 11)))
    assert len(weights) == 3
    assert all(w.shape == (9, 11) for w in weights)
    assert_array_equal(weights[1][:, 0], [0, 0.5, 1, 1, 1, 1, 1, 0.5, 0])


def test_shifts_are_interpolated_by_splines(wing):
    rng = np.random.default_rng(1)
    shifts, new = rng.normal(size=(5, 4)), (np.array([30.0, 0, 12.5, 50]), np.linspace(-5, 45, 9))
    old = (np.array([4.0, 11, 20, 29, 41]), np.array([3.0, 12, 21, 33]))
    found = interpolate_shifts(wing.put(shifts), old, new)
    at = [np.clip(x, c[0], c[-1]) for x, c in zip(new, old, strict=True)]
    spline = RectBivariateSpline(*old, shifts, s=0)
    expected = [[float(spline(x, y)[0, 0]) for y in at[1]] for x in at[0]]
    assert_allclose(backend.to_numpy(found), expected, atol=1e-5)
    assert_allclose(interpolate_shifts(shifts.ravel(), old, new), expected, atol=1e-5)


def test_interpolation_says_what_it_needs():
    with pytest.raises(ArrayShapeError, match="one value per node"):
        interpolate_shifts(np.zeros(5), ([0, 1], [0, 1]), ([0], [0]))
    with pytest.raises(ArrayShapeError, match="must agree"):
        interpolate_shifts(np.zeros(4), ([0, 1], [0, 1]), ([0],))
    with pytest.raises(ParameterError, match="coords_orig"):
        interpolate_shifts(np.zeros(4), ([0, 0], [0, 1]), ([0], [0]))


@pytest.mark.parametrize("interpolate", [False, True])
def test_remap_is_near_the_reference(wing, reference, interpolate):
    """Which rounds positions to 1/32 pixel; tests of `displace_field` take the rounding into account."""
    stored, image = reference.load("motion"), reference.inputs("motion")[1]["Y"][3]
    rows = stored["remap_in_shifts"]
    moved = apply_pw_shifts_remap_2d(
        wing.put(image), rows, rows.T, *REMAP_CENTRES, border_nan="copy", shifts_interpolate=interpolate
    )
    off = np.abs(backend.to_numpy(moved) - stored[f"apply_pw_shifts_remap_2d_interp{int(interpolate)}"])
    assert off.mean() < 0.1  # 1/128 pixel on average, at gradients of 12 a pixel
    assert off.max() < 1.0


def test_remap_takes_pixels_from_where_it_is_told(wing):
    image, volume = noise((20, 22)), noise((10, 9, 8))
    moved = apply_pw_shifts_remap_2d(wing.put(image), [[2.0]], [-3.0], [9.5], [10.5], border_nan=False)
    assert_array_equal(backend.to_numpy(moved)[:18, 3:], image[2:, :-3])
    ones = np.ones((2, 1, 2))
    centres = ([2.0, 7.0], [4.0], [2.0, 5.0])
    moved = apply_pw_shifts_remap_3d(wing.put(volume), 1 * ones, 2 * ones, 0 * ones, *centres)
    moved = backend.to_numpy(moved)
    assert_array_equal(moved[:9, :7], volume[1:, 2:])
    assert np.isnan(moved[9:]).all()
    assert np.isnan(moved[:, 7:]).all()


def test_remap_says_what_it_needs():
    image, ones = noise((20, 22)), np.ones((2, 2))
    with pytest.raises(ArrayShapeError, match="it must have 2 axes"):
        apply_pw_shifts_remap_2d(noise((4, 5, 6)), ones, ones, [1, 2], [1, 2])
    with pytest.raises(ArrayShapeError, match=r"centres of \(2, 3\) patches"):
        apply_pw_shifts_remap_2d(image, ones, ones, [1, 2], [1, 2, 3])
    with pytest.raises(ParameterError, match="patch_centers"):
        apply_pw_shifts_remap_2d(image, ones, ones, [2, 1], [1, 2])
    with pytest.raises(ParameterError, match="border_nan='x'"):
        apply_pw_shifts_remap_2d(image, ones, ones, [1, 2], [1, 2], border_nan="x")
    with pytest.raises(MovieValueError, match="finite"):
        apply_pw_shifts_remap_2d(image, ones * np.nan, ones, [1, 2], [1, 2])


@pytest.mark.parametrize("border_nan", [True, False, "min", "copy"])
def test_dft_shift_is_near_the_reference(wing, reference, border_nan):
    image = reference.inputs("motion")[0]["Y"][0]
    expected = reference.load("motion")[f"apply_shifts_dft_{border_nan}"]
    for source, is_freq in ((np.fft.fftn(image), True), (image, False)):
        moved = apply_shifts_dft(wing.put(source), (1.3, -2.6), 0.0, is_freq=is_freq, border_nan=border_nan)
        moved = backend.to_numpy(moved)
        assert_array_equal(np.isnan(moved), np.isnan(expected))
        assert_allclose(moved, expected, atol=0.12)  # the reference also turns a global phase, of about zero


def test_dft_shift_is_that_of_scipy(wing):
    for shape, shifts in (
        ((21, 33), (1.3, -2.6)),
        ((9, 11, 7), (0.4, 2.2, -1.5)),
    ):  # odd sides: no Nyquist frequency
        image = noise(shape)
        expected = np.fft.ifftn(scipy_fourier_shift(np.fft.fftn(image), shifts)).real
        moved = apply_shifts_dft(wing.put(np.fft.fftn(image)), shifts, border_nan=False)
        assert_allclose(backend.to_numpy(moved), expected, rtol=1e-5)


def test_phase_turns_the_spectrum(wing):
    image = noise((8, 9))
    for source, is_freq in ((np.fft.fftn(image), True), (image, False)):
        turned = apply_shifts_dft(wing.put(source), (0, 0), 0.4, is_freq=is_freq, border_nan=False)
        assert_allclose(backend.to_numpy(turned), image * np.cos(0.4), rtol=1e-5)


def test_dft_shift_says_what_it_needs():
    with pytest.raises(ArrayShapeError, match="one number per axis"):
        apply_shifts_dft(np.ones((4, 4)), (1, 2, 3), is_freq=False)
    with pytest.raises(ParameterError, match="finite numbers"):
        apply_shifts_dft(np.ones((4, 4)), (1, np.nan), is_freq=False)
    with pytest.raises(MovieValueError, match="src_freq"):
        apply_shifts_dft(np.full((4, 4), np.nan), (1, 1))


@pytest.mark.parametrize(
    "helper",
    [
        apply_pw_shifts_remap_2d,
        apply_pw_shifts_remap_3d,
        apply_shifts_dft,
        get_patch_centers,
        get_patch_edges,
        interpolate_shifts,
        sliding_window,
        sliding_window_3d,
        tile_and_correct,
        tile_and_correct_3d,
    ],
)
def test_helpers_are_found_beside_motion_correct(helper):
    assert helper.__name__ in registration.__all__
    assert getattr(registration, helper.__name__) is helper
