"""Samples one at a time give what the whole trace gives at once."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.deconvolution import OASIS, oasisAR1
from gpucalcium.errors import NotSupportedError, ParameterError
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


@pytest.mark.parametrize("s_min", [0, 0.4])
def test_as_the_whole_trace_at_once(s_min):
    y = bernoulli((0.9,), 0.3, K=1, T=300, b=0)[0][0]
    stream = fed(y, g=0.9, s_min=s_min)
    c, s = oasisAR1(y, 0.9, s_min=s_min)
    assert_allclose(stream.get_c(), c, atol=1e-5)
    assert_allclose(stream.get_s(), s, atol=1e-5)
    assert_array_equal(stream.get_c(10), stream.get_c()[-10:])
    assert_array_equal(stream.get_s(10), stream.get_s()[-10:])
    assert len(stream) == 300


def test_a_sample_on_trial_changes_nothing():
    y = bernoulli((0.9,), 0.3, K=1, T=100, b=0)[0][0]
    stream = fed(y[:-1], g=0.9)
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
    with pytest.raises(NotSupportedError, match="g2=0"):
        OASIS(1.7, g2=-0.71)
    with pytest.raises(ParameterError, match="num_empty_samples=-1"):
        OASIS(0.9, num_empty_samples=-1)
    with pytest.warns(UserWarning, match="clipped"):
        OASIS(1.2)
