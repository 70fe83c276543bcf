"""AR(2) non-negative least squares against bounded least squares and its optimality conditions, on every wing."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import lsq_linear

from gpucalcium import backend
from tests.wings import wings_present

MODELS = [(1.7, -0.71), (1.2, -0.36), (0.9, 0.0), (0.0, 0.0)]  # two roots, a double root, AR(1), none


def response(g, T):
    h = np.zeros(T)
    h[0] = 1
    for t in range(1, T):
        h[t] = g[0] * h[t - 1] + (g[1] * h[t - 2] if t > 1 else 0)
    lags = np.arange(T)[:, None] - np.arange(T)
    K = np.where(lags >= 0, h[np.maximum(lags, 0)], 0.0)
    K[:, 0] = max(np.roots([1, -g[0], -g[1]]).real, default=0) ** np.arange(T)  # what was there before decays
    return K


def weight_of(g, T):
    """What a unit of calcium counts in the sum of spikes."""
    return np.array([1 - g[0] * (left > 0) - g[1] * (left > 1) for left in range(T)])[::-1]


def traces_of(K, T, g=(1.7, -0.71), sn=0.3, seed=0):
    rng = np.random.default_rng(seed)
    spikes = (rng.random((K, T)) < 0.05).astype(float)
    return (spikes @ response(g, T).T + sn * rng.standard_normal((K, T))).astype(np.float32)


def run(wing, y, g, lam, b=0.0, allowed=None, tolerance=1e-9, start=None):
    K = len(y)
    with wing.chosen():
        traces = wing.put(y)
        nothing = np.full(y.shape, np.nan, np.float32)
        c, s = (wing.put(x.copy()) for x in (start or (nothing, nothing)))
        given = (np.tile(np.asarray(g, float), (K, 1)), np.full(K, float(b)), np.full(K, float(lam)))
        mask = np.ones(y.shape, np.uint8) if allowed is None else allowed
        backend.wing(traces).onnls.nnls_ar2(
            traces, *map(wing.put, given), wing.put(mask), tolerance, start is not None, c, s
        )
        return backend.to_numpy(c), backend.to_numpy(s)


@pytest.mark.parametrize("g", MODELS)
@pytest.mark.parametrize("T", [1, 2, 3, 20, 150])
@pytest.mark.parametrize("lam", [0.0, 1.5])
def test_bounded_least_squares(wing, g, T, lam):
    y = traces_of(2, T, g, seed=T)
    c, s = run(wing, y, g, lam, b=0.1)
    K = response(g, T)
    shift = lam * weight_of(g, T)
    for k in range(2):
        data = y[k].astype(float) - 0.1 - shift  # completes the square with the penalty
        expected = lsq_linear(K, data, bounds=(0, np.inf), method="bvls", tol=1e-13).x
        assert_allclose(c[k], K @ expected, atol=1e-4)
    assert (s[:, 0] == 0).all()
    assert_allclose(s[:, 2:], c[:, 2:] - g[0] * c[:, 1:-1] - g[1] * c[:, :-2], atol=1e-4)


def test_long_traces_meet_the_conditions_of_the_optimum(wing):
    g, lam, T = (1.7, -0.71), 1.0, 1500
    y = traces_of(2, T, g)
    c, s = run(wing, y, g, lam)
    assert (s >= 0).all()
    for k in range(2):
        slope = response(g, T).T @ (y[k] - c[k].astype(float) - lam * weight_of(g, T))
        assert np.abs(slope[1:][s[k, 1:] > 0]).max() < 1e-2
        assert slope.max() < 1e-2


def test_spikes_stay_where_they_are_allowed(wing):
    y = traces_of(2, 300)
    allowed = (np.random.default_rng(1).random((2, 300)) < 0.2).astype(np.uint8)
    s = run(wing, y, (1.7, -0.71), 0.5, allowed=allowed)[1]
    assert not s[allowed == 0].any()
    assert s.any()
    c, s = run(wing, y, (1.7, -0.71), 0.5, allowed=np.zeros_like(allowed))
    assert not (c.any() or s.any())


def test_any_start_leads_to_the_same_optimum(wing):
    y = traces_of(3, 300)
    c, s = run(wing, y, (1.7, -0.71), 1.0)
    other = run(wing, y, (1.7, -0.71), 0.2)  # more spikes, other sizes
    for start in ((c, s), other):
        again = run(wing, y, (1.7, -0.71), 1.0, start=start)
        assert_allclose(again[0], c, atol=1e-4)
        assert_allclose(again[1], s, atol=1e-4)


def test_a_loose_tolerance_leaves_small_gains(wing):
    y = traces_of(2, 300)
    exact, rough = (run(wing, y, (1.7, -0.71), 0.1, tolerance=tol)[1] for tol in (1e-9, 1e-2))
    assert (rough > 0).sum() < (exact > 0).sum()


@pytest.mark.parametrize("g", MODELS)
@pytest.mark.parametrize("T", [1, 2, 40])
def test_gradient_is_the_correlation_with_the_response(wing, g, T):
    y, c = traces_of(2, T, g), np.abs(traces_of(2, T, g, seed=1))
    out = wing.put(np.full((2, T), np.nan))
    given = (np.tile(np.asarray(g, float), (2, 1)), np.full(2, 0.1), np.full(2, 0.7), c)
    backend.wing(out).onnls.gradient_ar2(wing.put(y), *map(wing.put, given), out)
    expected = (y.astype(float) - 0.1 - c - 0.7 * weight_of(g, T)) @ response(g, T)
    assert_allclose(backend.to_numpy(out), expected, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_twins_find_the_same_spikes(dtype):
    y = traces_of(35, 400).astype(dtype)
    results = [run(wing, y, (1.7, -0.71), 1.0) for wing in wings_present()]
    for c, s in results[1:]:
        assert_array_equal(s > 1e-6, results[0][1] > 1e-6)
        assert_allclose(c, results[0][0], atol=1e-4 * results[0][0].max())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.98), st.floats(0.0, 0.9), st.integers(1, 60), st.floats(0, 2))
@example(0, 0.0, 2.2e-309, 2, 0.0)  # a root that nothing can be divided by
def test_any_trace_meets_the_conditions_of_the_optimum(seed, d, r, T, lam):
    g = (d + r, -d * r)
    y = np.random.default_rng(seed).normal(0.3, 1, (1, T)).astype(np.float32)
    K = response(g, T)
    for wing in wings_present():
        c, _ = run(wing, y, g, lam)
        spikes = np.linalg.solve(K, c[0].astype(float))
        slope = K.T @ (y[0] - c[0].astype(float) - lam * weight_of(g, T))
        scale = 1e-4 * np.abs(K).sum(0).max() * np.abs(y).max()
        assert spikes.min() > -1e-4
        assert slope.max() < scale
        assert np.abs(slope[spikes > 1e-3]).max(initial=0) < scale


@pytest.mark.parametrize("T", [1, 2, 3, 31, 200])
@pytest.mark.parametrize("reach", [0, 2, 40])
def test_marks_lie_near_large_spikes(wing, T, reach):
    rng = np.random.default_rng(T)
    s = (rng.exponential(1, (5, T)) * (rng.random((5, T)) < 0.2)).astype(np.float32)
    s[1], c = 0, rng.exponential(0.2, (5, T)).astype(np.float32)
    c[2, 0] = 0
    bound = np.float32(0.1) * s.max(axis=1)
    expected = np.zeros((5, T), np.uint8)
    for k, t in zip(*np.nonzero(s > bound[:, None]), strict=True):
        expected[k, max(t - reach, 0) : t + reach + 1] = 1
    expected[:, 0] |= c[:, 0] > bound
    device = wing.put(c), wing.put(s)
    got = backend.wing(device[0]).onnls.near_large(*device, 0.1, reach)
    assert_array_equal(backend.to_numpy(got), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T", [1, 3, 4, 301])
def test_residual_sums(wing, dtype, T):
    rng = np.random.default_rng(0)
    y, c = rng.normal(5, 1, (3, T)).astype(dtype), rng.random((3, T)).astype(np.float32)
    b = rng.normal(size=3)
    r = y.astype(float) - c - b[:, None]
    device = [wing.put(x) for x in (y, c, b)]
    sums, squares = backend.wing(device[0]).onnls.residual_sums(*device)
    # float32 traces: y - c is rounded to 24 bits, of values of about 6
    assert_allclose(backend.to_numpy(sums), r.sum(axis=1), rtol=1e-6, atol=1e-6 * T)
    assert_allclose(backend.to_numpy(squares), (r * r).sum(axis=1), rtol=1e-6)
