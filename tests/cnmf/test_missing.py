"""Missing values: filled while a movie is read, as `interpolate_missing_data` fills them in memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.cnmf._movie import PixelMovie, images_movie
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.missing import Gaps, Interpolated, without_missing
from gpucalcium.cnmf.preprocessing import interpolate_missing_data
from gpucalcium.errors import MovieValueError
from gpucalcium.movies import open_movie
from tests.cnmf.reads import Counted
from tests.cnmf.scenes import gaussian_cells

SETTINGS = {"k": 4, "gSig": [2, 2], "p": 1, "fr": 30, "decay_time": 0.3, "ssub": 2, "tsub": 2}


def holed(shape=(40, 6, 7), seed=0, share=0.3):
    rng = np.random.default_rng(seed)
    movie = rng.standard_normal(shape).astype(np.float32)
    movie[rng.random(shape) < share] = np.nan
    movie[:, 0] = np.nan  # a border
    movie[:3, 1, 1] = movie[-5:, 1, 2] = np.nan
    movie[10:13] = np.nan  # whole frames
    return movie


def in_memory(movie):
    filled, _ = interpolate_missing_data(np.moveaxis(movie, 0, -1))
    return np.moveaxis(filled, -1, 0)


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_is_the_interpolation_of_arrays_in_memory(wing, chunk):
    movie = holed()
    with backend.limit(chunk_frames=chunk):
        source = open_movie(wing.put(movie))
        filled = Interpolated(source, Gaps.of(source))
        found = np.concatenate([backend.to_numpy(x) for x in backend.stream(filled)])
        assert_array_equal(filled.read(slice(3, 30, 4)), found[3:30:4])
    assert_allclose(found, in_memory(movie), rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(0, 1), st.sampled_from(["float32", "float64"]))
def test_any_pattern_of_missing_values(T, seed, share, dtype):
    rng = np.random.default_rng(seed)
    movie = rng.standard_normal((T, 2, 3)).astype(dtype)
    movie[rng.random(movie.shape) < share] = np.nan
    source = open_movie(movie)
    assert_allclose(Interpolated(source, Gaps.of(source)).read(slice(None)), in_memory(movie), atol=1e-6)


def test_what_is_whole_stays_what_it_is():
    movie = images_movie(np.ones((5, 3, 4), np.float32))
    assert without_missing(movie) is movie


@pytest.mark.parametrize("value, words", [(np.nan, "every value"), (np.inf, "infinite")])
def test_nothing_can_be_made_of_nothing(value, words):
    with pytest.raises(MovieValueError, match=words):
        without_missing(images_movie(np.full((5, 3, 4), value, np.float32)))


def test_a_matrix_of_pixels_and_frames():
    movie = holed()
    Yr = movie.reshape(len(movie), -1, order="F").T
    found = CNMF(1).preprocess(Yr)
    assert isinstance(found, PixelMovie)
    assert_allclose(found.source.read(slice(None)).T, interpolate_missing_data(Yr)[0], atol=1e-6)


@pytest.mark.parametrize("room", [10, 0.6])
def test_fit_and_refit_never_hold_a_movie_that_does_not_fit(room):
    """0.6 of the movie is the budget: what is filled is streamed, as one without missing values would be."""
    Y = gaussian_cells((40, 50), T=1200).Y
    Y[:, :2], Y[40:43], Y[7, 5:9] = np.nan, np.nan, np.nan
    whole = in_memory(Y)

    def fitted(movie):
        source = Counted(movie)
        tracemalloc.start()
        with backend.limit(memory=int(room * Y.nbytes)):
            estimates = CNMF(1, **SETTINGS).fit(source).refit(source).estimates
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return estimates, source.times(), peak

    fitted(whole)  # what is compiled and imported on the way does not count
    expected, times, peak = fitted(whole)
    found, times_filled, peak_filled = fitted(Y)
    assert times_filled <= times + (2.1 if room < 1 else 0)  # both runs look for what is missing once more
    if room < 1:
        assert peak_filled < 1.1 * peak
    assert_allclose(found.C, expected.C, rtol=1e-4, atol=1e-4 * expected.C.max())
    assert_allclose(found.A.toarray(), expected.A.toarray(), atol=1e-5)
