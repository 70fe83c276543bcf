"""Percentiles of traces: overall, running, and where their density peaks. Twin: backend/cpu/quantile.py"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._launch import kernel

THREADS = 128
MOST_ROWS = 65535  # blocks along the second axis of a grid
BINS = 4096  # as in the kernel

_running_percentile = kernel("quantile.cu", "running_percentile")
_mode_percentile = kernel("quantile.cu", "mode_percentile")


def running_percentile(traces: cp.ndarray, q: cp.ndarray, window: int) -> cp.ndarray:
    """Element int(window q / 100) (at most the last) of the sorted window around each sample; as `traces` (K, T).

    The window of sample t is t - window // 2 ... t + window - 1 - window // 2; beyond its ends a trace is
    mirrored, the end sample repeated. 1 <= window <= T, q (K,) in 0..100, no NaN. traces float32.
    """
    K, T = traces.shape
    before, after = window // 2, window - 1 - window // 2
    padded = cp.concatenate([traces[:, :before][:, ::-1], traces, traces[:, T - after :][:, ::-1]], axis=1)
    result = cp.empty((K, T), "float32")
    for at in range(0, K, MOST_ROWS):
        rows = slice(at, min(at + MOST_ROWS, K))
        _running_percentile(
            (),
            blocks=(-(-T // THREADS), rows.stop - at),
            threads=THREADS,
            args=(padded[rows], q[rows], np.int64(T), np.int64(window), result[rows]),
        )
    return result


def percentile(traces: cp.ndarray, q: cp.ndarray) -> cp.ndarray:
    """Percentile q (K,) of each trace (K, T), linear between samples: (K,) of the dtype of `traces`."""
    ranked = cp.sort(traces, axis=1)
    T = traces.shape[1]
    place = q / 100.0 * (T - 1)
    low = cp.minimum(place.astype("int64"), T - 1)
    high = cp.minimum(low + 1, T - 1)
    rows = cp.arange(len(traces))
    floor, ceiling = (ranked[rows, at].astype("float64") for at in (low, high))
    return (floor + (place - low) * (ceiling - floor)).astype(traces.dtype)


def mode_percentile(samples: cp.ndarray) -> tuple[cp.ndarray, cp.ndarray]:
    """Percentile at which the density of each row of `samples` (K, n) peaks, and the value there: (K,), (K,).

    The density is the histogram smoothed by diffusion for the time at which the mean squared error is least
    (Z. Botev, J. Grotowski, D. Kroese 2010, Ann. Stat. 38:2916, algorithm 1). A constant row: percentile 50.
    """
    K, n = samples.shape
    q, value = cp.empty(K, "float64"), cp.empty(K, "float64")
    _mode_percentile(
        (),
        blocks=K,
        threads=THREADS,
        args=(
            cp.ascontiguousarray(cp.sort(samples.astype("float64"), axis=1)),
            np.int64(n),
            cp.empty((K, 2, BINS), "float64"),
            q,
            value,
        ),
    )
    return q, value
