"""Spatial filters against SciPy, on every wing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from gpucalcium import backend
from gpucalcium.backend import stencils
from tests.wings import REAL_DTYPES, wings_present

SCIPY_MODE = {"constant": "constant", "replicate": "nearest", "reflect": "reflect", "reflect101": "mirror"}
SHAPES = [(3, 7, 11), (1, 1, 1), (2, 1, 9), (4, 33, 31), (2, 5, 6, 7), (1, 4, 1, 3)]


def frames_of(shape, dtype="float32"):
    values = np.random.default_rng(3).normal(100, 30, shape)
    return (values > 100 if dtype == "bool" else values.clip(0, 127)).astype(dtype)


def rounding(frames, *kernels):
    """What float32 sums may be off: half an ulp for each product and each sum, of the largest value."""
    taps = sum(k.size for k in kernels)
    gain = np.prod([np.abs(k).sum() for k in kernels])
    return 2 * taps * 6e-8 * gain * np.abs(frames.astype(np.float64)).max() + 1e-30


@pytest.mark.parametrize("border", stencils.BORDERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_is_one_correlation_per_axis(wing, shape, border):
    frames = frames_of(shape)
    sigma, radius = (
        (1.5, 2.0, 0.7)[: len(shape) - 1],
        (3, 12, 2)[: len(shape) - 1],
    )  # reach beyond the frame, too
    weights = [stencils.gaussian_weights(s, r) for s, r in zip(sigma, radius, strict=True)]
    expected = frames.astype(np.float64)
    for axis, w in enumerate(weights):
        expected = ndimage.correlate1d(expected, w, axis + 1, mode=SCIPY_MODE[border])
    device_frames = wing.put(frames)
    got = backend.wing(device_frames).filters.gaussian(device_frames, sigma, radius, border)
    assert got.dtype == np.float32
    assert_allclose(backend.to_numpy(got), expected, rtol=0, atol=rounding(frames, *weights))


@pytest.mark.parametrize("border", stencils.BORDERS)
@pytest.mark.parametrize("size", [(3, 5, 1), (4, 3, 2), (1, 1, 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_box_is_the_uniform_filter(wing, shape, size, border):
    frames = frames_of(shape)
    size = size[: len(shape) - 1]
    expected = ndimage.uniform_filter(frames.astype(np.float64), (1, *size), mode=SCIPY_MODE[border])
    device_frames = wing.put(frames)
    got = backend.wing(device_frames).filters.box(device_frames, size, border)
    atol = rounding(frames, *[np.full(s, 1 / s) for s in size])
    assert_allclose(backend.to_numpy(got), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("border", stencils.BORDERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_correlate_takes_any_kernel(wing, shape, border):
    frames = frames_of(shape)
    kernel = np.random.default_rng(4).normal(size=(3, 5, 4)[: len(shape) - 1])
    kernel[0] = 0  # taps that are left out
    expected = np.stack(
        [ndimage.correlate(f.astype(np.float64), kernel, mode=SCIPY_MODE[border]) for f in frames]
    )
    device_frames = wing.put(frames)
    got = backend.wing(device_frames).filters.correlate(device_frames, kernel, border)
    assert_allclose(backend.to_numpy(got), expected, rtol=0, atol=rounding(frames, kernel))


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_every_real_dtype_gives_what_its_float32_values_give(wing, dtype):
    frames = wing.put(frames_of((3, 9, 10), dtype))
    as_float = wing.put(frames_of((3, 9, 10), dtype).astype(np.float32))
    filters = backend.wing(frames).filters
    got = filters.gaussian(frames, (1, 2), (2, 3), "reflect")
    assert_array_equal(
        backend.to_numpy(got), backend.to_numpy(filters.gaussian(as_float, (1, 2), (2, 3), "reflect"))
    )


def test_twins_agree_to_rounding():
    frames = frames_of((5, 40, 37))
    kernel = stencils.difference_kernel((3, 3), (6, 6))
    images = []
    for wing in wings_present():
        device_frames = wing.put(frames)
        filters = backend.wing(device_frames).filters
        images.append(backend.to_numpy(filters.correlate(device_frames, kernel, "replicate")))
    for image in images[1:]:
        assert_allclose(image, images[0], rtol=0, atol=rounding(frames, kernel))


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
def test_borders_are_those_of_numpy_pad(n, before, after):
    line = np.arange(n)
    for border, mode in (("replicate", "edge"), ("reflect", "symmetric"), ("reflect101", "reflect")):
        assert_array_equal(
            stencils.border_index(n, before, after, border), np.pad(line, (before, after), mode=mode)
        )
    assert_array_equal(
        stencils.border_index(n, before, after, "constant"), np.pad(line, (before, after), constant_values=-1)
    )


@settings(deadline=None, max_examples=25)
@given(
    st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
    st.floats(0.3, 4),
    st.integers(0, 9),
    st.sampled_from(stencils.BORDERS[1:]),
)
def test_a_constant_frame_stays_what_it_is(value, sigma, radius, border):
    frames = np.full((1, 6, 9), value, np.float32)
    got = backend.wing(frames).filters.gaussian(frames, (sigma, sigma), (radius, radius), border)
    assert_allclose(got, frames, rtol=4e-6, atol=1e-36)


def test_nan_spreads_as_far_as_the_kernel_and_no_further(wing):
    frames = np.ones((2, 15, 17), np.float32)
    frames[1, 7, 8] = np.nan
    device_frames = wing.put(frames)
    got = backend.to_numpy(backend.wing(device_frames).filters.box(device_frames, (3, 5), "reflect"))
    expected = np.zeros_like(frames, dtype=bool)
    expected[1, 6:9, 6:11] = True
    assert_array_equal(np.isnan(got), expected)


def test_threads_change_nothing(monkeypatch):
    frames = frames_of((13, 20, 21))
    filters = backend.wing(frames).filters
    results = []
    for threads in ("1", "3", "16"):
        monkeypatch.setenv("GPUCALCIUM_THREADS", threads)
        results.append(filters.gaussian(frames, (2, 2), (4, 4), "reflect"))
    assert_array_equal(results[1], results[0])
    assert_array_equal(results[2], results[0])


def test_difference_kernel_passes_spots_and_removes_background():
    kernel = stencils.difference_kernel((3, 3), (4, 4))
    assert np.count_nonzero(kernel) == 49  # the disc of radius 4
    assert abs(kernel.sum()) < 1e-15
    assert_array_equal(kernel, kernel.T)
    assert_array_equal(kernel, kernel[::-1])
    assert kernel[4, 4] == kernel.max() > 0
    assert stencils.difference_kernel((2, 3, 1), (4, 6, 2)).shape == (9, 13, 5)


def test_sigma_zero_is_the_identity():
    assert_array_equal(stencils.gaussian_weights(0, 2), [0, 0, 1, 0, 0])
    frames = frames_of((2, 3, 4))
    assert_array_equal(backend.wing(frames).filters.gaussian(frames, (0, 0), (2, 0), "constant"), frames)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("shape", [(3, 7, 11), (1, 1, 1), (2, 1, 9), (2, 33, 31)])
def test_bilateral_is_the_weighted_mean_of_a_disc(wing, shape, dtype):
    frames = frames_of(shape, dtype)
    device_frames = wing.put(frames)
    got = backend.to_numpy(backend.wing(device_frames).filters.bilateral(device_frames, 3, 40.0, 2.0))
    y = frames.astype(np.float64)
    padded = np.pad(y, ((0, 0), (3, 3), (3, 3)), mode="reflect" if min(shape[1:]) > 3 else "symmetric")
    if min(shape[1:]) <= 3:  # NumPy mirrors an axis of one pixel in its own way
        rows, columns = (stencils.border_index(n, 3, 3, "reflect101") for n in shape[1:])
        padded = y[:, rows][:, :, columns]
    weighted, total = np.zeros_like(y), np.zeros_like(y)
    for a, b in np.ndindex(7, 7):
        square = (a - 3) ** 2 + (b - 3) ** 2
        if square <= 9:
            there = padded[:, a : a + shape[1], b : b + shape[2]]
            weight = np.exp(-square / 8 - (there - y) ** 2 / 3200)
            weighted += weight * there
            total += weight
    assert got.dtype == np.float32
    assert_allclose(got, weighted / total, rtol=0, atol=29 * 6e-8 * max(1, y.max()))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 7, 11), (1, 1, 1), (2, 5, 6, 7)])
def test_median_of_a_box(wing, shape, dtype):
    frames = frames_of(shape, dtype)
    size = (3, 5, 1)[: len(shape) - 1]
    device_frames = wing.put(frames)
    got = backend.to_numpy(backend.wing(device_frames).filters.median(device_frames, size))
    expected = ndimage.median_filter(frames, (1, *size), mode="nearest")
    assert got.dtype == frames.dtype
    assert_array_equal(got, expected)
