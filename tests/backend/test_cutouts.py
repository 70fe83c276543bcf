"""Squares gathered from frames: both wings, against one NumPy loop per frame and square, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium import backend
from tests.wings import REAL_DTYPES, wings_present

SIDE = 7


def by_loop(frames, corners, masks, mean, std):
    """One square at a time: cut what lies in the frame, z-score, then mask."""
    n, rows, columns = frames.shape
    out = np.zeros((n, *masks.shape), np.float32)
    for t in range(n):
        for v, (y, x) in enumerate(corners):
            part = np.zeros((SIDE, SIDE))
            ys, xs = np.arange(y, y + SIDE), np.arange(x, x + SIDE)
            iny, inx = (ys >= 0) & (ys < rows), (xs >= 0) & (xs < columns)
            z = (frames[t][np.ix_(ys[iny], xs[inx])].astype(np.float64) - mean) / std
            part[np.ix_(iny, inx)] = np.where(np.isfinite(z), z, 0)
            out[t, v] = (part * masks[v]).astype(np.float32)
    return out


def gathered(wing, frames, corners, masks, mean, std):
    put = wing.put(frames)
    found = backend.wing(put).cutouts.gather_patches(put, wing.put(corners), wing.put(masks), mean, std)
    return backend.to_numpy(found)


def scene(shape=(5, 23, 31), views=11, seed=0):
    rng = np.random.default_rng(seed)
    frames = rng.uniform(0, 120, shape)
    corners = np.stack([rng.integers(-3, shape[1] - 3, views), rng.integers(-3, shape[2] - 3, views)], axis=1)
    masks = rng.random((views, SIDE, SIDE)) < 0.6
    return frames, corners.astype(np.int32), masks


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_equals_a_loop_bit_for_bit(wing, dtype):
    frames, corners, masks = scene()
    frames = (frames > 60 if dtype == "bool" else frames).astype(dtype)
    mean, std = float(frames.mean(dtype=np.float64)), float(frames.std(dtype=np.float64))
    found = gathered(wing, frames, corners, masks, mean, std)
    assert found.dtype == np.float32
    assert_array_equal(found, by_loop(frames, corners, masks, mean, std))


def test_missing_pixels_and_frames_are_the_mean(wing):
    frames, corners, masks = scene()
    frames = frames.astype(np.float32)
    frames[:, :2], frames[:, :, -1], frames[3], frames[1, 9, 9] = np.nan, np.nan, np.nan, np.inf
    found = gathered(wing, frames, corners, masks, 60.0, 30.0)
    assert_array_equal(found, by_loop(frames, corners, masks, 60.0, 30.0))
    assert np.isfinite(found).all()
    assert not found[3].any()


def test_squares_outside_the_frame_and_none(wing):
    frames, _, masks = scene(views=4)
    far = np.array([(-SIDE, 0), (0, -SIDE), (23, 31), (2**20, -(2**20))], np.int32)
    assert not gathered(wing, frames, far, masks, 0.0, 1.0).any()
    assert gathered(wing, frames, far[:0], masks[:0], 0.0, 1.0).shape == (5, 0, SIDE, SIDE)
    assert gathered(wing, frames[:0], far, masks, 0.0, 1.0).shape == (0, 4, SIDE, SIDE)


def test_constant_movie_with_an_infinite_std_is_zero(wing):
    frames, corners, masks = scene()
    assert not gathered(wing, np.full_like(frames, 7), corners, masks, 7.0, np.inf).any()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_any_field_any_corner(rows, columns, seed):
    frames, corners, masks = scene((2, rows, columns), 5, seed)
    frames = frames.astype(np.int16)
    expected = by_loop(frames, corners, masks, 50.5, 3.25)
    for wing in wings_present():
        with wing.chosen():
            assert_array_equal(gathered(wing, frames, corners, masks, 50.5, 3.25), expected)
