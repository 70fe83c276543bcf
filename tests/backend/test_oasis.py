"""AR(1) pools against a quadratic programme and the conditions of its optimum, on every wing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import lsq_linear

from gpucalcium import backend
from tests.wings import wings_present


def traces_of(K, T, g=0.9, sn=0.2, b=0.5, rate=0.05, seed=0):
    rng = np.random.default_rng(seed)
    spikes = (rng.random((K, T)) < rate).astype(float)
    c = spikes.copy()
    for t in range(1, T):
        c[:, t] += g * c[:, t - 1]
    return (c + b + sn * rng.standard_normal((K, T))).astype(np.float32)


def run(wing, y, g, sn, *, b=None, b_nonneg=True, max_iter=100):
    """`constrained_ar1` of one wing: c, s, b, lam as NumPy arrays; `b` None is free."""
    K, T = y.shape
    with wing.chosen():
        traces = wing.put(y)
        c, s = wing.put(np.full((K, T), np.nan, np.float32)), wing.put(np.full((K, T), np.nan, np.float32))
        level, lam = wing.put(np.zeros(K) if b is None else b), wing.put(np.full(K, np.nan))
        backend.wing(traces).oasis.constrained_ar1(
            traces, wing.put(g), wing.put(sn**2 * T), level, b is None, b_nonneg, max_iter, c, s, lam
        )
        return tuple(map(backend.to_numpy, (c, s, level, lam)))


def plain(wing, y, g, lam, s_min):
    with wing.chosen():
        traces = wing.put(y)
        c, s = (wing.put(np.full(y.shape, np.nan, np.float32)) for _ in range(2))
        backend.wing(traces).oasis.ar1(traces, *map(wing.put, (g, np.zeros(len(y)), lam, s_min)), c, s)
        return backend.to_numpy(c), backend.to_numpy(s)


def by_quadratic_programme(y, g, lam):
    """argmin |c - y|^2 / 2 + lam sum s over s >= 0, c = K s, as bounded least squares."""
    T = len(y)
    lags = np.arange(T)[:, None] - np.arange(T)
    K = np.where(lags >= 0, g ** np.maximum(lags, 0), 0.0)
    # lam sum s = lam 1's: complete the square by moving y along the solution of K' shift = lam 1
    shift = np.linalg.solve(K.T, np.full(T, lam))
    return K @ lsq_linear(K, y - shift, bounds=(0, np.inf), method="bvls", tol=1e-12).x


@pytest.mark.parametrize("T", [1, 2, 3, 20, 80, 200])
@pytest.mark.parametrize("g", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_plain_pools_solve_the_quadratic_programme(wing, T, g, lam):
    y = traces_of(3, T, seed=T)
    c, s = plain(wing, y, np.full(3, g), np.full(3, lam), np.zeros(3))
    for k in range(3):
        assert_allclose(c[k], by_quadratic_programme(y[k].astype(float), g, lam), atol=1e-4)
    assert_allclose(s[:, 1:], c[:, 1:] - g * c[:, :-1], atol=1e-6)
    assert (s[:, 0] == 0).all()


@pytest.mark.parametrize("free", [False, True])
def test_constrained_search_ends_at_an_optimum(wing, free):
    K, T, g, sn = 5, 200, 0.9, 0.2
    y = traces_of(K, T, g, sn)
    c, s, b, lam = run(wing, y, np.full(K, g), np.full(K, sn), b=None if free else np.full(K, 0.45))
    y = y.astype(float)
    assert_allclose(((y - b[:, None] - c) ** 2).sum(1), sn**2 * T, rtol=1e-4)
    assert (s >= 0).all()
    if free:  # at the best baseline the residuals have no mean
        assert_allclose((y - b[:, None] - c).mean(1), 0, atol=1e-6)
    for k in range(K):
        assert_allclose(c[k], by_quadratic_programme(y[k] - b[k], g, lam[k]), atol=1e-4)


def test_bounded_baseline_stays_at_its_bound(wing):
    y = traces_of(2, 300, b=-0.3)
    c, _, b, _ = run(wing, y, np.full(2, 0.9), np.full(2, 0.3))
    assert_array_equal(b, 0)
    assert_allclose(((y - c) ** 2).sum(1), 0.09 * 300, rtol=1e-4)
    assert (run(wing, y, np.full(2, 0.9), np.full(2, 0.3), b_nonneg=False)[2] < 0).all()


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_large_offsets_cost_no_accuracy(wing, offset):
    y = traces_of(3, 400).astype(np.float64)
    g, sn = np.full(3, 0.9), np.full(3, 0.2)
    c, _, b, lam = run(wing, y + offset, g, sn)
    expected = run(wing, y, g, sn)
    assert_allclose(c, expected[0], atol=1e-5)
    assert_allclose(b - offset, expected[2], atol=1e-5)
    assert_allclose(lam, expected[3], rtol=1e-4)


def test_each_step_of_the_search_nears_the_target(wing):
    y = traces_of(1, 500, seed=3)
    g, sn = np.full(1, 0.9), np.full(1, 0.2)
    missing = []
    for steps in (0, 1, 2, 20):
        c, _, b, _ = run(wing, y, g, sn, max_iter=steps)
        missing.append(abs(((y - b[:, None] - c.astype(float)) ** 2).sum() / (0.04 * 500) - 1))
    assert sorted(missing, reverse=True) == missing
    assert missing[-1] < 1e-4


@pytest.mark.parametrize("value", [0.0, 7.7, -3.0])
def test_constant_traces_are_all_baseline(wing, value):
    y = np.full((2, 50), value)
    c, s, b, _ = run(wing, y, np.full(2, 0.9), np.zeros(2), b_nonneg=False)
    assert not c.any()
    assert not s.any()
    assert_allclose(b, value, atol=1e-12)


def test_more_noise_than_signal_leaves_a_flat_line(wing):
    y = traces_of(2, 300)
    c, _, b, _ = run(wing, y, np.full(2, 0.9), np.full(2, 50.0))
    assert not c.any()
    assert_allclose(b, y.mean(1), rtol=1e-5)


def test_less_noise_than_any_fit_leaves_gives_the_closest_fit(wing):
    y = traces_of(2, 100, sn=0.5)
    c, _, _, lam = run(wing, y, np.full(2, 0.95), np.full(2, 1e-3), b=np.zeros(2))
    assert_array_equal(lam, 0)
    for k in range(2):
        assert_allclose(c[k], by_quadratic_programme(y[k].astype(float), 0.95, 0.0), atol=1e-4)


def test_spikes_below_the_smallest_are_not_made(wing):
    y = traces_of(4, 400, b=0, sn=0.1)
    s = plain(wing, y, np.full(4, 0.9), np.zeros(4), np.full(4, 0.5))[1]
    assert s[s > 0].min() >= 0.5 - 1e-6
    many = plain(wing, y, np.full(4, 0.9), np.zeros(4), np.zeros(4))[1]
    assert (s > 0).sum() < (many > 0).sum()


def greedy(wing, y, g, theta, s):
    with wing.chosen():
        traces, c, s = wing.put(y), wing.put(np.zeros_like(s)), wing.put(s.copy())
        backend.wing(traces).oasis.greedy_ar1(
            traces, wing.put(g), wing.put(theta), wing.put(np.zeros(len(y))), c, s
        )
        return backend.to_numpy(c), backend.to_numpy(s)


def test_greedy_takes_the_largest_spikes_until_the_residual_is_small(wing):
    y, g, sn = traces_of(3, 300, b=0), 0.9, 0.25
    T = y.shape[1]
    s1 = run(wing, y, np.full(3, g), np.full(3, sn), b=np.zeros(3))[1]
    c, s = greedy(wing, y, np.full(3, g), np.full(3, sn**2 * T), s1)
    for k in range(3):
        used = np.flatnonzero(s[k])
        assert set(used) <= set(np.argsort(-s1[k])[: len(used)])
        edges = [0, *used, T]
        expected = np.zeros(T)
        for left, right in pairwise(edges):
            decay = g ** np.arange(right - left)
            expected[left:right] = max(decay @ y[k, left:right] / (decay @ decay), 0) * decay
        assert_allclose(c[k], expected, atol=1e-5)
        assert ((y[k] - c[k]) ** 2).sum() < sn**2 * T


def test_start_is_taken_off(wing):
    c = np.outer([2.0, 0.0], 0.8 ** np.arange(50)).astype(np.float32)
    c[:, 20:] += 0.8 ** np.arange(30)
    device, c1 = wing.put(c), wing.put(np.full(2, np.nan))
    backend.wing(device).oasis.take_start(device, wing.put(np.full(2, 0.8)), c1)
    assert_array_equal(backend.to_numpy(c1), [2, 0])
    left = backend.to_numpy(device)
    assert_allclose(left[:, :20], 0, atol=1e-6)
    assert_allclose(left[:, 20:], np.tile(0.8 ** np.arange(30), (2, 1)), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_twins_find_the_same_spikes(dtype):
    y = traces_of(37, 301).astype(dtype)
    g, sn = np.linspace(0.5, 0.97, 37), np.full(37, 0.2)
    results = [run(wing, y, g, sn) for wing in wings_present()]
    for other in results[1:]:
        assert_array_equal(other[1] > 0, results[0][1] > 0)
        assert_allclose(other[0], results[0][0], atol=1e-4 * results[0][0].max())
    greedies = [greedy(wing, y, g, sn**2 * 301 * 1.5, results[0][1]) for wing in wings_present()]
    for other in greedies[1:]:
        assert_array_equal(other[1] > 0, greedies[0][1] > 0)
        assert_allclose(other[0], greedies[0][0], atol=1e-5)


@pytest.mark.parametrize("T", [512, 513, 1500, 8191, 8192, 8193, 20011])
@pytest.mark.parametrize("free", [True, False])
def test_segments_of_long_traces_end_at_the_sequential_solution(wing, T, free):
    """`ar1` walks a trace from end to end; at the level that the search found it has the same pools."""
    K = 2
    y = traces_of(K, T, g=0.95, rate=0.02)
    g, sn = np.full(K, 0.95), np.full(K, 0.2)
    c, s, b, lam = run(wing, y, g, sn, b=None if free else np.full(K, 0.45))
    rss = ((y.astype(float) - b[:, None] - c) ** 2).sum(1)
    assert_allclose(rss, 0.04 * T, rtol=1e-4)
    with wing.chosen():
        traces, given = wing.put(y), [wing.put(x) for x in (g, b, lam, np.zeros(K))]
        whole = [wing.put(np.empty((K, T), np.float32)) for _ in range(2)]
        backend.wing(traces).oasis.ar1(traces, *given, *whole)
    assert_allclose(c, backend.to_numpy(whole[0]), atol=1e-6)
    assert_allclose(s, backend.to_numpy(whole[1]), atol=1e-6)


@pytest.mark.parametrize("T", [2500, 20_000])
@pytest.mark.parametrize("kind", ["falling", "rising", "zero", "late"])
def test_pools_that_span_segments(wing, kind, T):
    """One pool of many segments, none at all, and calcium that begins after segments of nothing."""
    t = np.arange(T)
    y = {
        "falling": 50 * 0.999**t,
        "rising": 0.01 * t,
        "zero": -1 + 0 * t,
        "late": np.where(t < 0.84 * T, -0.2, 5 * 0.99 ** (t - 0.84 * T)),
    }[kind][None] + 0.1 * np.random.default_rng(0).standard_normal((1, T))
    for g, lam in ((0.999, 0.0), (0.9, 0.0), (0.99, 1.0)):
        c, _ = plain(wing, y, np.full(1, g), np.full(1, lam), np.zeros(1))
        theta = ((y - c) ** 2).sum()
        if not c.any():
            continue
        found, s, _, level = run(wing, y, np.full(1, g), np.sqrt([theta / T]), b=np.zeros(1), max_iter=1000)
        assert_allclose(found, c, atol=5e-3 * c.max())  # the residual is met to 1e-5, calcium less well
        again, _ = plain(wing, y, np.full(1, g), level, np.zeros(1))
        assert_allclose(found, again, atol=1e-6 * c.max())
        assert (s >= 0).all()


def test_threads_share_segments_and_change_no_bit(monkeypatch):
    y = traces_of(2, 70_001, g=0.95, rate=0.02)
    results = []
    for threads in ("1", "3"):  # traces one by one; segments of each
        monkeypatch.setenv("GPUCALCIUM_THREADS", threads)
        results.append(run(wings_present()[0], y, np.full(2, 0.95), np.full(2, 0.2)))
    for a, b in zip(*results, strict=True):
        assert_array_equal(a, b)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.98), st.integers(500, 3000), st.floats(0.1, 1))
def test_segments_of_any_trace(seed, g, T, sn):
    y = np.random.default_rng(seed).standard_exponential((1, T)).astype(np.float32)
    results = [run(wing, y, np.array([g]), np.array([sn])) for wing in wings_present()]
    for c, _, b, _ in results[1:]:
        assert_allclose(c, results[0][0], atol=1e-4)
        assert_allclose(b, results[0][2], atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.98), st.integers(1, 150), st.floats(0.01, 3))
def test_any_trace_ends_at_the_target_or_at_a_bound(seed, g, T, sn):
    y = np.random.default_rng(seed).standard_exponential((1, T)).astype(np.float32)
    for wing in wings_present():
        c, s, b, lam = run(wing, y, np.array([g]), np.array([sn]))
        rss = ((y.astype(float) - b - c) ** 2).sum() / (sn**2 * T)
        assert (s >= 0).all()
        assert (c >= 0).all()
        if rss > 1 + 1e-3:  # the most flexible fit there is
            assert lam == pytest.approx(0, abs=1e-9)
        elif rss < 1 - 1e-3:  # not even a flat line leaves that much
            assert not c.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("T", "k"), [(1, 1), (5, 5), (33, 5), (100, 7)])
def test_block_means(wing, dtype, T, k):
    y = np.random.default_rng(0).normal(3, 1, (3, T)).astype(dtype)
    n = T // k
    device = wing.put(y)
    got = backend.to_numpy(backend.wing(device).oasis.block_means(device, k))
    assert got.dtype == dtype
    assert_allclose(got, y[:, : n * k].astype(float).reshape(3, n, k).mean(axis=2), rtol=1e-6)
