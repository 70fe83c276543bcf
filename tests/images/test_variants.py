"""Correlations by direction and without frame means, against their definitions and reference outputs."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import MovieShapeError
from gpucalcium.images import correlation_image_ecobost, local_correlations, local_correlations_multicolor
from tests.images.test_correlations import brute_force, movie_of
from tests.wings import REAL_DTYPES


def brute_colours(movie):
    """The definition, pixel by pixel: half the correlation downwards, down to the left, down to the right."""
    y = movie.astype(np.float64)
    rows, columns = movie.shape[1] - 1, movie.shape[2] - 1
    image = np.zeros((rows, columns, 3))
    for i, j in np.ndindex(rows, columns):
        for c, (a, b) in enumerate(
            [((i, j + 1), (i + 1, j + 1)), ((i, j + 1), (i + 1, j)), ((i, j), (i + 1, j + 1))]
        ):
            x, z = y[:, *a], y[:, *b]
            image[i, j, c] = np.corrcoef(x, z)[0, 1] / 2 if x.std() and z.std() else 0
    return image


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_colours_are_their_definition(wing, dtype):
    movie = movie_of((20, 5, 6), dtype=dtype)
    got = local_correlations_multicolor(wing.put(movie), swap_dim=False)
    assert got.dtype == np.float32
    assert type(got) is type(wing.put(movie))
    assert_allclose(backend.to_numpy(got), brute_colours(movie), atol=1e-5)
    last = np.moveaxis(movie, 0, -1)
    assert_array_equal(local_correlations_multicolor(last), backend.to_numpy(got))


def test_colours_with_an_offset_and_of_files(tmp_path):
    movie = movie_of((20, 5, 6)) + np.float32(1e4)
    expected = brute_colours(movie)
    tifffile.imwrite(tmp_path / "movie.tif", movie)
    for same in (movie, np.asfortranarray(movie)):
        assert_allclose(local_correlations_multicolor(same, False), expected, atol=1e-5)
    with backend.limit(chunk_frames=3):
        assert_allclose(local_correlations_multicolor(tmp_path / "movie.tif"), expected, atol=1e-5)


def test_colours_of_a_volume_are_those_of_its_planes(wing):
    movie = movie_of((20, 4, 5, 3))
    got = backend.to_numpy(local_correlations_multicolor(wing.put(movie), swap_dim=False))
    for z in range(3):
        expected = local_correlations_multicolor(movie[..., z], swap_dim=False)
        assert_allclose(got[:, :, z], expected, atol=1e-7)


def test_colours_of_constant_pixels_are_zero_and_of_nan_are_nan(wing):
    movie = movie_of((20, 5, 6))
    movie[:, 2, 3] = 7
    movie[4, 0, 0] = np.nan
    got = backend.to_numpy(local_correlations_multicolor(wing.put(movie), swap_dim=False))
    assert_array_equal(np.argwhere(np.isnan(got)), [[0, 0, 2]])
    assert_array_equal(got[2, 2, :2], 0)
    got = local_correlations_multicolor(wing.put(movie[:1]), swap_dim=False)
    assert_array_equal(backend.to_numpy(got)[1:], 0)  # one frame


@pytest.mark.parametrize("shape", [(9, 1, 4), (9, 4, 1), (9, 1, 1)])
def test_directions_need_two_rows_and_two_columns(shape):
    with pytest.raises(MovieShapeError, match="two rows and two columns"):
        local_correlations_multicolor(movie_of(shape), swap_dim=False)


# ---------------------------------------------------------------------------- without frame means


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_without_frame_means_is_its_definition(wing, dtype):
    movie = movie_of((20, 5, 6), dtype=dtype)
    centred = movie - movie.mean((1, 2), keepdims=True, dtype=np.float64)
    got = correlation_image_ecobost(wing.put(movie))
    assert type(got) is type(wing.put(movie))
    assert_allclose(backend.to_numpy(got), brute_force(centred, True), atol=1e-5)


def test_a_flicker_of_the_whole_field_and_an_offset_do_not_show(wing):
    movie = movie_of((40, 7, 11), dtype="float64")
    flicker = movie + 1e4 + np.random.default_rng(1).normal(0, 500, (40, 1, 1))
    got = backend.to_numpy(correlation_image_ecobost(wing.put(flicker)))
    assert_allclose(got, correlation_image_ecobost(movie), atol=1e-5)
    assert local_correlations(flicker, swap_dim=False).min() > 0.99


def test_volumes_files_and_chunks(tmp_path, wing):
    movie = movie_of((20, 4, 3, 5))
    centred = movie - movie.mean((1, 2, 3), keepdims=True, dtype=np.float64)
    got = correlation_image_ecobost(wing.put(movie), 7, object())
    assert_allclose(backend.to_numpy(got), brute_force(centred, False), atol=1e-5)
    np.save(tmp_path / "movie.npy", movie)
    with backend.limit(chunk_frames=7):
        again = correlation_image_ecobost(tmp_path / "movie.npy")
    assert_allclose(again, backend.to_numpy(got), atol=1e-6)


def test_means_run_over_finite_pixels(wing):
    movie = movie_of((20, 5, 6))
    bordered = np.pad(movie, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    got = backend.to_numpy(correlation_image_ecobost(wing.put(bordered)))
    assert_array_equal(np.isfinite(got), np.pad(np.ones((5, 6), bool), 1))
    assert_allclose(got[1:-1, 1:-1], correlation_image_ecobost(movie), atol=1e-6)


@pytest.mark.parametrize("movie", [np.ones((1, 3, 4)), np.full((9, 3, 4), 7, np.uint8), movie_of((9, 1, 1))])
def test_without_variance_or_neighbours_it_is_zero(wing, movie):
    got = correlation_image_ecobost(wing.put(movie))
    assert_array_equal(backend.to_numpy(got), np.zeros(movie.shape[1:]))


@settings(deadline=None, max_examples=30)
@given(
    hnp.arrays(
        np.int16,
        hnp.array_shapes(min_dims=3, max_dims=4, min_side=2, max_side=5),
        elements=st.integers(-99, 99),
    )
)
def test_values_are_in_range_and_shapes_as_said(movie):
    colours = local_correlations_multicolor(movie, swap_dim=False)
    assert colours.shape == (movie.shape[1] - 1, movie.shape[2] - 1, *movie.shape[3:], 3)
    assert np.all(np.abs(colours) <= 0.5)
    image = correlation_image_ecobost(movie)
    assert image.shape == movie.shape[1:]
    assert np.all(np.abs(image) <= 1)


# 2e-6: the reference sums in float32 (observed: 4e-7 and 6e-8)
def test_reference_images(reference):
    Y, stored = reference.inputs("summary_images")[0]["Y"], reference.load("summary_images")
    assert_allclose(
        local_correlations_multicolor(Y, False), stored["local_correlations_multicolor"], atol=2e-6
    )
    assert_allclose(correlation_image_ecobost(Y, 100), stored["correlation_image_ecobost"], atol=2e-6)
