"""Sweeps of hierarchical alternating least squares: traces (every frame for itself), footprints (every pixel).

Twin: backend/cpu/hals.py
"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._launch import kernel

THREADS = 64  # few threads with much to do each: small blocks spread them over more multiprocessors

_sweep_traces = kernel("hals.cu", "sweep_traces")
_sweep_footprints = kernel("hals.cu", "sweep_footprints")


def sweep_traces(
    traces: cp.ndarray,
    noisy: cp.ndarray,
    projections: cp.ndarray,
    indptr: cp.ndarray,
    neighbours: cp.ndarray,
    gram: cp.ndarray,
    order: cp.ndarray,
    clipped: cp.ndarray,
    sweeps: int,
) -> None:
    """Row m, in `order`: noisy_m = c_m + (u_m - v_m C) / v_mm; c_m = max(noisy_m, 0), or noisy_m if not clipped.

    As the twin says.
    """
    T = traces.shape[1]
    _sweep_traces(
        (),
        blocks=-(-T // THREADS),
        threads=THREADS,
        args=(
            traces,
            noisy,
            projections,
            np.int64(T),
            indptr,
            neighbours,
            gram,
            order,
            np.int64(len(order)),
            clipped,
            np.int32(sweeps),
        ),
    )


def sweep_footprints(
    values: cp.ndarray,
    indptr: cp.ndarray,
    components: cp.ndarray,
    products: cp.ndarray,
    gram: cp.ndarray,
    sweeps: int,
) -> None:
    """Per pixel, its components m in order: a_m = max(0, a_m + (q_m - sum_j v_mj a_j) / v_mm).

    As the twin says.
    """
    pixels = len(indptr) - 1
    _sweep_footprints(
        (),
        blocks=-(-pixels // THREADS),
        threads=THREADS,
        args=(
            values,
            indptr,
            np.int64(pixels),
            components,
            products,
            gram,
            np.int64(len(gram)),
            np.int32(sweeps),
        ),
    )
