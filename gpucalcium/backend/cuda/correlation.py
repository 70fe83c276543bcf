"""Sums over time from which correlations of neighbouring pixels follow. Twin: backend/cpu/correlation.py."""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend import stencils
from gpucalcium.backend.cuda._launch import kernel

THREADS = 128  # small blocks spread the few threads of a small field over more multiprocessors

_add_products = kernel("correlation.cu", "add_products")


def add_products(frames: cp.ndarray, pilot: cp.ndarray, offsets: cp.ndarray, sums: cp.ndarray) -> None:
    """Add to `sums` what the frames hold of x, of x^2, and of x times the x that lies `offsets[k]` further on.

    As the twin says, bit for bit; `offsets` is on the device too.
    """
    dtype = stencils.compiled_dtype(frames.dtype, wide="f8")
    pixels = sums.shape[1]
    _add_products(
        (dtype, len(offsets)),
        blocks=-(-pixels // THREADS),
        threads=THREADS,
        args=(
            frames.astype(dtype, copy=False),
            np.int64(len(frames)),
            np.int64(pixels),
            pilot.astype(dtype, copy=False),
            offsets,
            sums,
        ),
    )
