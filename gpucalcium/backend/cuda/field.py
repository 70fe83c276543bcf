"""Displacement fields: frames warped by a field on a small grid. Twin: backend/cpu/field.py."""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend import fourier
from gpucalcium.backend.arrays import Array
from gpucalcium.backend.cuda._launch import kernel
from gpucalcium.backend.stencils import compiled_dtype

THREADS = 256
TILE = (32, 8)  # threads of a block that displaces frames: a warp takes a run of a row

_smallest = kernel("field.cu", "smallest")
_warp = kernel("field.cu", "warp")


def warp_field(
    frames: Array,
    coefficients: Array,
    first: tuple[Array, ...],
    weights: tuple[Array, ...],
    offset: float,
    border: str,
) -> Array:
    """Frames displaced by a field, each pixel by its own amount: bicubic (in volumes tricubic), not clipped.

    Parameters and result as the twin says.
    """
    frames = cp.ascontiguousarray(frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False))
    n, lead, axes = len(frames), (1,) * (4 - frames.ndim), frames.ndim - 1
    dims: tuple[int, ...] = (*lead, *frames.shape[1:])
    d0, d1, d2 = dims
    lowest, out = cp.empty(n, cp.float32), cp.empty(frames.shape, cp.float32)
    if border == "min":
        pixels = np.int64(d0 * d1 * d2)
        _smallest((frames.dtype,), blocks=n, threads=THREADS, args=(frames, pixels, lowest))
    stretch = []
    for nodes, starts, taps in zip(
        (*lead, *coefficients.shape[1:-1]),
        (*(cp.zeros(1, cp.int32) for _ in lead), *first),
        (*(cp.ones((1, 1), cp.float32) for _ in lead), *weights),
        strict=True,
    ):
        stretch += [starts, taps, np.int32(len(taps)), np.int32(nodes)]
    _warp(
        (frames.dtype, axes),
        blocks=-(-d2 // TILE[0]) * -(-d1 // TILE[1]) * d0 * n,
        threads=TILE,
        args=(
            frames,
            *map(np.int32, (d0, d1, d2)),
            cp.ascontiguousarray(coefficients),
            *stretch,
            lowest,
            np.float32(offset),
            np.int32(fourier.BORDERS.index(border)),
            out,
        ),
    )
    return out
