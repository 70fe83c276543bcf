"""Sums of products of neighbouring pixels, on every wing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from tests.wings import REAL_DTYPES, wings_present

OFFSETS = np.array([1, 36, 37, 38])


def frames_of(shape, dtype="float32"):
    values = np.random.default_rng(5).normal(60, 20, shape)
    return (values > 60 if dtype == "bool" else values.clip(0, 127)).astype(dtype)


def summed(wing, frames, offsets=OFFSETS, chunks=None):
    """The sums of a movie fed in chunks of these lengths."""
    pilot, offsets = wing.put(frames[0].copy()), wing.put(offsets)
    sums = wing.put(np.zeros((2 + len(offsets), frames[0].size)))
    for part in np.split(frames, np.cumsum(chunks or [])):
        if len(part):
            part = wing.put(part)
            backend.wing(part).correlation.add_products(part, pilot, offsets, sums)
    return backend.to_numpy(sums)


def plain_sums(frames, offsets=OFFSETS):
    """The same in plain NumPy, float64 throughout."""
    x = frames.reshape(len(frames), -1).astype(np.float64)
    x = x - x[0]
    rows = [x.sum(0), (x**2).sum(0)]
    for offset in offsets:
        products = np.zeros(x.shape[1])
        products[: x.shape[1] - offset] = (x[:, : x.shape[1] - offset] * x[:, offset:]).sum(0)
        rows.append(products)
    return np.stack(rows)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_agrees_with_plain_numpy(wing, dtype):
    frames = frames_of((19, 5, 37), dtype)
    # integer sums are exact; differences of floats are rounded to 24 bits
    rtol = 1e-6 if np.dtype(dtype).kind == "f" else 0
    expected = plain_sums(frames)
    assert_allclose(summed(wing, frames), expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 16, 17])
@pytest.mark.parametrize("pixels", [40, 2047, 2048, 2049, 4100])
def test_sizes_about_the_edges_of_tiles(wing, frames, pixels):
    movie = frames_of((frames, 1, pixels), "int16")
    assert_array_equal(summed(wing, movie), plain_sums(movie))


@pytest.mark.parametrize("offsets", [[], [1], [3000], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]])
def test_any_number_of_offsets_short_or_long(wing, offsets):
    movie = frames_of((9, 2, 2100), "uint16")
    offsets = np.array(offsets, np.int64)
    assert_array_equal(summed(wing, movie, offsets), plain_sums(movie, offsets))


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", "float64"])
def test_twins_and_chunks_agree_bit_for_bit(dtype):
    movie = frames_of((29, 6, 37), dtype)
    results = [
        summed(wing, movie, chunks=chunks)
        for wing in wings_present()
        for chunks in ([], [1] * 28, [3, 8, 16], [13])
    ]
    for result in results[1:]:
        assert_array_equal(result, results[0])


def test_threads_change_nothing(monkeypatch):
    movie = frames_of((11, 90, 91))
    cpu = wings_present()[0]
    results = []
    for threads in ("1", "2", "7"):
        monkeypatch.setenv("GPUCALCIUM_THREADS", threads)
        results.append(summed(cpu, movie))
    assert_array_equal(results[1], results[0])
    assert_array_equal(results[2], results[0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64"])
def test_extreme_integers_do_not_wrap(wing, dtype):
    ends = np.iinfo(dtype)
    movie = np.array([ends.min, ends.max, ends.min, ends.max], dtype).reshape(4, 1, 1).repeat(40, 2)
    expected = plain_sums(movie)
    assert_allclose(summed(wing, movie), expected, rtol=1e-7)


def test_nan_stays_in_its_pixel_and_pairs(wing):
    movie = frames_of((10, 1, 100))
    movie[4, 0, 50] = np.nan
    sums = summed(wing, movie)
    assert_array_equal(np.flatnonzero(np.isnan(sums[0])), [50])
    assert_array_equal(np.flatnonzero(np.isnan(sums[2])), [49, 50])
    assert_array_equal(np.flatnonzero(np.isnan(sums[3])), [14, 50])
