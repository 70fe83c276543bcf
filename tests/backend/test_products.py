"""Sums over a movie on sparse supports: against plain NumPy, chunk by chunk, and twin against twin."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix, hstack
from scipy.sparse import random as random_sparse

from gpucalcium.backend import to_numpy
from gpucalcium.backend import wing as wing_of
from tests.wings import wings_present

DTYPES = ["uint8", "int16", "uint16", "float32", "float64"]


def case(dtype, n=37, d=131, K=5, seed=1):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 200, (n, d)).astype(dtype)
    cells = random_sparse(d, K - 1, 0.2, "csc", np.float32, rng)
    background = csc_matrix(rng.random((d, 1), np.float32))  # every pixel
    A = csc_matrix(hstack([cells, background]), dtype=np.float32)
    A.sort_indices()
    return frames, A, rng.standard_normal((n, K))


def project(wing, frames, A):
    out = wing.put(np.zeros((len(frames), A.shape[1])))
    parts = (A.indptr.astype(np.int64), A.indices.astype(np.int64), A.data)
    given = [wing.put(part) for part in parts]
    frames = wing.put(frames)
    wing_of(frames).products.project(frames, *given, out)
    return to_numpy(out)


def sample(wing, frames, A, traces, chunk):
    columns = np.repeat(np.arange(A.shape[1]), np.diff(A.indptr))
    rows, columns = wing.put(A.indices.astype(np.int64)), wing.put(columns)
    sums = wing.put(np.zeros(A.nnz))
    for start in range(0, len(frames), chunk):
        part = wing.put(frames[start : start + chunk])
        wing_of(part).products.add_samples(part, wing.put(traces[start : start + chunk]), rows, columns, sums)
    return to_numpy(sums)


@pytest.mark.parametrize("dtype", DTYPES)
def test_projection_is_a_matrix_product(wing, dtype):
    frames, A, _ = case(dtype)
    assert_allclose(project(wing, frames, A), frames.astype(float) @ A.toarray(), rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_are_entries_of_a_matrix_product(wing, dtype):
    frames, A, traces = case(dtype)
    mine = sample(wing, frames, A, traces, chunk=100)
    columns = np.repeat(np.arange(A.shape[1]), np.diff(A.indptr))
    assert_allclose(mine, (frames.astype(float).T @ traces)[A.indices, columns], atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_change_no_bit(wing, chunk):
    frames, A, traces = case("uint16")
    whole = sample(wing, frames, A, traces, chunk=1000)
    assert_array_equal(sample(wing, frames, A, traces, chunk), whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_squares(wing, dtype):
    frames, *_ = case(dtype)
    sums, given = wing.put(np.ones(frames.shape[1])), wing.put(frames)
    wing_of(given).products.add_squares(given, sums)
    assert_allclose(to_numpy(sums), 1 + (frames.astype(float) ** 2).sum(0), rtol=1e-13)


@pytest.mark.parametrize("n, d, K", [(1, 1, 1), (33, 31, 2), (8, 2500, 3)])
def test_twins_agree(n, d, K):
    frames, A, traces = case("int16", n, d, K)
    results = [(project(w, frames, A), sample(w, frames, A, traces, 7)) for w in wings_present()]
    for other in results[1:]:
        assert_allclose(other[0], results[0][0], rtol=1e-12, atol=1e-10)
        assert_allclose(other[1], results[0][1], rtol=1e-12, atol=1e-10)


def test_nan_stays_in_its_pixel(wing):
    frames, A, traces = case("float32")
    frames[3, 7] = np.nan
    mine = sample(wing, frames, A, traces, 100)
    assert_array_equal(np.isnan(mine), A.indices == 7)


def test_no_entries(wing):
    frames, A, traces = case("float32")
    empty = A[:, :0]
    assert project(wing, frames, empty).shape == (len(frames), 0)
    assert sample(wing, frames, empty, traces, 10).shape == (0,)
