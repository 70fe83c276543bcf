"""Sums over a movie that an extraction needs: footprints x frames and frames x traces, on sparse supports.

Twin: backend/cpu/products.py
"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._launch import kernel

THREADS = 256
WARPS = THREADS // 32

_project = kernel("products.cu", "project")
_add_samples = kernel("products.cu", "add_samples")
_add_squares = kernel("products.cu", "add_squares")


def project(
    frames: cp.ndarray, indptr: cp.ndarray, rows: cp.ndarray, values: cp.ndarray, out: cp.ndarray
) -> None:
    """out[t, k] = sum over the entries e of column k of values[e] * frames[t, rows[e]].

    As the twin says.
    """
    n, d = frames.shape
    _project(
        (frames.dtype,),
        blocks=(-(-n // WARPS), out.shape[1]),
        threads=THREADS,
        args=(frames, np.int64(n), np.int64(d), indptr, rows, values, out),
    )


def add_samples(
    frames: cp.ndarray, traces: cp.ndarray, rows: cp.ndarray, columns: cp.ndarray, sums: cp.ndarray
) -> None:
    """sums[e] += sum over t, in order, of frames[t, rows[e]] * traces[t, columns[e]].

    As the twin says.
    """
    n, d = frames.shape
    _add_samples(
        (frames.dtype,),
        blocks=-(-len(rows) // THREADS),
        threads=THREADS,
        args=(
            frames,
            np.int64(n),
            np.int64(d),
            traces,
            np.int64(traces.shape[1]),
            rows,
            columns,
            np.int64(len(rows)),
            sums,
        ),
    )


def add_squares(frames: cp.ndarray, sums: cp.ndarray) -> None:
    """sums[p] += sum over t, in order, of frames[t, p] squared; `frames` (n, d), `sums` (d,)."""
    n, d = frames.shape
    _add_squares(
        (frames.dtype,),
        blocks=-(-d // THREADS),
        threads=THREADS,
        args=(frames, np.int64(n), np.int64(d), sums),
    )
