import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import random as random_sparse

from gpucalcium import backend
from gpucalcium.cnmf._movie import cropped, images_movie, pixel_movie
from gpucalcium.errors import MovieShapeError
from gpucalcium.movies import open_movie


def scene(dims=(5, 7), T=23, K=3, seed=0):
    rng = np.random.default_rng(seed)
    Y = rng.random((T, *dims)).astype(np.float32)
    A = random_sparse(int(np.prod(dims)), K, 0.3, "csc", np.float32, rng)
    return Y, A, Y.reshape(T, -1, order="F").T.astype(np.float64)


@pytest.mark.parametrize("dims", [(5, 7), (3, 4, 6), (1, 1)])
def test_images_and_matrix_see_the_same(wing, dims):
    Y, A, Yr = scene(dims)
    for movie in (images_movie(wing.put(Y)), pixel_movie(wing.put(Yr.astype(np.float32)))):
        assert (movie.d, movie.T) == Yr.shape
        assert_allclose(movie.project(A), A.T @ Yr, rtol=1e-6, atol=1e-9)
        assert_allclose(movie.in_fortran_order(movie.mean()), Yr.mean(1), rtol=1e-6)


def test_samples_are_entries_of_the_full_product(wing):
    Y, A, Yr = scene()
    movie = images_movie(wing.put(Y))
    traces = np.random.default_rng(1).standard_normal((3, len(Y)))
    pattern = movie.in_frame_order(A)
    columns = np.repeat(np.arange(3), np.diff(pattern.indptr))
    sums, squares = movie.sample(traces, pattern.indices, columns, squares=True)
    rows = movie.fortran_rows(pattern.indices)
    assert_allclose(sums, (Yr @ traces.T)[rows, columns], atol=1e-6)
    assert_allclose(movie.in_fortran_order(squares), (Yr**2).sum(1), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=3), st.integers(0, 99))
def test_orders_are_inverse_to_each_other(dims, seed):
    _, A, _ = scene(tuple(dims), T=2, seed=seed)
    movie = images_movie(np.zeros((2, *dims), np.float32))
    assert_array_equal(movie.in_fortran_order(movie.in_frame_order(A).toarray()), A.toarray())
    assert_array_equal(movie.fortran_rows(np.arange(movie.d))[movie._fortran], np.arange(movie.d))


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda x: x[::2, ::-1]])
def test_matrices_in_any_memory_order(layout):
    _, _, Yr = scene()
    matrix = layout(Yr)
    with backend.limit(chunk_frames=4):
        frames = np.concatenate([chunk for _, chunk in pixel_movie(matrix).frames()])
    assert_array_equal(frames, matrix.T)


def test_a_window_of_a_movie():
    Y, *_ = scene()
    window = (slice(1, 5, 2), slice(None, None, -1))
    part = cropped(open_movie(Y), window)
    assert_array_equal(part.read(slice(3, 20, 4)), Y[3:20:4][(slice(None), *window)])
    assert cropped(part, (slice(None), slice(0, 99))) is part


def test_a_matrix_has_two_axes():
    with pytest.raises(MovieShapeError, match="pixels x time"):
        pixel_movie(np.zeros((3, 4, 5)))
