"""Levels of pixels over time: against NumPy, chunk by chunk, and twin against twin."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from tests.wings import wings_present

DTYPES = ["uint8", "int16", "uint16", "int32", "float32", "float64"]


def values(dtype, n=37, pixels=131, seed=1):
    return (np.random.default_rng(seed).normal(80, 40, (n, pixels)).clip(0, 250)).astype(dtype)


def percentile(wing, frames, quantile, skip_nan=False):
    with wing.chosen():
        given, out = wing.put(frames), wing.put(np.empty(frames.shape[1], np.float32))
        backend.wing(given).baseline.percentile(given, quantile, skip_nan, out)
        return backend.to_numpy(out)


def changed(wing, frames, levels, lower, shares, method, dtype=np.float32):
    with wing.chosen():
        given = [wing.put(x) for x in (frames, levels, np.asarray(lower), np.asarray(shares, np.float32))]
        out = wing.put(np.empty(frames.shape, dtype))
        backend.wing(given[0]).baseline.subtract(*given, method, out)
        return backend.to_numpy(out)


# ---------------------------------------------------------------------------- percentiles


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "pixels"), [(1, 3), (2, 64), (37, 131), (2100, 17)])
def test_percentile_is_numpys(wing, dtype, n, pixels):
    frames = values(dtype, n, pixels)
    for quantile in (0, 8, 50, 99.9, 100):
        expected = np.percentile(frames.astype(np.float64), quantile, axis=0)
        assert_allclose(percentile(wing, frames, quantile), expected, rtol=2e-7)


def test_negative_and_infinite_values(wing):
    frames = np.array([[-3, 0, -np.inf], [-1, -0.0, 5], [-2, 1e-30, np.inf]], np.float32)
    assert_array_equal(percentile(wing, frames, 50), [-2, 0, 5])
    assert_array_equal(percentile(wing, frames, 0), [-3, 0, -np.inf])
    assert_array_equal(percentile(wing, frames.astype(np.float64), 100), [-1, np.float32(1e-30), np.inf])


def test_nan_are_propagated_or_left_out(wing):
    frames = values("float32", 12, 70)
    frames[np.random.default_rng(0).random(frames.shape) < 0.2] = np.nan
    frames[3, 5], frames[:, 9] = -np.nan, np.nan
    assert_allclose(percentile(wing, frames, 30), np.percentile(frames, 30, axis=0), rtol=2e-7)
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="All-NaN"):
        expected = np.nanpercentile(frames, 30, axis=0)
    assert_allclose(percentile(wing, frames, 30, True), expected, rtol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_twins_find_the_same_percentile_to_the_bit(dtype):
    frames = values(dtype, 41, 67)
    if dtype.startswith("float"):
        frames -= 100
        frames[7, 3] = np.nan
    for skip in (False, True):
        found = [percentile(wing, frames, 33.3, skip) for wing in wings_present()]
        for other in found[1:]:
            assert_array_equal(other, found[0])


@given(
    frames=st.sampled_from([np.float32, np.int16, np.uint8]).flatmap(
        lambda dtype: arrays.arrays(
            dtype, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=None if dtype != np.float32 else
            st.floats(-(2**20), 2**20, width=32, allow_subnormal=False),
        )
    ),
    quantile=st.floats(0, 100),
)  # fmt: skip
@settings(deadline=None)
def test_percentiles_lie_in_order(frames, quantile):
    cpu = wings_present()[0]
    found = percentile(cpu, frames, quantile)
    assert (found >= frames.min(axis=0)).all() and (found <= frames.max(axis=0)).all()
    assert_array_equal(found, percentile(cpu, frames[::-1].copy(), quantile))
    assert (found <= percentile(cpu, frames, min(100, quantile + 7))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "pixels"), [(1, 1), (3, 2), (9, 131)])
def test_median_of_each_frame(wing, dtype, n, pixels):
    frames = values(dtype, n, pixels)
    if dtype.startswith("float"):
        frames[np.random.default_rng(0).random(frames.shape) < 0.2] = np.nan
        frames[0] = np.nan
    out = wing.put(np.zeros(n))
    given = wing.put(frames)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns of frames without a number
        backend.wing(given).baseline.frame_medians(given, out)
        expected = np.nanmedian(frames.astype(np.float64), axis=1)
    assert_allclose(backend.to_numpy(out), expected, rtol=1e-6)  # of two floats the middle may be float32


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_median_of_the_whole_range_of_integers(wing, dtype):
    limits = np.iinfo(dtype)
    frames = np.array([[limits.min, limits.max, limits.max], [limits.min] * 3, [limits.max] * 3], dtype)
    out, given = wing.put(np.zeros(3)), wing.put(frames)
    backend.wing(given).baseline.frame_medians(given, out)
    assert_array_equal(backend.to_numpy(out), np.median(frames, axis=1))


# ---------------------------------------------------------------------------- means


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_sums_of_what_is_there(wing, dtype, chunk):
    frames = values(dtype)
    if dtype.startswith("float"):
        for seed, bad in enumerate((np.nan, np.inf, -np.inf)):
            frames[np.random.default_rng(seed).random(frames.shape) < 0.1] = bad
    sums, counts = wing.put(np.zeros(131)), wing.put(np.zeros(131))
    for at in range(0, len(frames), chunk):
        part = wing.put(frames[at : at + chunk])
        backend.wing(part).baseline.add_present(part, sums, counts)
    wide = frames.astype(np.float64)
    in_order = np.zeros(131)
    for frame in wide:
        in_order += np.nan_to_num(frame, posinf=0, neginf=0)
    assert_array_equal(backend.to_numpy(sums), in_order)  # to the bit, whatever the chunk and the wing
    assert_array_equal(backend.to_numpy(counts), np.isfinite(wide).sum(axis=0))


# ---------------------------------------------------------------------------- levels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("result", [np.float32, np.float64])
def test_frames_without_their_level(wing, dtype, result):
    frames, levels = values(dtype, 6, 71), values("float32", 3, 71, seed=2) + 1
    lower, shares = [0, 0, 1, 1, 2, 2], [0, 0.25, 0.5, 0.75, 0, 1]
    after = levels[np.minimum(np.array(lower) + 1, 2)].astype(np.float64)
    level = levels[lower] + np.array(shares)[:, None] * (after - levels[lower])
    for method, expected in enumerate(
        (frames - level, (frames - level) / level, (frames - level) / np.sqrt(level))
    ):
        got = changed(wing, frames, levels, lower, shares, method, result)
        assert got.dtype == result
        assert_allclose(got, expected, rtol=1e-5, atol=1e-4)  # float32, values to 250
    out = wing.put(np.empty((6, 71), np.float32))
    given = [wing.put(x) for x in (levels, np.array(lower), np.array(shares, np.float32))]
    backend.wing(out).baseline.between(*given, out)
    assert_allclose(backend.to_numpy(out), level, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", range(3))
def test_twins_subtract_the_same_to_the_bit(dtype, method):
    frames, levels = values(dtype, 9, 67), values("float32", 4, 67, seed=2) + 1
    lower, shares = np.arange(9) // 3, np.linspace(0, 1, 9)
    got = [changed(wing, frames, levels, lower, shares, method) for wing in wings_present()]
    for other in got[1:]:
        assert_array_equal(other, got[0])
