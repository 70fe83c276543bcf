"""Displacing frames: against rolls, the definition of a shift, and reference outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.registration.apply import displace, fourier_shift

OPENCV_STEP = 32  # OpenCV's warps round sample coordinates to 1/32 pixel; ours do not
BORDERS = {"True": "nan", "False": "reflect", "min": "min", "copy": "copy"}


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 8, 9), (2, 7, 7), (2, 6, 5, 4), (1, 1, 8)])
def test_whole_pixel_fourier_shift_is_a_roll(wing, shape):
    frames = noise(shape)
    shifts = np.random.default_rng(1).integers(-3, 4, (shape[0], len(shape) - 1)).astype(np.float32)
    moved = backend.to_numpy(fourier_shift(wing.put(frames), wing.put(shifts)))
    expected = [np.roll(f, s.astype(int), range(f.ndim)) for f, s in zip(frames, shifts, strict=True)]
    assert_allclose(moved, expected, rtol=1e-5)


def test_nyquist_frequency_is_scaled_by_the_cosine(wing):
    frames = np.tile([1.0, -1.0], 4)[None, None].astype(np.float32)  # cos(pi c): nothing but Nyquist
    moved = fourier_shift(wing.put(frames), wing.put(np.array([(0, 0.25)], np.float32)))
    assert_allclose(backend.to_numpy(moved), frames * np.cos(np.pi * 0.25), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_fourier_shifts_add_up(a, b):
    frames = noise((1, 9, 7))  # odd sides: no Nyquist frequency, so shifts form a group
    one = fourier_shift(frames, np.array([(a + b, 0)], np.float32))
    two = fourier_shift(fourier_shift(frames, np.array([(a, 0)], np.float32)), np.array([(b, 0)], np.float32))
    assert_allclose(one, two, atol=2e-3)


def test_fourier_shift_fills_missing_pixels_with_the_mean(wing):
    frames = noise((2, 6, 5))
    frames[0, 1, 1] = np.nan
    frames[1] = np.nan
    moved = backend.to_numpy(fourier_shift(wing.put(frames), wing.put(np.zeros((2, 2), np.float32))))
    assert moved[0, 1, 1] == pytest.approx(np.nanmean(frames[0]), rel=1e-5)
    assert_array_equal(moved[1], 0)


@pytest.mark.parametrize("border", ["nan", "min", "copy", "reflect"])
def test_fourier_path_has_the_borders_of_the_bicubic_one(wing, border):
    frames = noise((3, 12, 11))
    shifts = np.array([(1.3, -2.6), (0, 0), (-3, 0.4)], np.float32)
    moved = [
        backend.to_numpy(
            displace(wing.put(frames), wing.put(shifts), border=border, fourier=fourier, offset=20.0)
        )
        for fourier in (False, True)
    ]
    assert_array_equal(np.isnan(moved[0]), np.isnan(moved[1]))
    assert_allclose(moved[1][1], moved[0][1], atol=1e-3)  # not moved


def test_volumes_are_shifted_by_fourier_transform(wing):
    frames = noise((2, 6, 5, 4)).astype(np.uint16)
    shifts = np.array([(1, 0, -1), (0, 2, 0)], np.float32)
    moved = displace(wing.put(frames), wing.put(shifts), border="reflect", offset=1.0)
    expected = [np.roll(f, s.astype(int), range(3)) for f, s in zip(frames, shifts, strict=True)]
    assert_allclose(backend.to_numpy(moved), np.array(expected) - 1.0, rtol=1e-4)


@pytest.mark.parametrize("border_nan", BORDERS)
def test_bicubic_reproduces_the_reference(reference, border_nan):
    frame = reference.inputs("motion")[0]["Y"][:1]
    shift = np.round(np.array([(1.3, -2.6)]) * OPENCV_STEP) / OPENCV_STEP
    moved = displace(frame, shift.astype(np.float32), border=BORDERS[border_nan])[0]
    expected = reference.load("motion")[f"apply_shift_iteration_{border_nan}"]
    assert_allclose(moved, expected, atol=5e-5)  # float32 of values near 50


def test_fourier_shift_is_near_the_reference(reference):
    frame = reference.inputs("motion")[0]["Y"][:1]
    moved = displace(frame, np.array([(1.3, -2.6)], np.float32), border="nan", fourier=True)[0]
    expected = reference.load("motion")["apply_shifts_dft_True"]
    assert_array_equal(np.isnan(moved), np.isnan(expected))
    assert_allclose(moved, expected, atol=0.1)  # the reference also turns a global phase, of about zero
