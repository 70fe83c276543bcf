"""Many small non-negative regressions that share one Gram matrix: one problem per pixel.

Twin: backend/cpu/nnls.py
"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._launch import kernel

THREADS = 64  # problems of a warp end at different times: small blocks free their place sooner

_lasso = kernel("nnls.cu", "lasso")
_nnls_l0 = kernel("nnls.cu", "nnls_l0")


def lasso(
    indptr: cp.ndarray,
    components: cp.ndarray,
    products: cp.ndarray,
    gram: cp.ndarray,
    penalty: cp.ndarray,
    tolerance: cp.ndarray,
    max_sweeps: int,
) -> cp.ndarray:
    """w >= 0 that minimises w'Gw / 2 - (q - penalty)'w, problem by problem.

    As the twin says.
    """
    weights = cp.zeros(len(components), "float64")
    n = len(indptr) - 1
    _lasso(
        (),
        blocks=-(-n // THREADS),
        threads=THREADS,
        args=(
            indptr,
            np.int64(n),
            components,
            products,
            gram,
            np.int64(len(gram)),
            penalty,
            tolerance,
            np.int32(max_sweeps),
            weights,
        ),
    )
    return weights


def nnls_l0(
    indptr: cp.ndarray,
    components: cp.ndarray,
    products: cp.ndarray,
    gram: cp.ndarray,
    squares: cp.ndarray,
    bound: cp.ndarray,
    tolerance: cp.ndarray,
    max_sweeps: int,
) -> cp.ndarray:
    """Non-negative least squares with as few regressors as a residual of `bound` allows, refitted on those.

    As the twin says.
    """
    weights, trial, penalty = (cp.zeros(len(components), "float64") for _ in range(3))
    n = len(indptr) - 1
    _nnls_l0(
        (),
        blocks=-(-n // THREADS),
        threads=THREADS,
        args=(
            indptr,
            np.int64(n),
            components,
            products,
            gram,
            np.int64(len(gram)),
            squares,
            bound,
            tolerance,
            np.int32(max_sweeps),
            penalty,
            trial,
            weights,
        ),
    )
    return weights
