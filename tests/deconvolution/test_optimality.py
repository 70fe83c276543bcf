"""The conditions of the optimum: met by a quadratic programme's solution, missed by anything else, on every wing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpucalcium import backend
from gpucalcium.deconvolution import constrained_oasisAR1, kkt_residual
from gpucalcium.errors import ArrayShapeError, ParameterError
from tests.backend.test_oasis import by_quadratic_programme
from tests.deconvolution.test_foopsi import bernoulli, hosted


def test_a_quadratic_programme_meets_them(wing):
    y = bernoulli((0.9,), 0.3, K=2, T=120, b=1, rate=0.05)[0]
    c = np.stack([by_quadratic_programme(row - 1.0, 0.9, 0.7) for row in y.astype(float)])
    met = hosted(kkt_residual(wing.put(y), wing.put(c), 1.0, 0.9, 0.7, 0.3))
    assert_allclose(met[0], 0, atol=1e-6)
    assert_allclose(met[1], 0, atol=1e-5)
    assert_allclose(met[2], np.abs(((y - 1 - c) ** 2).sum(1) / (0.09 * 120) - 1), rtol=1e-4)
    assert kkt_residual(wing.put(y), wing.put(c), 1.0, 0.9, 0.7).noise is None


@pytest.mark.parametrize(
    ("c_by", "lam", "b"), [(0.02, 0.7, 1.0), (0.0, 0.9, 1.0), (0.0, 0.7, 1.05)], ids=["c", "lam", "b"]
)
def test_anything_else_misses_them(c_by, lam, b):
    y = bernoulli((0.9,), 0.3, K=1, T=120, b=1, rate=0.05)[0]
    c = by_quadratic_programme(y[0] - 1.0, 0.9, 0.7)
    assert kkt_residual(y[0], c * (1 + c_by), b, 0.9, lam).gradient > 1e-3


def test_negative_spikes_are_seen():
    y = bernoulli((0.9,), 0.1, K=1, T=120, b=0, rate=0.05)[0]
    assert kkt_residual(y[0], y[0], 0.0, 0.9, 0.0).negative > 0.1


@pytest.mark.parametrize("g", [0.95, np.full(4, 0.95), np.full((4, 1), 0.95)], ids=["one", "each", "columns"])
def test_the_search_ends_at_the_optimum(wing, g):
    y = bernoulli((0.95,), 0.3, K=4, T=500)[0]
    c, _, b, _, lam = constrained_oasisAR1(wing.put(y), 0.95, 0.3, optimize_b=True, max_iter=50)
    found = kkt_residual(wing.put(y), c, b, g, lam, 0.3)
    assert all(backend.is_cupy(x) == (wing.device == "cuda") for x in found)
    assert [float(x.max()) < bound for x, bound in zip(found, (1e-6, 1e-5, 1e-4), strict=True)] == [True] * 3


def test_constants_are_optimal():
    found = kkt_residual(np.full((2, 30), 3.0), np.zeros((2, 30)), 3.0, (1.7, -0.71), 0.0, 0.0)
    assert not any(x.any() for x in found[:2])


def test_errors():
    y = np.zeros((4, 30))
    with pytest.raises(ArrayShapeError, match="same traces"):
        kkt_residual(y, y[0], 0, 0.9, 0)
    with pytest.raises(ParameterError, match="p = 1 or 2"):
        kkt_residual(y, y, 0, (0.5, 0.1, 0.1), 0)
