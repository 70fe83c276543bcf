"""Small non-negative regressions: optimality, an independent solver, brute force, twin against twin."""

from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import nnls

from gpucalcium.backend import to_numpy
from gpucalcium.backend import wing as wing_of
from tests.wings import wings_present

SWEEPS = 20_000


class Regressions:
    """Random problems on subsets of M shared regressors; true weights are sparse."""

    def __init__(self, n=40, M=7, T=60, most=6, noise=0.3, seed=1):
        rng = np.random.default_rng(seed)
        self.X = rng.standard_normal((M, T)) + rng.standard_normal(T)  # correlated
        self.members = [np.sort(rng.choice(M, rng.integers(0, most + 1), replace=False)) for _ in range(n)]
        self.Y = np.stack(
            [
                (rng.random(len(m)) * (rng.random(len(m)) < 0.6)) @ self.X[m] + noise * rng.standard_normal(T)
                for m in self.members
            ]
        )
        self.noise, self.T = noise, T
        self.components = np.concatenate(self.members).astype(np.int64)
        self.indptr = np.concatenate([[0], np.cumsum([len(m) for m in self.members])]).astype(np.int64)
        problem = np.repeat(np.arange(n), np.diff(self.indptr))
        self.gram = self.X @ self.X.T
        self.products = (self.Y @ self.X.T)[problem, self.components]
        self.penalty = np.full(len(self.components), 2.0)

    def parts(self, weights):
        return [weights[a:b] for a, b in zip(self.indptr[:-1], self.indptr[1:], strict=True)]

    def lasso(self, wing, penalty=None, tolerance=1e-9):
        penalty = self.penalty if penalty is None else penalty
        given = [wing.put(x) for x in (self.indptr, self.components, self.products, self.gram, penalty)]
        limit = wing.put(np.full(len(penalty), tolerance))
        return to_numpy(wing_of(*given).nnls.lasso(*given, limit, SWEEPS))

    def nnls_l0(self, wing, bound):
        squares = (self.Y**2).sum(1)
        given = [
            wing.put(x)
            for x in (
                self.indptr,
                self.components,
                self.products,
                self.gram,
                squares,
                np.full(len(squares), bound),
                np.full(len(self.components), 1e-9),
            )
        ]
        return to_numpy(wing_of(*given).nnls.nnls_l0(*given, SWEEPS))


def test_lasso_is_optimal(wing):
    r = Regressions()
    for w, members, y in zip(r.parts(r.lasso(wing)), r.members, r.Y, strict=True):
        X = r.X[members]
        slope = -X @ (y - w @ X) + 2.0
        assert (w >= 0).all()
        assert_allclose(slope[w > 0], 0, atol=1e-7)
        assert (slope >= -1e-7).all()


def test_lasso_without_penalty_is_non_negative_least_squares(wing):
    r = Regressions(seed=4)
    for w, members, y in zip(r.parts(r.lasso(wing, penalty=0 * r.penalty)), r.members, r.Y, strict=True):
        if len(members):
            assert_allclose(w, nnls(r.X[members].T, y)[0], atol=1e-6)


def test_lasso_by_brute_force(wing):
    """Of all subsets, the one whose exact solution has no negative weight and the lowest value."""
    r = Regressions(n=12, M=5, most=5, seed=6)
    for w, members, y in zip(r.parts(r.lasso(wing)), r.members, r.Y, strict=True):
        X = r.X[members]
        best, value = np.zeros(len(members)), 0.5 * y @ y
        for size in range(1, len(members) + 1):
            for subset in map(list, combinations(range(len(members)), size)):
                try_w = np.zeros(len(members))
                try_w[subset] = np.linalg.solve(X[subset] @ X[subset].T, X[subset] @ y - 2.0)
                loss = 0.5 * ((y - try_w @ X) ** 2).sum() + 2.0 * try_w.sum()
                if (try_w >= 0).all() and loss < value:
                    best, value = try_w, loss
        assert_allclose(w, best, atol=1e-6)


def test_equal_regressors_still_fit(wing):
    r = Regressions(n=10, seed=2)
    r.X[1] = r.X[0]
    r.gram = r.X @ r.X.T
    problem = np.repeat(np.arange(10), np.diff(r.indptr))
    r.products = (r.Y @ r.X.T)[problem, r.components]
    for w, members, y in zip(r.parts(r.lasso(wing)), r.members, r.Y, strict=True):
        slope = -r.X[members] @ (y - w @ r.X[members]) + 2.0
        assert (slope >= -1e-6).all()


def test_a_silent_regressor_gets_nothing(wing):
    r = Regressions(n=5)
    r.gram[2] = r.gram[:, 2] = 0
    r.products[r.components == 2] = 0
    assert_array_equal(r.lasso(wing)[r.components == 2], 0)


def test_l0_keeps_the_smallest_set_that_explains(wing):
    """Brute force: no smaller subset reached by dropping one may stay within the bound; weights are refitted."""
    r = Regressions(n=25, M=6, most=6, seed=9)
    bound = 1.2 * r.noise**2 * r.T
    for w, members, y in zip(r.parts(r.nnls_l0(wing, bound)), r.members, r.Y, strict=True):
        X = r.X[members]
        full = nnls(X.T, y)[1] ** 2 if len(members) else y @ y
        if full > bound:
            assert_allclose(w, nnls(X.T, y)[0] if len(members) else w, atol=1e-6)
            continue
        kept = np.flatnonzero(w)
        assert ((y - w @ X) ** 2).sum() <= bound * (1 + 1e-9)
        if len(kept):
            assert_allclose(w[kept], nnls(X[kept].T, y)[0], atol=1e-6)
        if len(kept) > 1:
            assert all(nnls(np.delete(X[kept], i, 0).T, y)[1] ** 2 > bound for i in range(len(kept)))


@pytest.mark.parametrize("n", [1, 64, 65])
def test_twins_agree(n):
    r = Regressions(n=n, seed=n)
    results = [(r.lasso(w), r.nnls_l0(w, 6.0)) for w in wings_present()]
    for other in results[1:]:
        assert_allclose(other[0], results[0][0], atol=1e-7)
        assert_allclose(other[1], results[0][1], atol=1e-7)
