"""Sums over time from which correlations of neighbouring pixels follow. Twin: backend/cpu/correlation.py."""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend import stencils
from gpucalcium.backend.cuda._launch import kernel

THREADS = 128  # small blocks spread the few threads of a small field over more multiprocessors

_add_products = kernel("correlation.cu", "add_products")
_scales = kernel("correlation.cu", "scales")
_images = kernel("correlation.cu", "images")


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


def images(
    sums: cp.ndarray, weight: float, dims: tuple[int, ...], steps: cp.ndarray, order: int, out: cp.ndarray
) -> None:
    """Mean correlation of each pixel with its neighbours, from sums.

    As the twin says; `steps` is on the device too. Beside its arguments it takes two doubles for each pixel of
    each image.
    """
    n, rows, pixels = sums.shape
    scales = cp.empty((n, 2, pixels), "float64")
    size = (1,) * (3 - len(dims)) + tuple(dims)
    share_of_one = np.float64(1.0 / weight)
    blocks = (-(-pixels // THREADS), n)
    counts = np.int64(rows), np.int64(pixels)
    _scales((), blocks=blocks, threads=THREADS, args=(sums, *counts, share_of_one, scales))
    _images(
        (),
        blocks=blocks,
        threads=THREADS,
        args=(
            sums,
            scales,
            *counts,
            share_of_one,
            *map(np.int32, size),
            steps,
            np.int32(len(dims)),
            np.int32(order),
            out,
        ),
    )
