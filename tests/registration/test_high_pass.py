"""High-pass filters of frames: stored results, plain formulas, both wings, streaming, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import correlate

from gpucalcium import backend
from gpucalcium.backend.stencils import difference_kernel
from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.registration.high_pass import HighPassed, high_pass_filter_space

MOVIE = np.random.default_rng(0).normal(100, 20, (7, 23, 18)).astype("float32")
VOLUMES = np.random.default_rng(1).normal(100, 20, (4, 11, 9, 6)).astype("float32")


def test_stored_results_are_met(reference):
    frame, stored = reference.inputs("motion")[0]["Y"][0], reference.load("motion")
    assert_allclose(high_pass_filter_space(frame, [3, 3]), stored["high_pass_filter_space"], atol=1e-4)
    butter = high_pass_filter_space(frame, freq=5, order=2)
    assert_allclose(butter, stored["high_pass_filter_space_butter"], atol=1e-4)


def test_disc_is_the_formula(wing):
    kernel = difference_kernel((2, 3), (3, 4))
    found = high_pass_filter_space(wing.put(MOVIE[0]), (2, 3))
    assert backend.is_cupy(found) == (wing.name != "cpu")
    assert_allclose(
        backend.to_numpy(found), correlate(MOVIE[0].astype(float), kernel, mode="reflect"), atol=1e-3
    )


@pytest.mark.parametrize("shape", [(23, 18), (22, 17)])
def test_butterworth_is_the_formula(wing, shape):
    image = MOVIE[0][: shape[0], : shape[1]]
    k = np.sqrt(sum(x**2 for x in np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in shape), indexing="ij")))
    expected = np.fft.ifft2(np.fft.fft2(image.astype(float)) * (1 - 1 / (1 + (k / 3.5) ** 6))).real
    found = high_pass_filter_space(wing.put(image), freq=3.5, order=3)
    assert_allclose(backend.to_numpy(found), expected, atol=1e-3)


@pytest.mark.parametrize("options", [{"gSig_filt": 3}, {"freq": 4.0, "order": 2}])
@pytest.mark.parametrize("movie", [MOVIE, VOLUMES], ids=["planes", "volumes"])
def test_movies_are_filtered_frame_by_frame(wing, movie, options):
    whole = high_pass_filter_space(wing.put(movie), **options)
    assert backend.is_cupy(whole) == (wing.name != "cpu")
    with backend.limit(chunk_frames=2):
        in_chunks = HighPassed(open_movie(wing.put(movie)), **options).read(slice(1, None, 2))
    assert_array_equal(in_chunks, backend.to_numpy(whole)[1::2])
    one = high_pass_filter_space(movie[2:3], **options)
    assert_allclose(backend.to_numpy(whole)[2], one[0], atol=1e-4)


def test_three_widths_make_a_volume():
    volume = VOLUMES[0]
    assert_allclose(high_pass_filter_space(volume, (2, 2, 2)), high_pass_filter_space(VOLUMES, 2)[0])
    assert high_pass_filter_space(volume, (2, 2)).shape == volume.shape  # else a movie of images


@settings(deadline=None, max_examples=20)
@given(st.floats(-1e3, 1e3), st.integers(1, 4))
def test_brightness_does_not_matter(level, g):
    plain = high_pass_filter_space(MOVIE[0], (g, g))
    assert_allclose(high_pass_filter_space(MOVIE[0] + np.float32(level), (g, g)), plain, atol=0.02)
    assert_allclose(high_pass_filter_space(np.full((9, 8), level, "float32"), (g, g)), 0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float64", "bool"])
def test_any_dtype_and_order(dtype):
    image = (MOVIE[0] > 100 if dtype == "bool" else MOVIE[0]).astype(dtype)
    for options in ({"gSig_filt": (3, 3)}, {"freq": 2, "order": 1}):
        found = high_pass_filter_space(np.asfortranarray(image), **options)
        assert found.dtype == np.float32
        assert_allclose(found, high_pass_filter_space(image.astype("float32"), **options), atol=1e-4)


def test_one_pixel():
    assert_allclose(high_pass_filter_space(np.ones((1, 1)), (3, 3)), 0, atol=1e-6)
    assert_allclose(high_pass_filter_space(np.ones((1, 1)), freq=1, order=1), 0, atol=1e-6)


def test_errors():
    for options in ({}, {"gSig_filt": 3, "freq": 1, "order": 1}, {"freq": 2}, {"gSig_filt": 3, "order": 1}):
        with pytest.raises(ParameterError, match="give either gSig_filt, or freq and order"):
            high_pass_filter_space(MOVIE, **options)
    with pytest.raises(ParameterError, match="greater than 0"):
        high_pass_filter_space(MOVIE, (0, 3))
    with pytest.raises(ParameterError, match="freq=-1"):
        high_pass_filter_space(MOVIE, freq=-1, order=2)
    with pytest.raises(ArrayShapeError, match="has 3 widths"):
        HighPassed(open_movie(MOVIE), (3, 3, 3))
