"""Time constants fitted to the largest transients: known ones come back, from wrong starts, on every wing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.deconvolution import constrained_foopsi, constrained_oasisAR1, constrained_oasisAR2
from gpucalcium.deconvolution.oasis_ar2 import slower_root
from tests.deconvolution.test_foopsi import bernoulli, hosted

MODEL = (1.5, -0.53)  # roots 0.930 and 0.570


@pytest.fixture(scope="module")
def stored(reference):
    return reference.load("deconvolution"), reference.inputs("deconvolution")


@pytest.mark.parametrize("events", [3, 5, 10])
@pytest.mark.parametrize("optimize_b", [True, False])
def test_nearer_the_truth_than_what_is_stored(stored, events, optimize_b):
    ref, (d, _) = stored
    y = d["Y"].astype(float) - (0 if optimize_b else d["b"][:, None])
    g = constrained_oasisAR1(y, d["g"][0], 0.3, optimize_b=optimize_b, optimize_g=events)[3]
    there = ref["oasisAR1_pen1_smin0_optbg_g"].ravel()
    assert np.abs(g - d["g"][0]).mean() < 0.5 * np.abs(there - d["g"][0]).mean()
    assert np.abs(g - d["g"][0]).max() < 0.012


@pytest.mark.parametrize("start", [0.88, 0.97])
def test_wrong_decay_comes_right(wing, start):
    y = bernoulli((0.94,), 0.2, K=5, T=1500)[0]
    c, _, b, g, _ = hosted(constrained_oasisAR1(wing.put(y), start, 0.2, optimize_b=True, optimize_g=8))
    assert_allclose(g, 0.94, atol=0.015)
    assert_allclose(((y.astype(float) - b[:, None] - c) ** 2).sum(1), 0.04 * 1500, rtol=1e-3)


@pytest.mark.parametrize("start", [(0.9, 0.5), (0.95, 0.4), (0.96, 0.7), (0.88, 0.7)])
def test_wrong_rise_and_decay_come_right(wing, start):
    y = bernoulli(MODEL, 0.2, K=4, T=1500)[0]
    start = (sum(start), -start[0] * start[1])  # of decay times half to twice the true one
    g = hosted(constrained_oasisAR2(wing.put(y), start, 0.2, optimize_g=8))[3]
    slow = slower_root(g)
    assert_allclose(slow, 0.93, atol=0.01)
    assert_allclose(g[:, 0] - slow, 0.57, atol=0.03)


def test_stored_wrong_model_of_calcium_that_rises_comes_right(stored):
    """All stored runs keep the model they were given, whose rise is slower than the truth."""
    ref, (_, d) = stored
    wrong, true = ref["oasisAR2_pen1_smin0_optbg_g"][0], d["g"]
    g = constrained_oasisAR2(d["Y"], wrong, 0.3, optimize_g=5)[3]
    slow = slower_root(g)
    assert_allclose(slow, slower_root(np.atleast_2d(true))[0], atol=0.005)
    assert np.abs(g - true).max() < 0.5 * np.abs(wrong - true).max()


@pytest.mark.parametrize(("p", "atol"), [(1, 0.02), (2, 0.05)])
def test_of_all_estimated(stored, p, atol):
    """From estimated noise and constants, against the stored decay, itself from five transients."""
    ref, data = stored
    g = constrained_foopsi(data[p - 1]["Y"], p=p, optimize_g=5, noise_method="mean")[3]
    decay = g[:, 0] if p == 1 else slower_root(g)
    there = ref[f"foopsi_p{p}_optg_g"]
    assert_allclose(np.median(decay), np.median(there[:, 0] if p == 1 else slower_root(there)), atol=atol)
    true = np.zeros((1, 2))
    true[0, :p] = data[p - 1]["g"][0] if p == 1 else data[p - 1]["g"]
    assert_allclose(decay, slower_root(true)[0], atol=0.03)


def test_one_trace_is_a_batch_of_one(wing):
    y = bernoulli(MODEL, 0.3, K=3, T=400)[0]
    for function, start in ((constrained_oasisAR1, (0.95,)), (constrained_oasisAR2, MODEL)):
        batch = backend.to_numpy(function(wing.put(y), start, 0.3, optimize_b=True, optimize_g=4)[3])
        for k in range(3):
            one = backend.to_numpy(function(wing.put(y[k]), start, 0.3, optimize_b=True, optimize_g=4)[3])
            assert_allclose(one, batch[k], atol=1e-6)


def test_budget_changes_nothing():
    y = bernoulli(MODEL, 0.3, K=5, T=300)[0]
    whole = constrained_oasisAR2(y, MODEL, 0.3, optimize_g=4)[3]
    with backend.limit(memory="150KiB"):
        assert_allclose(constrained_oasisAR2(y, MODEL, 0.3, optimize_g=4)[3], whole, atol=1e-9)


@pytest.mark.parametrize("T", [1, 5, 40])
def test_without_spikes_it_stays(T):
    flat = np.full((2, T), 3.0)
    assert_array_equal(constrained_oasisAR1(flat, 0.9, 0.1, optimize_b=True, optimize_g=5)[3], 0.9)
    g = constrained_oasisAR2(flat, MODEL, 0.1, optimize_g=5)[3]
    assert_allclose(slower_root(g), slower_root(np.array([MODEL]))[0])


@pytest.mark.parametrize("p", [1, 2])
def test_no_traces_and_more_events_than_spikes(p):
    assert constrained_foopsi(np.zeros((0, 50)), p=p, optimize_g=3)[3].shape == (0, p)
    y = bernoulli((0.9,), 0.3, K=1, T=60)[0]
    assert np.isfinite(constrained_foopsi(y, p=p, sn=0.3, optimize_g=500)[3]).all()


def test_the_number_of_transients_counts():
    y = bernoulli((0.94,), 0.3, K=3, T=1000)[0]
    found = [constrained_oasisAR1(y, 0.94, 0.3, optimize_b=True, optimize_g=n)[3] for n in (1, 4, 16)]
    assert np.abs(found[0] - found[1]).max() > 1e-4 < np.abs(found[1] - found[2]).max()
