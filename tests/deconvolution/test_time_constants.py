"""AR coefficients recovered from simulated calcium, and those of stored references, on every wing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.deconvolution import estimate_parameters, estimate_time_constant
from gpucalcium.errors import ArrayShapeError, ParameterError


def traces_of(g, K=20, T=5000, sn=0.2, seed=0):
    rng = np.random.default_rng(seed)
    c = (rng.random((K, T)) < 0.03).astype(float)
    for t in range(len(g), T):
        c[:, t] += sum(gi * c[:, t - 1 - i] for i, gi in enumerate(g))
    return c + sn * rng.standard_normal((K, T)) + 3


@pytest.mark.parametrize("g", [(0.9,), (1.6, -0.62)])
def test_known_coefficients_are_recovered(wing, g):
    found = backend.to_numpy(estimate_time_constant(wing.put(traces_of(g)), len(g), 0.2))
    assert found.shape == (20, len(g))
    decay = [max(np.roots([1, *-row]).real) for row in found]
    assert np.median(decay) == pytest.approx(max(np.roots([1, *-np.array(g)])), abs=0.02)


def test_reference(reference):
    ref, L = reference.load("noise"), reference.inputs("noise")[1]["Y"]
    assert_allclose(estimate_time_constant(L, 1), ref["estimate_time_constant_p1"], atol=1e-5)
    assert_allclose(estimate_time_constant(L, 2), ref["estimate_time_constant_p2"], atol=1e-5)
    kw = {"sn": 0.3, "lags": 8, "fudge_factor": 0.98}
    assert_allclose(estimate_time_constant(L, 1, **kw), ref["estimate_time_constant_fudge_p1"], atol=1e-5)
    # some second roots are below 0 there and replaced by about 0.15 with another random offset
    assert_allclose(estimate_time_constant(L, 2, **kw), ref["estimate_time_constant_fudge_p2"], atol=0.03)
    for p in (1, 2):
        g, sn = estimate_parameters(L, p, method="mean")
        assert_allclose(g, ref[f"estimate_parameters_p{p}_g"], atol=1e-5)
        assert_allclose(sn, ref[f"estimate_parameters_p{p}_sn"], rtol=1e-5)


def test_one_trace_is_a_batch_of_one(wing):
    traces = traces_of((0.9,), K=3, T=400)
    batch = backend.to_numpy(estimate_time_constant(wing.put(traces), 2))
    for row, trace in zip(batch, traces, strict=True):
        assert_allclose(backend.to_numpy(estimate_time_constant(wing.put(trace), 2)), row, rtol=1e-6)


def test_roots_stay_between_zero_and_one():
    noise = np.random.default_rng(1).normal(size=(200, 100))
    for p in (1, 2, 3):
        for row in estimate_time_constant(noise, p):
            roots = np.roots([1, *-row])
            assert (roots.real > -0.05).all()
            assert (roots.real < 1.05).all()


def test_nothing_is_random():
    noise = np.random.default_rng(2).normal(size=(5, 60))
    np.random.seed(0)  # noqa: NPY002 - the global generator must be neither used nor moved
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = estimate_time_constant(noise, 2)
    assert_array_equal(estimate_time_constant(noise, 2), first)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_fudge_factor_shortens_the_decay():
    traces = traces_of((0.9,), K=4)
    assert_allclose(
        estimate_time_constant(traces, 1, fudge_factor=0.9), 0.9 * estimate_time_constant(traces, 1)
    )


def test_constants_have_no_dynamics():
    assert_array_equal(estimate_time_constant(np.full((2, 50), 5.3), 2), 0)


def test_given_values_are_kept():
    g, sn = estimate_parameters(traces_of((0.9,), K=2), 1, sn=0.5, g=np.array([0.8]))
    assert_array_equal(g, [0.8])
    assert sn == 0.5
    assert estimate_parameters(np.zeros(30), 0)[0].shape == ()


def test_errors():
    with pytest.raises(ParameterError, match="longer trace"):
        estimate_time_constant(np.zeros(7), 2)
    with pytest.raises(ParameterError, match="p=0: expected the order"):
        estimate_time_constant(np.zeros(50), 0)
    with pytest.raises(ArrayShapeError, match=r"\(K, T\)"):
        estimate_time_constant(np.zeros((2, 3, 50)), 1)
