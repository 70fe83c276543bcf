"""The peak of correlations given by their spectra: the best whole pixel of a window, then Newton's method."""

from __future__ import annotations

from functools import lru_cache

import cupy as cp
import numpy as np

from gpucalcium.backend import fourier
from gpucalcium.backend.arrays import Array
from gpucalcium.backend.cuda._launch import kernel

THREADS = 256

_climb = kernel("registration.cu", "climb")


def search_plan(shape: tuple[int, ...], band: tuple[int, ...], bound: tuple[int, ...]) -> fourier.SearchPlan:
    """The plan of the search with its arrays on the current device."""
    return _plan(shape, band, bound, cp.cuda.runtime.getDevice())


def find_peaks(products: Array, plan: fourier.SearchPlan) -> tuple[Array, Array]:
    """Where c(s) = Re sum over k of products[k] exp(2 pi i k.s / n) is largest, and how large it is there.

    Parameters
    ----------
    products : (n, b1, b2[, b3]) complex64
    plan : SearchPlan
        For these frequencies and the window that is searched.

    Returns
    -------
    shifts : (n, ndim) float32
        At most one pixel outside the window.
    peaks : (n,) float32
    """
    n, leading, width = len(products), len(plan.leading), products.shape[-1]
    shifts, peaks = cp.empty((n, leading + 1), cp.float32), cp.empty(n, cp.float32)
    guess = _best_lag(products, plan)
    _climb(
        (leading,),
        blocks=n,
        threads=THREADS,
        args=(
            products,
            np.int64(plan.rows.size),
            np.int32(width),
            plan.leading,
            plan.last,
            guess,
            shifts,
            peaks,
        ),
        shared=8 * width,
    )
    return shifts, peaks


@lru_cache(maxsize=16)
def _plan(
    shape: tuple[int, ...], band: tuple[int, ...], bound: tuple[int, ...], device: int
) -> fourier.SearchPlan:
    return fourier.SearchPlan.make(shape, band, bound).moved(cp.asarray)


def _best_lag(products: Array, plan: fourier.SearchPlan) -> Array:
    """Whole-pixel shift with the largest correlation: the inverse transform in the window, as matrix products."""
    part = products
    for axis, matrix in enumerate(plan.leading_matrices, start=1):
        before, after = part.shape[:axis], part.shape[axis + 1 :]
        part = cp.matmul(matrix, part.reshape(*before, matrix.shape[1], -1)).reshape(
            *before, len(matrix), *after
        )
    window = part.view(cp.float32).reshape(len(part), -1, len(plan.last_matrix)) @ plan.last_matrix
    return plan.lags[window.reshape(len(part), -1).argmax(axis=1)]
