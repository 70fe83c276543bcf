"""Traces of cells: means over pixels, smoothed, normalised."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.cinac.traces import mean_traces, smoothed, z_scored
from gpucalcium.movies import open_movie
from tests.cinac.given import noisy, recording


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64", "float32", "float64"])
def test_raw_traces_are_means_over_pixels(wing, dtype):
    movie = noisy(dtype=dtype)
    made = recording(wing.put(movie))
    traces = made.get_raw_traces(normalized=False)
    y = movie.astype("f8")
    triangle = np.triu(np.ones((4, 4), bool))
    expected = [y[:, 3:9, 2:7].mean((1, 2)), y[:, 4, 12], y[:, 8:12, 8:12][:, triangle].mean(1)]
    assert_allclose(traces, expected, rtol=1e-12)
    traces[:] = 0  # a copy
    assert_allclose(made.get_raw_traces(normalized=True), z_by_numpy(expected), atol=1e-9)


def z_by_numpy(traces):
    traces = np.asarray(traces)
    return (traces - traces.mean(-1, keepdims=True)) / traces.std(-1, keepdims=True)


def test_pixels_that_are_nan_are_left_out(wing):
    movie = noisy()
    movie[7:9, 3:5] = movie[20] = np.nan
    made = recording(wing.put(movie))
    raw = made.get_raw_traces(normalized=False)
    box = movie[:, 3:9, 2:7].reshape(37, -1).astype("f8")
    there = np.arange(37) != 20
    assert_allclose(raw[0, there], np.nanmean(box[there], 1))
    assert np.isnan(raw[:, 20]).all()
    normal = made.get_raw_traces(normalized=True)
    assert_array_equal(normal[:, 20], 0)
    assert_allclose(normal[0, there], z_by_numpy(raw[0, there]))
    assert np.isfinite(made.get_smooth_traces(normalized=True)).all()


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunks_change_no_trace(wing, chunk):
    movie = noisy()
    movie[11, 4] = np.nan
    pixels = [np.array([60, 61, 80]), np.array([], np.int64), np.arange(200)]
    with backend.use("cpu"):
        whole = mean_traces(open_movie(movie), pixels)
    with backend.limit(chunk_frames=chunk):
        assert_array_equal(mean_traces(open_movie(wing.put(movie)), pixels), whole)
    assert np.isnan(whole[1]).all()


def test_smooth_traces():
    made = recording()
    raw = made.get_raw_traces(normalized=False)
    weights = np.hamming(7) / np.hamming(7).sum()
    ends = np.concatenate([raw[:, 3:0:-1], raw, raw[:, -2:-5:-1]], 1)
    expected = np.stack([np.convolve(row, weights, "valid") for row in ends])
    assert_allclose(made.get_smooth_traces(normalized=False), expected, rtol=1e-12)
    assert_allclose(made.get_smooth_traces(normalized=True), z_by_numpy(expected) - 2, atol=1e-9)


def test_the_smooth_trace_of_one_cell():
    made = recording()
    for cell in range(3):
        assert_array_equal(made.smooth_trace(cell), made.get_smooth_traces(normalized=True)[cell])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_short_traces_are_smoothed(n):
    trace = np.arange(n, dtype=float)
    assert smoothed(trace).shape == (n,)
    assert_allclose(smoothed(np.full((2, n), 3.0)), 3)
    assert smoothed(trace).min() >= 0
    assert smoothed(trace).max() <= n - 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9, -3.7])
def test_constant_traces_are_not_nan(value):
    made = recording(np.full((9, 13, 17), value))
    assert_array_equal(made.get_raw_traces(normalized=True), np.zeros((3, 9)))
    assert_array_equal(made.get_smooth_traces(normalized=True), np.full((3, 9), -2.0))


def test_z_scores_of_what_is_missing():
    assert_array_equal(z_scored(np.full((2, 4), np.nan)), 0)
    assert_allclose(z_scored(np.array([1.0, np.nan, 3])), [-1, 0, 1])
