"""The peak of correlations given by their spectra: the best whole pixel of a window, then Newton's method."""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import fourier
from gpucalcium.backend.cpu._newton import climb


def find_peaks(
    products: NDArray[np.complex64],
    plan: fourier.SearchPlan,
    shifts: NDArray[np.float32],
    peaks: NDArray[np.float32],
) -> None:
    """Where c(s) = Re sum over k of products[k] exp(2 pi i k.s / n) is largest, and how large it is there.

    Parameters
    ----------
    products : (n, b1, b2[, b3]) complex64
    plan : SearchPlan
        For these frequencies and the window that is searched.
    shifts : (n, ndim) float32, written
        At most one pixel outside the window.
    peaks : (n,) float32, written
    """
    guess = _best_lag(products, plan)
    climb(
        products.view(np.float32).reshape(len(products), plan.monomials.shape[1], -1),
        plan.monomials,
        plan.cycles,
        plan.units,
        plan.last,
        guess,
        shifts,
        peaks,
    )


def _best_lag(products: NDArray[np.complex64], plan: fourier.SearchPlan) -> NDArray[np.float64]:
    """Whole-pixel shift with the largest correlation: an inverse transform at the window's points only.

    In numba, not BLAS, whose own threads would fight with those that call this.
    """
    n, part = len(products), products.view(np.float32)
    for axis, matrix in enumerate(plan.leading_matrices, start=1):
        before, after = part.shape[1:axis], part.shape[axis + 1 :]
        out = np.empty((n, *before, len(matrix), *after), np.float32)
        rows = n * math.prod(before)
        _contract(part.reshape(rows, matrix.shape[1], -1), matrix, out.reshape(rows, len(matrix), -1))
        part = out
    best = np.empty(n, np.int64)
    _argmax_last(part.reshape(n, -1, len(plan.last_matrix)), plan.last_matrix, best)
    return plan.lags[best]


@nb.njit(nogil=True, cache=True)
def _contract(x, matrix, out):
    """out[i, s] = sum over b of matrix[s, b] x[i, b], complex numbers seen as pairs of floats.

    Rows m + s and m - s of `matrix` are conjugate, so one sum of cosines and one of sines serve both.
    """
    m, floats = len(matrix) // 2, x.shape[2]
    cosines, sines = np.empty(floats, np.float32), np.empty(floats, np.float32)
    for i in range(x.shape[0]):
        for s in range(m + 1):
            cosines[:] = 0
            sines[:] = 0
            for b in range(x.shape[1]):
                c, d = matrix[m + s, b].real, matrix[m + s, b].imag
                for j in range(floats):
                    cosines[j] += c * x[i, b, j]
                    sines[j] += d * x[i, b, j]
            for k in range(0, floats, 2):
                out[i, m + s, k] = cosines[k] - sines[k + 1]
                out[i, m + s, k + 1] = cosines[k + 1] + sines[k]
                out[i, m - s, k] = cosines[k] + sines[k + 1]
                out[i, m - s, k + 1] = cosines[k + 1] - sines[k]


@nb.njit(nogil=True, cache=True)
def _argmax_last(x, matrix, best):
    """Index of the largest entry of x[i] @ matrix, in C order, the first of equals."""
    floats, width = matrix.shape
    line = np.empty(width, np.float32)
    for i in range(x.shape[0]):
        highest = -np.inf
        best[i] = x.shape[1] * width // 2
        for r in range(x.shape[1]):
            line[:] = 0
            for j in range(floats):
                v = x[i, r, j]
                for s in range(width):
                    line[s] += v * matrix[j, s]
            for s in range(width):
                if line[s] > highest:
                    highest, best[i] = line[s], r * width + s
