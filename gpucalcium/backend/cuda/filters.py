"""Spatial filters of frames: Gaussian, box, and correlation with any small kernel. Twin: backend/cpu/filters.py."""

from __future__ import annotations

from collections.abc import Sequence

import cupy as cp
import numpy as np
from cupyx.scipy import ndimage
from numpy.typing import NDArray

from gpucalcium.backend import stencils
from gpucalcium.backend.cuda._launch import kernel

THREADS = 256
FRAMES = 8  # that a thread works on, as in the kernel

GRID_ROWS = 65535  # of a grid

_correlate = kernel("filters.cu", "correlate")
_bilateral = kernel("filters.cu", "bilateral")


def gaussian(frames: cp.ndarray, sigma: Sequence[float], radius: Sequence[int], border: str) -> cp.ndarray:
    """Frames filtered by a sampled, unit-sum Gaussian of side ``2 radius + 1``, axis after axis.

    Parameters and result as the twin says. Beside the frames it needs one float32 copy of them, two while
    an axis follows another.
    """
    return _filtered(frames, stencils.separable_gaussian(sigma, radius), border)


def box(frames: cp.ndarray, size: Sequence[int], border: str) -> cp.ndarray:
    """Mean over a box of `size` pixels per axis, the centre at ``size // 2``; else as `gaussian`."""
    return _filtered(frames, stencils.separable_box(size), border)


def correlate(frames: cp.ndarray, kernel: NDArray, border: str) -> cp.ndarray:
    """Frames correlated with an n-dimensional `kernel` (not flipped), centre at ``size // 2``; else as `gaussian`."""
    return _filtered(frames, [np.asarray(kernel, np.float64)], border)


def bilateral(frames: cp.ndarray, radius: int, sigma_value: float, sigma_space: float) -> cp.ndarray:
    """Mean of the disc around each pixel, weighted by Gaussians of the distance and of the change of value.

    Parameters and result as the twin says.
    """
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f4"), copy=False)
    at, weights = stencils.disc(radius, sigma_space)
    n, d1, d2 = frames.shape
    out = cp.empty(frames.shape, "float32")
    for first in range(0, n, GRID_ROWS):
        part = frames[first : first + GRID_ROWS]
        _bilateral(
            (frames.dtype,),
            blocks=(-(-d1 * d2 // THREADS), len(part)),
            threads=THREADS,
            args=(
                part,
                np.int32(d1),
                np.int32(d2),
                cp.asarray(at.astype(np.int32)),
                cp.asarray(weights),
                np.int32(len(weights)),
                np.float32(-0.5 / sigma_value**2),
                out[first : first + GRID_ROWS],
            ),
        )
    return out


def median(frames: cp.ndarray, size: Sequence[int]) -> cp.ndarray:
    """Median of the box of `size` pixels per axis (odd) around each pixel; beyond the border the edge repeats.

    As the twin.
    """
    return ndimage.median_filter(frames, (1, *size), mode="nearest")


def _filtered(frames: cp.ndarray, kernels: Sequence[NDArray[np.float64]], border: str) -> cp.ndarray:
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f4"), copy=False)
    for weights in kernels:
        frames = _one_pass(frames, weights, border)
    return frames


def _one_pass(frames: cp.ndarray, weights: NDArray[np.float64], border: str) -> cp.ndarray:
    dims = (1,) * (4 - frames.ndim) + frames.shape[1:]
    at, values = stencils.taps(weights.reshape((1,) * (3 - weights.ndim) + weights.shape))
    out = cp.empty(frames.shape, "float32")
    pixels = dims[0] * dims[1] * dims[2]
    _correlate(
        (frames.dtype, stencils.BORDERS.index(border)),
        blocks=(-(-pixels // THREADS), -(-len(frames) // FRAMES)),
        threads=THREADS,
        args=(
            frames,
            np.int64(len(frames)),
            *map(np.int32, dims),
            cp.asarray(at.astype(np.int32)),
            cp.asarray(values),
            np.int32(len(values)),
            *map(np.int32, np.abs(at).max(0)),
            out,
        ),
    )
    return out
