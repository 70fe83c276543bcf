"""Masked squares of a movie around cells, normalised: what CINAC networks look at. Twin: backend/cpu/cutouts.py."""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend.arrays import Array
from gpucalcium.backend.cuda._launch import kernel
from gpucalcium.backend.stencils import compiled_dtype

THREADS = 256

_gather = kernel("cutouts.cu", "gather")


def gather_patches(frames: Array, corners: Array, masks: Array, mean: float, std: float) -> Array:
    """Squares cut out of every frame, z-scored, and zero outside their masks.

    Parameters and result as the twin says.
    """
    frames = cp.ascontiguousarray(frames.astype(compiled_dtype(frames.dtype, wide="f8"), copy=False))
    out = cp.empty((len(frames), *masks.shape), cp.float32)
    _gather(
        (frames.dtype,),
        blocks=-(-out.size // THREADS),
        threads=THREADS,
        args=(
            frames,
            np.int64(len(frames)),
            *map(np.int32, frames.shape[1:]),
            corners,
            masks,
            np.int64(len(masks)),
            np.int32(masks.shape[-1]),
            np.float64(mean),
            np.float64(std),
            out,
        ),
    )
    return out
