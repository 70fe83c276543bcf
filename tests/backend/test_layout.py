"""Frames in the dtype and the order of pixels of a file: against NumPy, and twin against twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.backend.cpu import layout
from tests.wings import REAL_DTYPES, wings_present

STORED = ["float32", "float16", "int16", "uint16"]
SHAPES = [(1, 1, 1), (3, 7, 9), (2, 8, 8), (2, 31, 33), (2, 64, 5), (5, 1, 40), (3, 4, 5, 6), (2, 9, 1, 17)]
FOR_INTEGERS = [0.5, 1.5, -0.5, 2.5, 32766.5, 65534.5, -1e9, 1e9, np.inf, -np.inf, np.nan, -0.0]
FOR_HALVES = [65519.9, 65520, 2.0**-14, 2.0**-24, 2.0**-25, 1.5 * 2.0**-24, 2.0**-14 - 2.0**-26, 1e-30, 1e-42]
TIES_OF_HALVES = [1 + 2.0**-11, 1 + 3 * 2.0**-11]
ODD = np.array([*FOR_INTEGERS, *FOR_HALVES, *TIES_OF_HALVES], np.float32)


def expected(frames, dtype, fill):
    """In words of NumPy."""
    values = frames.astype(np.float32)
    if dtype == "float32":
        return values
    about = np.finfo(dtype) if dtype == "float16" else np.iinfo(dtype)
    clipped = np.clip(values, about.min, about.max)
    if dtype == "float16":
        return clipped.astype(np.float16)
    return np.where(np.isnan(values), fill, np.rint(clipped)).astype(dtype)


def frames_of(shape, seed=0):
    frames = np.random.default_rng(seed).normal(0, 30_000, shape).astype(np.float32)
    frames.flat[: len(ODD)] = ODD[: frames.size]
    return frames


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_numpy(wing, shape, dtype):
    frames = frames_of(shape)
    wanted = expected(frames, dtype, 7)
    stored = backend.to_numpy(backend.wing(wing.put(frames)).layout.stored_as(wing.put(frames), dtype, 7))
    assert stored.dtype == dtype
    assert_array_equal(stored, wanted.reshape(len(frames), -1))
    turned = backend.wing(wing.put(frames)).layout.frames_to_fortran(wing.put(frames), dtype, 7)
    assert_array_equal(backend.to_numpy(turned), np.stack([frame.ravel(order="F") for frame in wanted]))


@pytest.mark.parametrize("dtype", STORED)
def test_twins_agree_bit_for_bit(dtype):
    frames = frames_of((4, 40, 37), seed=3)
    for name in ("stored_as", "frames_to_fortran"):
        results = []
        for wing in wings_present():
            with wing.chosen():
                given_frames = wing.put(frames)
                result = getattr(backend.wing(given_frames).layout, name)(given_frames, dtype, 3)
                results.append(backend.to_numpy(result).tobytes())
        assert len(set(results)) == 1


@pytest.mark.parametrize("taken", REAL_DTYPES)
@pytest.mark.parametrize("dtype", STORED)
def test_every_real_dtype(wing, taken, dtype):
    frames = (np.arange(2 * 9 * 10).reshape(2, 9, 10) % 117).astype(taken)
    put = wing.put(frames)
    for name, order in (("stored_as", "C"), ("frames_to_fortran", "F")):
        found = backend.to_numpy(getattr(backend.wing(put).layout, name)(put, dtype, 0))
        assert_array_equal(found, np.stack([f.ravel(order=order) for f in expected(frames, dtype, 0)]))


@pytest.mark.parametrize("name", ["stored_as", "frames_to_fortran"])
def test_given_memory_is_filled(wing, name):
    frames = wing.put(frames_of((3, 20, 11)))
    op = getattr(backend.wing(frames).layout, name)
    out = wing.put(np.zeros((3, 220), np.int16))
    assert op(frames, "int16", -5, out) is out
    assert_array_equal(backend.to_numpy(out), backend.to_numpy(op(frames, "int16", -5)))


@given(hnp.arrays(np.float32, st.tuples(*[st.integers(1, 12)] * 3), elements=st.floats(width=32)))
@settings(deadline=None)
def test_any_number_becomes_the_nearest_float16(frames):
    wanted = expected(frames, "float16", 0)
    assert_array_equal(layout.stored_as(frames, "float16", 0), wanted.reshape(len(frames), -1))


def test_every_float16_is_kept():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)][None, None]
    assert_array_equal(layout.stored_as(halves.astype(np.float32), "float16", 0), halves[0])


def test_strides_do_not_matter(wing):
    frames = frames_of((4, 12, 10))
    for view in (frames[::2], frames[:, ::-1], frames.transpose(0, 2, 1), frames[:, 1:7, 2:5]):
        found = layout.frames_to_fortran(view, "float32", 0)
        assert_array_equal(found, np.stack([f.ravel(order="F") for f in view]))
