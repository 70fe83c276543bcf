"""Mean and deviation of a whole movie, in one pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from gpucalcium import backend
from gpucalcium.cinac import CinacDataMovie
from gpucalcium.cinac.moments import movie_moments
from gpucalcium.errors import (
    MovieShapeError,
    MovieValueError,
    NotSupportedError,
)
from tests.cinac.given import noisy


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_chunks_and_devices_change_no_bit(wing, chunk):
    movie = noisy()
    movie[3:9, 4] = np.nan
    with backend.use("cpu"):
        whole = movie_moments(movie)
    with backend.limit(chunk_frames=chunk):
        assert movie_moments(wing.put(movie)) == whole
        assert movie_moments(movie) == whole
    assert whole[2] == np.isnan(movie).sum()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1e3, -1e6, 1e9]),
    st.sampled_from([1e-3, 1.0, 1e5]),
    st.floats(0, 0.9),
)
def test_moments_far_from_zero(seed, offset, spread, missing):
    rng = np.random.default_rng(seed)
    movie = offset + spread * rng.normal(size=(9, 3, 5))
    movie[rng.random(movie.shape) < missing] = np.nan
    movie[0, 0, 0] = offset
    mean, std, absent = movie_moments(movie)
    # differences from a pixel's first value are rounded to float32: 1e-7 of what they are at most
    reach = np.nanmax(np.abs(movie)) if missing else np.ptp(movie)
    assert_allclose([mean, std], [np.nanmean(movie), np.nanstd(movie)], rtol=1e-12, atol=2e-7 * reach + 1e-12)
    assert absent == np.isnan(movie).sum()


@pytest.mark.parametrize(
    ("movie", "error", "text"),
    [
        (np.full((3, 4, 4), np.nan), MovieValueError, "nothing but NaN"),
        (np.array([[[1.0, np.inf]], [[2, 3]]]), MovieValueError, "infinite"),
        (np.array([[[1.0, 2]], [[-np.inf, 3]]]), MovieValueError, "infinite"),
        (np.zeros((0, 4, 4)), MovieShapeError, "empty"),
        (np.zeros((2, 4, 4, 4)), NotSupportedError, r"\(T, H, W\) is expected"),
    ],
)
def test_what_cannot_be_normalised(movie, error, text):
    with pytest.raises(error, match=text):
        CinacDataMovie(movie).mean  # noqa: B018
