"""Spikes of AR(2) calcium by non-negative least squares, one trace per thread. Twin: backend/cpu/onnls.py"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._launch import kernel

THREADS = 32  # one warp a block: a few hundred traces then spread over all multiprocessors
ROWS = 10  # of the scratch, as in the kernel

_nnls_ar2 = kernel("onnls.cu", "nnls_ar2")


def nnls_ar2(
    y: cp.ndarray,
    g: cp.ndarray,
    b: cp.ndarray,
    lam: cp.ndarray,
    allowed: cp.ndarray,
    c: cp.ndarray,
    s: cp.ndarray,
) -> None:
    """Calcium and spikes that minimise |y - b - c|^2 / 2 + lam sum s over s >= 0, s = 0 where not `allowed`.

    s_t = c_t - g_1 c_{t-1} - g_2 c_{t-2}. y, allowed, c, s (K, T); g (K, 2), b, lam (K,). Writes c and s.
    """
    K, T = y.shape
    results = cp.empty((2, T, K), "float32")
    _nnls_ar2(
        (y.dtype,),
        blocks=-(-K // THREADS),
        threads=THREADS,
        args=(
            cp.ascontiguousarray(y.T),
            cp.ascontiguousarray(allowed.T),
            np.int64(K),
            np.int32(T),
            g,
            b,
            lam,
            results[0],
            results[1],
            cp.empty((ROWS, T + 2, K), "float64"),
            cp.empty((T + 2, K), "int32"),
        ),
    )
    c[...], s[...] = results[0].T, results[1].T
