"""Many small non-negative regressions that share one Gram matrix: one problem per pixel.

Problem i has the regressors `components[indptr[i]:indptr[i + 1]]`. Coordinate descent on the Gram matrix, stopped by
the optimality (KKT) conditions, so the answer does not depend on where it started.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._threads import share


def lasso(
    indptr: NDArray[np.int64],
    components: NDArray[np.int64],
    products: NDArray[np.float64],
    gram: NDArray[np.float64],
    penalty: NDArray[np.float64],
    tolerance: NDArray[np.float64],
    max_sweeps: int,
) -> NDArray[np.float64]:
    """w >= 0 that minimises w'Gw / 2 - (q - penalty)'w, problem by problem.

    `products` q, `penalty` and `tolerance` are (nnz,), `gram` G (M, M). Ends when each gradient is within its
    tolerance of what optimality asks (0 where w > 0, not negative where w = 0), or after `max_sweeps`.
    Returns w, (nnz,). A regressor with G_mm = 0 gets 0.
    """
    weights = np.zeros(len(components))
    problems = (indptr, components, products, gram)
    share(
        len(indptr) - 1,
        lambda begin, end: _lasso(problems, penalty, tolerance, max_sweeps, weights, begin, end),
    )
    return weights


@nb.njit(nogil=True, cache=True, inline="always")
def _slope(e, first, last, components, products, gram, weights):
    """Gradient of w'Gw / 2 - q'w in w_e."""
    row = gram[components[e]]
    total = -products[e]
    for i in range(first, last):
        total += row[components[i]] * weights[i]
    return total


@nb.njit(nogil=True, cache=True)
def _descend(first, last, components, products, gram, penalty, tolerance, max_sweeps, weights):
    """Coordinate descent on one problem; entries with infinite penalty stay out."""
    for _ in range(max_sweeps):
        optimal = True
        for e in range(first, last):
            curvature = gram[components[e], components[e]]
            if curvature <= 0 or penalty[e] == np.inf:
                if weights[e] != 0:
                    weights[e] = 0.0
                    optimal = False  # those before it have seen its old weight
                continue
            slope = _slope(e, first, last, components, products, gram, weights) + penalty[e]
            if slope < -tolerance[e] or (weights[e] > 0 and slope > tolerance[e]):
                optimal = False
            weights[e] = max(weights[e] - slope / curvature, 0.0)
        if optimal:
            return


@nb.njit(nogil=True, cache=True)
def _lasso(problems, penalty, tolerance, max_sweeps, weights, begin, end):
    indptr, components, products, gram = problems
    for i in range(begin, end):
        _descend(
            indptr[i], indptr[i + 1], components, products, gram, penalty, tolerance, max_sweeps, weights
        )


def nnls_l0(
    indptr: NDArray[np.int64],
    components: NDArray[np.int64],
    products: NDArray[np.float64],
    gram: NDArray[np.float64],
    squares: NDArray[np.float64],
    bound: NDArray[np.float64],
    tolerance: NDArray[np.float64],
    max_sweeps: int,
) -> NDArray[np.float64]:
    """Non-negative least squares with as few regressors as a residual of `bound` allows, refitted on those.

    While the residual sum of squares, `squares` - 2 q'w + w'Gw, is within `bound` (both one per problem), the
    regressor whose removal leaves it lowest is dropped, if it stays within; the last one is never dropped.
    The other arguments are those of `lasso`. Returns w, (nnz,).
    """
    weights = np.zeros(len(components))
    trial = np.zeros(len(components))
    penalty = np.zeros(len(components))
    problems = (indptr, components, products, gram)
    share(
        len(indptr) - 1,
        lambda begin, end: _nnls_l0(
            problems, squares, bound, tolerance, max_sweeps, penalty, trial, weights, begin, end
        ),
    )
    return weights


@nb.njit(nogil=True, cache=True)
def _residual(first, last, components, products, gram, square, weights):
    total = square
    for e in range(first, last):
        if weights[e] > 0:
            slope = _slope(e, first, last, components, products, gram, weights)
            total += weights[e] * (slope - products[e])
    return total


@nb.njit(nogil=True, cache=True)
def _nnls_l0(problems, squares, bound, tolerance, max_sweeps, penalty, trial, weights, begin, end):
    indptr, components, products, gram = problems
    for i in range(begin, end):
        first, last = indptr[i], indptr[i + 1]
        _descend(first, last, components, products, gram, penalty, tolerance, max_sweeps, weights)
        residual = _residual(first, last, components, products, gram, squares[i], weights)
        while residual <= bound[i]:
            dropped, lowest, positive = -1, np.inf, 0
            for e in range(first, last):
                if weights[e] > 0:
                    positive += 1
                    penalty[e] = np.inf
                    for j in range(first, last):
                        trial[j] = weights[j]
                    _descend(first, last, components, products, gram, penalty, tolerance, max_sweeps, trial)
                    without = _residual(first, last, components, products, gram, squares[i], trial)
                    penalty[e] = 0.0
                    if without < lowest:
                        dropped, lowest = e, without
            if positive < 2 or lowest > bound[i]:
                break
            penalty[dropped] = np.inf
            _descend(first, last, components, products, gram, penalty, tolerance, max_sweeps, weights)
            residual = _residual(first, last, components, products, gram, squares[i], weights)
