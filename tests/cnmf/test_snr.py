"""SNR of traces: closed forms, a plain loop, the reference, and edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import log_ndtr, ndtri_exp

from gpucalcium.cnmf import snr as module
from gpucalcium.cnmf.snr import (
    compute_event_exceptionality,
    event_log_probability,
    half_sample_mode,
    slow_baseline,
    trace_snr,
)
from gpucalcium.errors import ParameterError


def mode_of_reference(x):
    """The mode as the reference finds it: of an even number of samples it never tries the topmost window."""
    x = np.sort(np.asarray(x, float))
    while len(x) > 3:
        half = -(-len(x) // 2)
        start = np.argmin([x[i + half - 1] - x[i] for i in range(len(x) - len(x) // 2)][:half])
        x = x[start : start + half]
    if len(x) == 3:
        return (x[0] + x[1]) / 2 if x[1] - x[0] < x[2] - x[1] else x[1]
    return x.mean()


@pytest.fixture(scope="module")
def fitted(reference):
    """Stored measures of the reference, and the noisy traces they were made from."""
    stored = reference.load("cnmf")
    return stored, np.asarray(stored["refit_p1_C"] + stored["refit_p1_YrA"], float)


def test_mode_is_the_densest_half_of_the_densest_half():
    assert_allclose(half_sample_mode(np.array([[0, 1, 1.1, 1.15, 9]])), [1.125])
    assert_allclose(half_sample_mode(np.array([[0.0, 5, 6]])), [5.5])
    assert_allclose(half_sample_mode(np.array([[0.0, 5, 10]])), [5])
    assert_allclose(half_sample_mode(np.array([[3.0, 1]])), [2])
    assert_allclose(half_sample_mode(np.array([[7.0]])), [7])


@given(
    arrays(float, st.tuples(st.integers(1, 3), st.integers(1, 60)), elements=st.integers(-999, 999)),
    st.integers(-9, 9),
)
def test_mode_moves_and_scales_with_the_samples(samples, offset):
    mode = half_sample_mode(samples)
    assert_allclose(half_sample_mode(4 * samples + offset), 4 * mode + offset)
    assert (samples.min(1) <= mode).all()
    assert (mode <= samples.max(1)).all()


def test_event_exceptionality_equals_a_plain_loop():
    traces = np.random.default_rng(0).normal(size=(3, 41))
    fitness, erfc, sd, mode = compute_event_exceptionality(traces, N=4)
    for k, x in enumerate(traces):
        below = x[x < mode[k]] - mode[k]
        assert sd[k] == pytest.approx(np.sqrt(np.mean(below**2)))
        log_p = stats.norm.logcdf(-(x - mode[k]) / (3 * sd[k]))
        sums = [log_p[max(t - 3, 0) : t + 1].sum() for t in range(len(x))]
        assert_allclose(erfc[k], sums, rtol=1e-12)
        assert fitness[k] == pytest.approx(min(sums))


def test_robust_noise_level_is_of_the_same_size():
    traces = np.random.default_rng(0).normal(size=(2, 20001))
    plain, robust = (compute_event_exceptionality(traces, robust_std=r)[2] for r in (False, True))
    assert_allclose(plain, 1, rtol=0.2)  # the mode of 20,000 samples is uncertain by 0.1
    assert_allclose(robust, plain, rtol=0.2)


def test_snr_has_the_closed_form_of_a_constant_event():
    # N samples at height z units make fitness N log Phi(-z), hence SNR z: also far beyond what exp() can hold
    for z in (0.5, 5.0, 50.0, 500.0):
        fitness = 12 * log_ndtr(-z)
        assert -ndtri_exp(fitness / 12) == pytest.approx(z, rel=1e-9)
    rng = np.random.default_rng(1)
    trace = rng.normal(size=2000)
    trace[500:512] = 3e4
    snr = trace_snr(trace[None], fr=30, decay_time=0.4)[0]
    assert snr == pytest.approx(3e4 / 3, rel=0.1)  # noise level of 2000 samples


def test_snr_is_that_of_the_reference(fitted):
    """With the reference's own mode the SNR is equal; the exact mode moves it by a few per cent."""
    stored, traces = fitted
    flat = traces - slow_baseline(traces)
    mode = np.array([mode_of_reference(x) for x in flat])
    below = np.where(flat < mode[:, None], flat - mode[:, None], np.nan)
    sd = np.sqrt(np.nanmean(below**2, axis=1))
    fitness = event_log_probability(flat, mode, 3 * sd, 12).min(axis=1)
    assert_allclose(-ndtri_exp(fitness / 12), stored["evaluate_SNR_comp"], rtol=1e-5)
    ours = trace_snr(traces, 20, 0.6)
    assert_allclose(ours, stored["evaluate_SNR_comp"], rtol=0.07)


def test_event_exceptionality_is_that_of_the_reference(fitted):
    stored, traces = fitted
    mode = np.array([mode_of_reference(x) for x in traces])
    assert_allclose(mode, stored["compute_event_exceptionality_md"], atol=1e-5)
    unit = 3 * stored["compute_event_exceptionality_sd_r"]
    erfc = event_log_probability(traces, mode, unit, 12)
    assert_allclose(erfc, stored["compute_event_exceptionality_erfc"], rtol=1e-4, atol=1e-4)
    assert_allclose(erfc.min(1), stored["compute_event_exceptionality_fitness"], rtol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 9, 31, 100])
def test_short_and_constant_traces_have_a_finite_snr(frames):
    traces = np.vstack([np.ones(frames), np.arange(frames) % 3, np.zeros(frames)])
    snr = trace_snr(traces, fr=30, decay_time=0.4)
    assert np.isfinite(snr).all()
    assert_allclose(snr[[0, 2]], 0, atol=1e-9)
    assert trace_snr(traces[:0], 30, 0.4).shape == (0,)


def test_a_nan_spoils_only_its_own_trace():
    traces = np.random.default_rng(0).normal(size=(3, 200))
    alone = trace_snr(traces, 10, 0.5)
    traces[1, 7] = np.nan
    snr = trace_snr(traces, 10, 0.5)
    assert np.isnan(snr[1])
    assert_array_equal(snr[[0, 2]], alone[[0, 2]])


def test_snr_does_not_depend_on_blocks_scale_or_offset(monkeypatch):
    traces = np.random.default_rng(0).normal(size=(7, 300))
    whole = trace_snr(traces, 10, 0.5)
    assert_allclose(trace_snr(traces * 8 - 100, 10, 0.5), whole, rtol=1e-9)
    monkeypatch.setattr(module, "BLOCK_BYTES", 8 * 300 * 2)
    assert_array_equal(trace_snr(traces, 10, 0.5), whole)


def test_traces_are_left_as_they_were():
    traces = np.random.default_rng(0).normal(size=(2, 50))
    before = traces.copy()
    trace_snr(traces, 10, 0.5)
    compute_event_exceptionality(traces)
    assert_array_equal(traces, before)


def test_events_need_a_frame():
    with pytest.raises(ParameterError, match="N=0"):
        compute_event_exceptionality(np.zeros((1, 5)), N=0)
