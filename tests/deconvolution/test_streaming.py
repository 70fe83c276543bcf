"""Samples one at a time give what the whole trace gives at once."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.deconvolution import OASIS, oasisAR1
from gpucalcium.errors import ParameterError
from tests.deconvolution.test_foopsi import bernoulli


def fed(y, **options):
    stream = OASIS(**options)
    for sample in y:
        stream.fit_next(sample)
    return stream


@pytest.mark.parametrize(
    ("case", "options"),
    {
        "lam0": {},
        "lam2": {"lam": 2},
        "smin05": {"s_min": 0.5},
        "lam1_b05": {"lam": 1, "b": 0.5},
    }.items(),
)
def test_reference(reference, case, options):
    ref, d = reference.load("deconvolution"), reference.inputs("deconvolution")[0]
    stream = fed(d["Y"][0].astype(float), g=d["g"][0], **options)
    assert_allclose(stream.get_c(), ref[f"OASIS_fit_next_p1_{case}_c"], atol=1e-5)
    s, stored = stream.get_s(), ref[f"OASIS_fit_next_p1_{case}_s"].copy()
    first = np.flatnonzero(stream.get_c())[0]
    stored[first] = s[
        first
    ]  # there, it is measured from the negative start that the calcium before was cut off at
    assert_allclose(s, stored, atol=1e-5)


@pytest.mark.parametrize("lam", [0, 2])
def test_reference_of_calcium_that_rises(reference, lam):
    ref, d = reference.load("deconvolution"), reference.inputs("deconvolution")[1]
    g, g2 = ref["oasisAR2_pen1_smin0_given_g"][0]
    stream = fed(d["Y"][0].astype(float), g=g, g2=g2, lam=lam)
    assert_allclose(stream.get_c(), ref[f"OASIS_fit_next_p2_lam{lam}_c"], atol=1e-5)
    # where the first pool is one sample, the spike after it is measured there as if calcium before had been 0
    assert_allclose(stream.get_s()[2:], ref[f"OASIS_fit_next_p2_lam{lam}_s"][2:], atol=1e-5)


@pytest.mark.parametrize("g2", [-0.71, -0.7225])  # two roots, a double root
@pytest.mark.parametrize("s_min", [0, 0.4])
def test_pools_of_calcium_that_rises_are_least_squares(g2, s_min):
    """Each pool is the best stretch of the model for the calcium before it, and starts with a spike."""
    y = bernoulli((1.7, -0.71), 0.3, K=1, T=1500, b=0)[0][0].astype(float)
    stream = fed(y, g=1.7, g2=g2, s_min=s_min, num_empty_samples=3)
    y, c, s = np.r_[np.zeros(3), y], stream.get_c(), stream.get_s()
    h = np.ones(len(y))
    h[1] = 1.7
    for j in range(2, len(y)):
        h[j] = 1.7 * h[j - 1] + g2 * h[j - 2]
    for i in range(1, stream.get_num_pools()):
        t, n = stream.get_t_of_pool(i), stream.get_l_of_pool(i)
        left = y[t : t + n] - g2 * c[t - 1] * np.r_[0, h[: n - 1]]
        assert stream.get_v_of_pool(i) == pytest.approx(h[:n] @ left / (h[:n] @ h[:n]), abs=1e-6)
        assert s[t] >= s_min - 1e-9 or c[t] == 0
    assert_array_equal(np.flatnonzero(s) >= 3, True)
    assert stream.get_w_of_pool(-1) == pytest.approx(c[-1])


def test_long_transients_of_calcium_that_rises_are_not_cut():
    """A response of 5000 samples: nothing but one spike."""
    d, r = 0.999, 0.5
    c = (d ** np.arange(1, 5001) - r ** np.arange(1, 5001)) / (d - r)
    stream = fed(np.r_[np.zeros(5), c], g=d + r, g2=-d * r, s_min=0.1)
    assert stream.get_num_pools() == 2
    assert_allclose(stream.get_c()[5:], c, rtol=1e-9)


@pytest.mark.parametrize("g, g2", [(0.9, 0), (1.7, -0.71)])
@pytest.mark.parametrize("s_min", [0, 0.4])
def test_as_the_whole_trace_at_once(g, g2, s_min):
    y = bernoulli((0.9,), 0.3, K=1, T=300, b=0)[0][0]
    stream = fed(y, g=g, g2=g2, s_min=s_min)
    if g2 == 0:
        c, s = oasisAR1(y, g, s_min=s_min)
        assert_allclose(stream.get_c(), c, atol=1e-5)
        assert_allclose(stream.get_s(), s, atol=1e-5)
    assert_array_equal(stream.get_c(10), stream.get_c()[-10:])
    assert_array_equal(stream.get_s(10), stream.get_s()[-10:])
    assert len(stream) == 300


@pytest.mark.parametrize("g, g2", [(0.9, 0), (1.7, -0.71)])
def test_a_sample_on_trial_changes_nothing(g, g2):
    y = bernoulli((0.9,), 0.3, K=1, T=100, b=0)[0][0]
    stream = fed(y[:-1], g=g, g2=g2)
    before = stream.get_c()
    trial = stream.fit_next_tmp(y[-1], 20)
    assert_array_equal(stream.get_c(), before)
    stream.fit_next(y[-1])
    assert_array_equal(stream.get_c(20), trial)


def test_pools_add_up():
    y = bernoulli((0.9,), 0.3, K=1, T=200, b=0)[0][0]
    stream = fed(y, g=0.9, num_empty_samples=7)
    pools = range(stream.get_num_pools())
    assert len(stream) == 207 == sum(stream.get_l_of_pool(i) for i in pools)
    for i in pools:
        decay = 0.9 ** np.arange(stream.get_l_of_pool(i))
        assert stream.get_w_of_pool(i) == pytest.approx(decay @ decay)
    start = stream.get_t_of_pool(-1)
    assert stream.get_c()[start] == pytest.approx(max(stream.get_v_of_pool(-1), 0))


def test_errors():
    with pytest.warns(UserWarning, match="without ringing"):
        OASIS(1.0, g2=-0.9)
    with pytest.raises(ParameterError, match="num_empty_samples=-1"):
        OASIS(0.9, num_empty_samples=-1)
    with pytest.warns(UserWarning, match="clipped"):
        OASIS(1.2)


def test_the_last_samples_are_all_where_there_are_fewer():
    fit = OASIS(0.9)
    for y in (1.0, 0.2, 2.0):
        fit.fit_next(y)
    for num in (3, 4, 5, 100):
        assert_array_equal(fit.get_c(num), fit.get_c())
        assert_array_equal(fit.get_s(num), fit.get_s())
        assert len(fit.fit_next_tmp(0.5, num)) == min(num, 4)
    assert len(fit.get_c(0)) == len(fit.get_s(0)) == len(fit.fit_next_tmp(0.5, 0)) == 0
    with pytest.raises(ParameterError, match="num=-1"):
        fit.get_c(-1)


@pytest.mark.parametrize(
    "options", [{"g": np.nan}, {"lam": np.nan}, {"s_min": -1}, {"b": "low"}, {"num_empty_samples": 1.5}]
)
def test_values_that_do_not_fit_are_named(options):
    name, value = next(iter(options.items()))
    with pytest.raises(ParameterError, match=f"{name}="):
        OASIS(**({"g": 0.9} | {name: value}))


@pytest.mark.parametrize("y", [np.nan, np.inf, "a", [1.0, 2.0]])
def test_a_sample_is_one_finite_number(y):
    fit = OASIS(0.9)
    with pytest.raises(ParameterError, match="y="):
        fit.fit_next(y)
    assert len(fit) == 0
