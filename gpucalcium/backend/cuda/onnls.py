"""Spikes of AR(2) calcium by non-negative least squares, one trace per thread. Twin: backend/cpu/onnls.py"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._launch import kernel

THREADS = 32  # one warp a block: a few hundred traces then spread over all multiprocessors
ROWS = 10  # of the scratch, as in the kernel

_nnls_ar2 = kernel("onnls.cu", "nnls_ar2")
_gradient_ar2 = kernel("onnls.cu", "gradient_ar2")


def nnls_ar2(
    y: cp.ndarray,
    g: cp.ndarray,
    b: cp.ndarray,
    lam: cp.ndarray,
    allowed: cp.ndarray,
    tolerance: float,
    warm: bool,
    c: cp.ndarray,
    s: cp.ndarray,
) -> None:
    """Calcium and spikes that minimise |y - b - c|^2 / 2 + lam sum s over s >= 0, s = 0 where not `allowed`.

    s_t = c_t - g_1 c_{t-1} - g_2 c_{t-2}; where t = 0 is allowed, c may start at any c_0 >= 0 that decays by the slower
    root. y, allowed, c, s (K, T); g (K, 2) with real roots, b, lam (K,). A gradient below `tolerance` times the largest
    correlation of data and impulse response counts as zero. If `warm`, the search starts from the spikes in s, of which
    all must be allowed, and the start in c. Writes c and s, s = 0 at t = 0.
    """
    K, T = y.shape
    results = cp.stack([c.T, s.T]) if warm else cp.empty((2, T, K), "float32")
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
            np.float64(tolerance),
            np.bool_(warm),
            results[0],
            results[1],
            cp.empty((ROWS, T + 2, K), "float64"),
            cp.empty((T + 2, K), "int32"),
        ),
    )
    c[...], s[...] = results[0].T, results[1].T


def gradient_ar2(
    y: cp.ndarray, g: cp.ndarray, b: cp.ndarray, lam: cp.ndarray, c: cp.ndarray, gradient: cp.ndarray
) -> None:
    """By how much a spike at t would lower the cost of `nnls_ar2` per unit: writes `gradient` (K, T).

    y, c (K, T); g (K, 2), b, lam (K,). At t = 0 the spike is one that decays by the slower root.
    """
    K, T = y.shape
    result = cp.empty((T, K), "float64")
    _gradient_ar2(
        (y.dtype,),
        blocks=-(-K // THREADS),
        threads=THREADS,
        args=(
            cp.ascontiguousarray(y.T),
            cp.ascontiguousarray(c.T),
            np.int64(K),
            np.int32(T),
            g,
            b,
            lam,
            result,
        ),
    )
    gradient[...] = result.T


def near_large(c: cp.ndarray, s: cp.ndarray, least: float, reach: int) -> cp.ndarray:
    """1 within `reach` samples of spikes above `least` times the largest of the trace, else 0: (K, T).

    The first sample is marked if c, not s, is above that there.
    """
    bound = s.max(axis=1, keepdims=True) * np.float32(least)
    large = (s > bound).astype("uint8")
    marks = large.copy()
    marks[:, :1] |= (c[:, :1] > bound).astype("uint8")
    for lag in range(1, min(reach, c.shape[1] - 1) + 1):
        marks[:, lag:] |= large[:, :-lag]
        marks[:, :-lag] |= large[:, lag:]
    return marks


def residual_sums(y: cp.ndarray, c: cp.ndarray, b: cp.ndarray) -> tuple[cp.ndarray, cp.ndarray]:
    """Sum over t of y - c - b, and of its square: (K,), (K,)."""
    residual = y - c - b[:, None]
    return residual.sum(axis=1), (residual * residual).sum(axis=1)
