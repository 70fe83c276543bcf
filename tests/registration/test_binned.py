"""Median over bins against the formula, in strips and chunks, with missing values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies import movie
from gpucalcium.registration.binned import bin_median, bin_median_3d

MOVIE = np.random.default_rng(0).normal(100, 20, (47, 11, 9)).astype("float32")


def formula(values, window):
    bins = len(values) // window
    means = values[: bins * window].astype(float).reshape(bins, window, *values.shape[1:]).mean(axis=1)
    return np.median(means, axis=0)


@pytest.mark.parametrize("window", [1, 7, 10, 47])
def test_is_the_formula(wing, window):
    found = bin_median(wing.put(MOVIE), window)
    assert backend.is_cupy(found) == (wing.name != "cpu")
    assert_allclose(backend.to_numpy(found), formula(MOVIE, window), rtol=1e-6)


@pytest.mark.parametrize("bad", [None, np.nan, np.inf])
def test_is_the_method_of_movies(bad):
    frames = MOVIE.copy()
    if bad is not None:
        frames[np.random.default_rng(1).random(frames.shape) < 0.1] = bad
    for window in (1, 10, 100):
        assert_array_equal(movie(frames, fr=30).bin_median(window), bin_median(frames, window))


def test_volumes(wing):
    volumes = MOVIE.reshape(47, 11, 3, 3)
    assert_allclose(backend.to_numpy(bin_median_3d(wing.put(volumes), 5)), formula(volumes, 5), rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_chunks_and_strips_change_nothing(chunk):
    whole = bin_median(MOVIE)
    with backend.limit(chunk_frames=chunk):
        assert_array_equal(bin_median(MOVIE), whole)
    with backend.limit(chunk_frames=chunk, memory=800):  # less than the means of four bins: rows one by one
        assert_array_equal(bin_median(MOVIE), whole)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_any_dtype(dtype):
    assert_allclose(bin_median(MOVIE.astype(dtype)), formula(MOVIE.astype(dtype), 10), rtol=1e-6)


def test_short_movies_are_one_bin():
    assert_allclose(bin_median(MOVIE[:4]), MOVIE[:4].mean(axis=0), rtol=1e-6)
    assert_array_equal(bin_median(MOVIE[:1]), MOVIE[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_values(bad):
    holes = MOVIE.copy()
    holes[3, 2, 2] = holes[:, 5, 5] = bad
    holes[10:20, 7, 7] = bad
    found = bin_median(holes)
    assert np.isnan(found[5, 5])
    assert np.isfinite(np.delete(found.ravel(), 5 * 9 + 5)).all()
    means = np.delete(MOVIE[:40, 7, 7], np.s_[10:20]).reshape(3, 10).mean(axis=1)
    assert_allclose(found[7, 7], np.median(means), rtol=1e-6)
    strict = bin_median(holes, exclude_nans=False)
    assert_array_equal(np.argwhere(np.isnan(strict)), [[2, 2], [5, 5], [7, 7]])


def test_errors():
    for window in (0, 2.5):
        with pytest.raises(ParameterError, match=f"window={window}"):
            bin_median(MOVIE, window)
    with pytest.raises(MovieShapeError, match="use bin_median for images"):
        bin_median_3d(MOVIE)
