"""Deconvolution as a convex programme: against stored results, against pools, and without the extra."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.deconvolution import constrained_foopsi
from gpucalcium.errors import MissingExtraError, ParameterError
from tests.deconvolution.test_foopsi import NAMES, bernoulli, hosted


@pytest.fixture
def cvxpy():
    return pytest.importorskip("cvxpy")


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    for method in ("cvxpy", "cvx"):
        with pytest.raises(MissingExtraError, match=r"gpucalcium\[cvx\]"):
            constrained_foopsi(np.arange(50.0), p=1, g=[0.9], sn=1.0, method_deconvolution=method)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("method", ["cvxpy", "cvx"])
def test_reference(cvxpy, reference, p, method):
    ref, y = reference.load("deconvolution"), reference.inputs("deconvolution")[p - 1]["Y"][:2, :400]
    got = constrained_foopsi(y, p=p, method_deconvolution=method, solvers=["CLARABEL", "SCS"])
    for name, value in zip(NAMES[:-1], got, strict=False):  # the penalty is not stored
        stored = ref[f"foopsi_p{p}_cvxpy_clarabel_{name}"].reshape(value.shape)
        assert_allclose(value, stored, atol=1e-3 * max(np.abs(stored).max(), 1e-3), err_msg=name)


def test_as_pools(cvxpy, wing):
    """The same problem but for the calcium at t = 0, which costs nothing here: none is there."""
    y = bernoulli((0.9,), 0.2, K=2, T=200, b=3)[0]
    y[:, 0] = 3
    options = {"p": 1, "g": [0.9], "sn": 0.2}
    pools = hosted(constrained_foopsi(wing.put(y), c1=0.0, **options))
    programme = hosted(constrained_foopsi(wing.put(y), c1=0.0, method_deconvolution="cvxpy", **options))
    assert_allclose(programme[0], pools[0], atol=2e-3)
    assert_allclose(programme[1], pools[1], atol=1e-3)
    rss = ((y.astype(float) - programme[1][:, None] - programme[0]) ** 2).sum(1)
    assert_allclose(rss, 0.04 * 200, rtol=1e-3)


def test_third_order(cvxpy):
    y = bernoulli((1.2, -0.3, 0.02), 0.1, K=1, T=150, b=1)[0]
    c, bl, c1, g, _, s, _ = constrained_foopsi(
        y, p=3, g=[1.2, -0.3, 0.02], sn=0.1, method_deconvolution="cvxpy"
    )
    assert g.shape == (1, 3)
    assert_allclose(s[0, 3:], c[0, 3:] - 1.2 * c[0, 2:-1] + 0.3 * c[0, 1:-2] - 0.02 * c[0, :-3], atol=1e-4)
    decay = max(np.roots([1, -1.2, 0.3, -0.02]).real)
    rss = ((y - bl - c - c1 * decay ** np.arange(150)) ** 2).sum()
    assert rss == pytest.approx(0.01 * 150, rel=1e-2)


def test_given_start_and_baseline_are_kept(cvxpy):
    y = bernoulli((0.9,), 0.2, K=1, T=100, b=3)[0]
    got = constrained_foopsi(y[0], bl=2.9, c1=0.3, g=[0.9], sn=0.2, p=1, method_deconvolution="cvxpy")
    assert got[1] == 2.9
    assert got[2] == 0.3


def test_baseline_below_zero_needs_leave(cvxpy):
    y = bernoulli((0.9,), 0.2, K=1, T=100, b=-3)[0]
    options = {"p": 1, "g": [0.9], "sn": 0.2, "method_deconvolution": "cvxpy"}
    assert constrained_foopsi(y, bas_nonneg=False, **options)[1] == pytest.approx(-3, abs=0.2)
    assert constrained_foopsi(y, **options)[1] == pytest.approx(0, abs=1e-6)


def test_less_noise_than_any_fit_leaves_is_penalised(cvxpy):
    y = bernoulli((0.9,), 0.5, K=1, T=100, b=3)[0][0]
    c, bl, _, _, _, s, lam = constrained_foopsi(y, g=[0.9], sn=1e-3, p=1, method_deconvolution="cvxpy")
    assert lam == pytest.approx(1e-3 / 500)
    assert (s >= 0).all()
    assert ((y - bl - c) ** 2).sum() > 1e-6 * 100


def test_solvers_are_tried_in_turn(cvxpy):
    y = bernoulli((0.9,), 0.2, K=1, T=80, b=3)[0][0]
    options = {"p": 1, "g": [0.9], "sn": 0.2, "method_deconvolution": "cvxpy"}
    first = constrained_foopsi(y, solvers=["NOBODY", "CLARABEL"], **options)
    assert_array_equal(first[0], constrained_foopsi(y, solvers=["CLARABEL"], **options)[0])
    with pytest.raises(ParameterError, match="none is installed"):
        constrained_foopsi(y, solvers=["NOBODY"], **options)


def test_no_traces(cvxpy):
    got = constrained_foopsi(np.zeros((0, 50)), p=1, method_deconvolution="cvxpy")
    assert [np.shape(x) for x in got] == [(0, 50), (0,), (0,), (0, 1), (0,), (0, 50), (0,)]
