"""Running percentiles by their definition, percentiles by NumPy, modes of known densities, on every wing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from tests.wings import wings_present


def by_sorting(traces, q, window):
    padded = np.pad(traces, ((0, 0), (window // 2, window - 1 - window // 2)), mode="symmetric")
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(padded, window, axis=1), axis=2)
    ranks = [min(int(window * x / 100), window - 1) for x in q]
    return np.stack([w[:, r] for w, r in zip(windows, ranks, strict=True)])


def on(wing, name, traces, *rest):
    with wing.chosen():
        device = wing.put(traces)
        result = getattr(backend.wing(device).quantile, name)(
            device, *(wing.put(x) if isinstance(x, np.ndarray) else x for x in rest)
        )
    return tuple(map(backend.to_numpy, result)) if isinstance(result, tuple) else backend.to_numpy(result)


@pytest.mark.parametrize("window", [1, 2, 3, 8, 31, 100])
@pytest.mark.parametrize("q", [0.0, 8.0, 50.0, 99.9, 100.0])
def test_running_percentile_is_that_of_the_sorted_window(wing, window, q):
    traces = np.random.default_rng(0).normal(size=(3, 133)).astype(np.float32)
    traces[1] = np.round(traces[1])  # ties, zeros of both signs
    ranks = np.array([q, 100 - q, q])
    got = on(wing, "running_percentile", traces, ranks, window)
    assert got.dtype == np.float32
    assert_array_equal(got, by_sorting(traces, ranks, window))


def test_window_as_long_as_the_trace(wing):
    traces = np.random.default_rng(1).normal(size=(2, 60)).astype(np.float32)
    q = np.array([8.0, 70.0])
    assert_array_equal(on(wing, "running_percentile", traces, q, 60), by_sorting(traces, q, 60))


@pytest.mark.parametrize("T", [1, 2, 101])
def test_percentile_is_linear_between_samples(wing, T):
    traces = np.random.default_rng(2).normal(size=(4, T)).astype(np.float32)
    q = np.array([0.0, 8.0, 61.3, 100.0])
    expected = [np.percentile(x.astype(np.float64), p) for x, p in zip(traces, q, strict=True)]
    assert_allclose(on(wing, "percentile", traces, q), expected, rtol=1e-6)


def test_mode_of_a_normal_density_is_its_middle(wing):
    samples = np.random.default_rng(3).normal(5, 2, (2, 800))
    q, value = on(wing, "mode_percentile", samples)
    assert_allclose(q, 50, atol=10)  # the mode of 800 samples is uncertain by about a third of sigma
    assert_allclose(value, 5, atol=0.6)


def test_mode_of_a_skewed_density_lies_low(wing):
    samples = np.random.default_rng(4).normal(0, 0.3, (1, 600))
    samples[:, :200] += np.random.default_rng(5).exponential(5, 200)
    q, value = on(wing, "mode_percentile", samples)
    assert 20 < q[0] < 50
    assert abs(value[0]) < 0.2


def test_mode_follows_scale_and_offset(wing):
    samples = np.random.default_rng(6).normal(size=(1, 300))
    q, value = on(wing, "mode_percentile", samples)
    moved_q, moved = on(wing, "mode_percentile", 8 * samples + 100)
    assert_allclose(moved_q, q, atol=0.2)
    assert_allclose(moved, 8 * value + 100, atol=8 * np.ptp(samples) / 4096)


def test_constant_rows_have_no_mode(wing):
    q, value = on(wing, "mode_percentile", np.full((1, 20), 3.5))
    assert q[0] == 50
    assert value[0] == 3.5


def test_twins_agree_on_the_mode():
    samples = np.random.default_rng(7).gamma(2, 1, (2, 150))
    results = [on(wing, "mode_percentile", samples) for wing in wings_present()]
    for other in results[1:]:
        assert_allclose(other[0], results[0][0], atol=1e-6)
        assert_allclose(other[1], results[0][1], rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 80), st.floats(0, 100), st.data())
def test_running_percentile_of_any_trace(seed, T, q, data):
    window = data.draw(st.integers(1, T))
    traces = np.random.default_rng(seed).integers(-3, 4, (1, T)).astype(np.float32)
    for wing in wings_present():
        got = on(wing, "running_percentile", traces, np.array([q]), window)
        assert_array_equal(got, by_sorting(traces, np.array([q]), window))
