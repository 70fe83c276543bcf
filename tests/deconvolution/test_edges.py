"""What any caller may hand in: every order and penalty, odd shapes and types, nothing, and what cannot be."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.deconvolution import (
    GetSn,
    axcov,
    constrained_foopsi,
    constrained_oasisAR1,
    constrained_oasisAR2,
    estimate_parameters,
    estimate_time_constant,
    get_noise_fft,
    get_noise_welch,
    infer_spikes,
    oasisAR1,
)
from gpucalcium.deconvolution.oasis_ar2 import slower_root
from tests.deconvolution.test_foopsi import bernoulli, hosted

G = {1: [0.9], 2: [1.5, -0.53]}
PENALTIES = [None, 0, 0.5, -1]


@pytest.mark.parametrize("p", [0, 1, 2])
@pytest.mark.parametrize("s_min", PENALTIES)
@pytest.mark.parametrize("dtype", ["float16", "float64", "int16", "uint8", "bool"])
def test_any_type_and_layout(p, s_min, dtype):
    y = np.round(10 * bernoulli((0.9,), 0.3, K=3, T=120, b=1)[0]).clip(0)
    y = y > 10 if dtype == "bool" else y
    options = {"p": p, "s_min": s_min, "sn": 3.0 if dtype != "bool" else 0.3, "g": G.get(p)}
    expected = constrained_foopsi(y.astype(np.float64), **options)
    for a, b in zip(constrained_foopsi(np.asfortranarray(y.astype(dtype)), **options), expected, strict=True):
        assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max(initial=1e-9))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("s_min", PENALTIES)
@pytest.mark.parametrize("value", [0.0, 4.5])
@pytest.mark.parametrize("T", [1, 2, 3, 19, 64])
def test_constants_of_any_length(wing, p, s_min, value, T):
    y = wing.put(np.full((2, T), value))
    c, bl, c1, g, _, sp, _ = hosted(constrained_foopsi(y, g=G[p], sn=0.1, p=p, s_min=s_min))
    assert_allclose(np.abs(sp).max(), 0, atol=1e-6)
    assert_allclose(
        bl[:, None] + c + c1[:, None] * np.atleast_1d(slower_of(g, p))[:, None] ** np.arange(T),
        value,
        atol=0.35,
    )


def slower_of(g, p):
    return g[:, 0] if p == 1 else slower_root(g)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("s_min", PENALTIES)
@pytest.mark.parametrize("T", [1, 2, 5, 19])
def test_short_traces(wing, p, s_min, T):
    y = wing.put(np.random.default_rng(T).normal(5, 1, (3, T)))
    for result in hosted(constrained_foopsi(y, g=G[p], sn=0.4, p=p, s_min=s_min)):
        assert np.isfinite(result).all()


@pytest.mark.parametrize("function", [constrained_oasisAR1, constrained_oasisAR2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_named(wing, function, bad):
    y = np.zeros((4, 60))
    y[2, 7] = bad
    with pytest.raises(ValueError, match="trace 2 of 4"):
        function(wing.put(y), (0.9,) if function is constrained_oasisAR1 else (1.5, -0.53), 0.3)


@pytest.mark.parametrize(("g", "becomes"), [(-0.2, 0.0), (0.0, 0.0), (1.0, 0.999), (1.7, 0.999)])
def test_decays_outside_their_range(wing, g, becomes):
    y = wing.put(bernoulli((0.9,), 0.3, K=2, T=100)[0])
    if g == becomes:
        got = constrained_oasisAR1(y, g, 0.3, optimize_b=True)
    else:
        with pytest.warns(UserWarning, match="clipped"):
            got = constrained_oasisAR1(y, g, 0.3, optimize_b=True)
    assert_array_equal(backend.to_numpy(got[3]), becomes)
    assert all(np.isfinite(x).all() for x in hosted(got))


@pytest.mark.parametrize("s_min", PENALTIES)
@pytest.mark.parametrize("p", [0, 1, 2])
def test_no_traces_and_kinds(on_gpu, s_min, p):
    empty = constrained_foopsi(
        on_gpu.put(np.zeros((0, 40), np.float32)), p=p, s_min=s_min, optimize_g=2 * (p > 0)
    )
    assert [x.shape for x in empty] == [(0, 40), (0,), (0,), (0, p), (0,), (0, 40), (0,)]
    assert all(backend.is_cupy(x) for x in empty)


def test_estimates_stay_with_their_traces(on_gpu):
    y = on_gpu.put(bernoulli((0.9,), 0.3, K=2, T=100)[0])
    for p in (0, 1, 2):
        g, sn = estimate_parameters(y, p)
        assert backend.is_cupy(sn)
        assert p == 0 or backend.is_cupy(g)
    assert backend.is_cupy(GetSn(y))
    assert backend.is_cupy(estimate_time_constant(y, 1))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("sn", [0.0, 1e-3, 50.0])
def test_noise_that_no_fit_has(wing, p, sn):
    """Less than the closest fit leaves, or more than a flat line: both ends are met, finite."""
    y = bernoulli((0.9,), 0.3, K=2, T=150)[0]
    c, bl, c1, _, _, sp, _ = hosted(constrained_foopsi(wing.put(y), g=G[p], sn=sn, p=p))
    assert np.isfinite(c).all()
    assert (sp >= 0).all()
    if sn == 50 and p == 1:
        assert not (c.any() or c1.any())
        assert_allclose(bl, y.mean(1), rtol=1e-4)


def test_a_huge_trace_value_overflows_nothing():
    y = 1e30 * bernoulli((0.9,), 0.3, K=1, T=100)[0].astype(np.float64)
    c, bl, *_ = constrained_foopsi(y, g=[0.9], sn=0.3e30, p=1)
    assert np.isfinite(c).all()
    assert bl[0] == pytest.approx(1e31, rel=0.2)


@pytest.mark.parametrize("p", [1, 2])
def test_threads_change_no_bit_of_what_is_estimated(monkeypatch, p):
    y = bernoulli((0.9,), 0.3, K=90, T=700)[0]
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("GPUCALCIUM_THREADS", threads)
        results.append(constrained_foopsi(y, p=p))
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert_array_equal(a, b)


@pytest.mark.parametrize(
    "function",
    [
        GetSn,
        axcov,
        get_noise_fft,
        get_noise_welch,
        estimate_time_constant,
        lambda y: constrained_foopsi(y, p=1),
        lambda y: constrained_oasisAR1(y, 0.9, 0.3),
        lambda y: constrained_oasisAR2(y, (1.5, -0.53), 0.3),
    ],
)
@pytest.mark.parametrize("bad", [np.ones((2, 40), complex), np.full((2, 40), "a")])
def test_what_is_not_real_is_said_so(function, bad):
    with pytest.raises(TypeError, match="real"):
        function(bad)


FOOPSI_MISTAKES = [
    ({"p": "1"}, "p='1'"),
    ({"p": 1.5}, "p=1.5"),
    ({"sn": -1}, "sn=-1"),
    ({"sn": "low"}, "sn='low'"),
    ({"g": "slow"}, "g='slow'"),
    ({"s_min": np.nan}, "s_min=nan"),
    ({"s_min": "small"}, "s_min='small'"),
    ({"s_min": [0.1, 0.2]}, "s_min="),
    ({"lags": 2.5}, "lags=2.5"),
    ({"fudge_factor": np.nan}, "fudge_factor=nan"),
    ({"fudge_factor": 0}, "fudge_factor=0"),
    ({"noise_range": 0.25}, "noise_range=0.25"),
    ({"optimize_g": 2.5}, "optimize_g=2.5"),
]
AR_MISTAKES = [
    ({"sn": -1}, "sn=-1"),
    ({"optimize_g": 1.5}, "optimize_g=1.5"),
    ({"decimate": 2.5}, "decimate=2.5"),
    ({"max_iter": 0}, "max_iter=0"),
    ({"max_iter": 2.5}, "max_iter=2.5"),
    ({"penalty": 0, "s_min": np.nan}, "s_min=nan"),
    ({"penalty": 2}, "penalty=2"),
]
AR2_MISTAKES = [
    ({"tol": np.nan}, "tol=nan"),
    ({"window": 99.5, "shift": 50}, "window=99.5"),
    ({"shift": 2.5}, "shift=2.5"),
    ({"shift": 1}, "shift=1"),
]


@pytest.mark.parametrize(
    ("function", "options", "named"),
    [(lambda y, **o: constrained_foopsi(y, **({"p": 1} | o)), *case) for case in FOOPSI_MISTAKES]
    + [(lambda y, **o: constrained_oasisAR1(y, 0.9, **({"sn": 0.3} | o)), *case) for case in AR_MISTAKES]
    + [
        (lambda y, **o: constrained_oasisAR2(y, (1.5, -0.53), **({"sn": 0.3} | o)), *case)
        for case in AR_MISTAKES + AR2_MISTAKES
    ]
    + [
        (estimate_time_constant, {"p": None}, "p=None"),
        (estimate_time_constant, {"sn": [0.1, 0.2]}, "sn has 2 values for 3 traces"),
        (estimate_parameters, {"sn": np.nan}, "sn is NaN"),
        (estimate_parameters, {"p": -1}, "p=-1"),
        (get_noise_fft, {"noise_range": (0.25,)}, "noise_range="),
        (get_noise_welch, {"max_num_samples_fft": 99.5}, "max_num_samples_fft=99.5"),
        (GetSn, {"range_ff": None}, "range_ff=None"),
        (axcov, {"maxlag": 2.5}, "maxlag=2.5"),
        (oasisAR1, {"g": 0.9, "s_min": -1}, "s_min=-1"),
        (infer_spikes, {"frame_rate": "fast"}, "frame_rate='fast'"),
        (infer_spikes, {"frame_rate": 0}, "frame_rate=0"),
        (infer_spikes, {"frame_rate": 30, "seed": -1}, "seed=-1"),
        (infer_spikes, {"frame_rate": 30, "settings": {"smoothing": 0.1}}, "settings={"),
    ],
)
def test_a_value_that_does_not_fit_is_named(function, options, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        function(bernoulli((0.9,), 0.3, K=3, T=120)[0], **options)


def test_whole_numbers_of_any_type():
    y = bernoulli((0.9,), 0.3, K=2, T=120)[0]
    for a, b in zip(
        constrained_foopsi(y, p=1.0, lags=np.float64(4), optimize_g=True),
        constrained_foopsi(y, p=1, lags=4, optimize_g=1),
        strict=True,
    ):
        assert_array_equal(a, b)


@pytest.mark.parametrize("function", [estimate_time_constant, estimate_parameters])
def test_estimates_name_the_trace_that_is_not_finite(wing, function):
    y = bernoulli((0.9,), 0.3, K=3, T=120)[0]
    y[1, 5] = np.nan
    with pytest.raises(ValueError, match="trace 1 of 3"):
        function(wing.put(y), 1)
