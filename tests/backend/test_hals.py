"""HALS sweeps: each against the formula in plain NumPy, their optimum against SciPy, twin against twin."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import nnls
from scipy.sparse import csr_matrix

from gpucalcium.backend import to_numpy
from gpucalcium.backend import wing as wing_of
from tests.wings import wings_present


def mixture(M=4, T=67, d=30, seed=3):
    rng = np.random.default_rng(seed)
    A = rng.random((d, M)) * (rng.random((d, M)) < 0.5)
    A[0] = 1  # every component overlaps
    C = rng.random((M, T)) * (rng.random((M, T)) < 0.4)
    return A, C, A @ C + 0.1 * rng.standard_normal((d, T))


def sweep_traces(wing, C, U, V, sweeps, order=None, clipped=None):
    M = len(C)
    V = csr_matrix(V)
    order = np.arange(M) if order is None else np.array(order)
    clipped = np.ones(M, bool) if clipped is None else clipped
    C, noisy = wing.put(C.copy()), wing.put(C.copy())
    graph = (V.indptr.astype(np.int64), V.indices.astype(np.int64), V.data)
    given = [wing.put(x) for x in (U, *graph, order, clipped)]
    wing_of(C).hals.sweep_traces(C, noisy, *given, sweeps)
    return to_numpy(C), to_numpy(noisy)


def sweep_footprints(wing, A, Q, V, sweeps):
    A = csr_matrix(A)
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    values = wing.put(A.data.copy())
    given = [
        wing.put(x)
        for x in (A.indptr.astype(np.int64), A.indices.astype(np.int64), Q[rows, A.indices].copy(), V)
    ]
    wing_of(values).hals.sweep_footprints(values, *given, sweeps)
    return csr_matrix((to_numpy(values), A.indices, A.indptr), A.shape).toarray()


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2]])
def test_one_sweep_over_traces_is_the_formula(wing, order):
    A, C, Y = mixture()
    U, V = A.T @ Y, A.T @ A
    clipped = np.array([True, False, True, True])
    expected, raw = C.copy(), C.copy()
    for m in order:
        raw[m] = expected[m] + (U[m] - V[m] @ expected) / V[m, m]
        expected[m] = np.maximum(raw[m], 0) if clipped[m] else raw[m]
    mine, noisy = sweep_traces(wing, C, U, V, 1, order, clipped)
    assert_allclose(mine, expected, atol=1e-12)
    assert_allclose(noisy, raw, atol=1e-12)


def test_many_sweeps_over_traces_are_non_negative_least_squares(wing):
    A, C, Y = mixture()
    best = np.stack([nnls(A, y)[0] for y in Y.T], 1)
    mine, _ = sweep_traces(wing, np.zeros_like(C), A.T @ Y, A.T @ A, 2000)
    assert_allclose(mine, best, atol=1e-9)


def test_a_sweep_never_makes_the_fit_worse(wing):
    A, C, Y = mixture(seed=8)
    now, before = np.ones_like(C), np.inf
    for _ in range(5):
        now, _ = sweep_traces(wing, now, A.T @ Y, A.T @ A, 1)
        loss = ((Y - A @ now) ** 2).sum()
        assert loss <= before * (1 + 1e-12)
        before = loss


def test_one_sweep_over_footprints_is_the_formula(wing):
    A, C, Y = mixture()
    Q, V = Y @ C.T, C @ C.T
    expected = A.copy()
    for m in range(A.shape[1]):
        on = A[:, m] > 0
        step = expected[:, m] + (Q[:, m] - expected @ V[m]) / V[m, m]
        expected[on, m] = np.maximum(step[on], 0)
    assert_allclose(sweep_footprints(wing, A, Q, V, 1), expected, atol=1e-12)


def test_a_component_without_curvature_stays(wing):
    A, C, Y = mixture()
    V = C @ C.T
    V[1, 1] = 0
    assert_array_equal(sweep_footprints(wing, A, Y @ C.T, V, 3)[:, 1], A[:, 1])


@pytest.mark.parametrize("M, T, d", [(1, 1, 1), (3, 33, 65), (6, 300, 31)])
def test_twins_agree(M, T, d):
    A, C, Y = mixture(M, T, d)
    traces = [sweep_traces(w, C, A.T @ Y, A.T @ A, 3)[0] for w in wings_present()]
    shapes = [sweep_footprints(w, A, Y @ C.T, C @ C.T, 3) for w in wings_present()]
    for mine, theirs in zip(traces[1:] + shapes[1:], traces[:-1] + shapes[:-1], strict=True):
        assert_allclose(mine, theirs, atol=1e-11)
