"""How frames lie in files: in which dtype, and in which order of pixels. Twin: backend/cpu/layout.py."""

from __future__ import annotations

import math

import cupy as cp
import numpy as np
from numpy.typing import DTypeLike

from gpucalcium.backend.arrays import Array
from gpucalcium.backend.cuda._launch import kernel
from gpucalcium.backend.stencils import compiled_dtype

THREADS = 256
TILE, LINES = 32, 8  # as in the kernel

_store = kernel("layout.cu", "store")
_turn = kernel("layout.cu", "turn")


def stored_as(frames: Array, dtype: DTypeLike, fill: float, out: Array | None = None) -> Array:
    """Frames in the dtype of a file: rounded half to even and clipped to its range; `fill` where an integer is NaN.

    Parameters and result as the twin says.
    """
    frames, out, template, limits = _prepared(frames, dtype, fill, out)
    _store(
        template,
        blocks=-(-frames.size // THREADS),
        threads=THREADS,
        args=(frames, np.int64(frames.size), *limits, out.view(template[1])),
    )
    return out


def frames_to_fortran(frames: Array, dtype: DTypeLike, fill: float, out: Array | None = None) -> Array:
    """Frames as `stored_as` gives them, but each in Fortran order: column by column, as memory maps have them.

    Parameters and result as there.
    """
    frames, out, template, limits = _prepared(frames, dtype, fill, out)
    d0, d2 = frames.shape[1], frames.shape[-1]
    d1 = math.prod(frames.shape[2:-1])
    _turn(
        template,
        blocks=len(frames) * d1 * -(-d0 // TILE) * -(-d2 // TILE),
        threads=(TILE, LINES),
        args=(frames, *map(np.int64, (d0, d1, d2)), *limits, out.view(template[1])),
    )
    return out


def _prepared(
    frames: Array, dtype: DTypeLike, fill: float, out: Array | None
) -> tuple[Array, Array, tuple[np.dtype, np.dtype, bool], tuple[np.generic, ...]]:
    """Frames in a compiled dtype, the result's memory, template arguments, and least, most and fill."""
    dtype, half = np.dtype(dtype), np.dtype(dtype) == np.float16
    frames = cp.ascontiguousarray(frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False))
    out = cp.empty((len(frames), math.prod(frames.shape[1:])), dtype) if out is None else out
    kind = np.dtype(np.uint16) if half else dtype
    about = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    limits = np.float32(about.min), np.float32(about.max), kind.type(0 if dtype.kind == "f" else int(fill))
    return frames, out, (frames.dtype, kind, half), limits
