"""Levels of every pixel over time: percentiles, means that leave NaN out, and frames without them.

Twin: backend/cpu/baseline.py. Frames come as (n, pixels), C order. Every result equals the twin's bit for bit.
"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend import stencils
from gpucalcium.backend.cuda._launch import kernel

THREADS = 256
GRID_ROWS = 65535  # of a grid
ONLY, RATIO, ROOT = range(3)
"""What `subtract` makes of y and its level b: y - b, (y - b) / b, (y - b) / sqrt(b)."""

_percentile = kernel("baseline.cu", "percentile")
_add_present = kernel("baseline.cu", "add_present")
_between = kernel("baseline.cu", "between")
_subtract = kernel("baseline.cu", "subtract")


def percentile(frames: cp.ndarray, quantile: float, skip_nan: bool, out: cp.ndarray) -> None:
    """Percentile of each pixel over the frames, linear between values, into `out` (pixels,).

    Parameters as the twin says.
    """
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f8"), copy=False)
    n, pixels = frames.shape
    _percentile(
        (frames.dtype,),
        blocks=-(-pixels // THREADS),
        threads=THREADS,
        args=(frames, np.int64(n), np.int64(pixels), np.float64(quantile), np.int32(skip_nan), out),
    )


def frame_medians(frames: cp.ndarray, out: cp.ndarray) -> None:
    """Median of each frame (n, pixels), NaN left out (NaN if there is nothing else), into `out` (n,) float64."""
    median = cp.nanmedian if frames.dtype.kind == "f" else cp.median
    out[...] = median(frames, axis=1)


def add_present(frames: cp.ndarray, sums: cp.ndarray, counts: cp.ndarray) -> None:
    """Add each pixel's values that are finite to `sums` and how many they are to `counts`, in order of the frames.

    As the twin says.
    """
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f8"), copy=False)
    n, pixels = frames.shape
    _add_present(
        (frames.dtype,),
        blocks=-(-pixels // THREADS),
        threads=THREADS,
        args=(frames, np.int64(n), np.int64(pixels), sums, counts),
    )


def take_means(sums: cp.ndarray, counts: cp.ndarray, means: cp.ndarray) -> None:
    """means = sums / counts, rounded to float32, NaN where nothing was counted; both start anew from zero."""
    means[...] = sums / counts
    sums.fill(0)
    counts.fill(0)


def between(levels: cp.ndarray, lower: cp.ndarray, shares: cp.ndarray, out: cp.ndarray) -> None:
    """out[t] = levels[lower[t]] + shares[t] (levels[lower[t] + 1] - levels[lower[t]]), in float32.

    As the twin says.
    """
    pixels = levels.shape[1]
    for at in range(0, len(out), GRID_ROWS):
        part = slice(at, at + GRID_ROWS)
        _between(
            (out.dtype,),
            blocks=(-(-pixels // THREADS), len(out[part])),
            threads=THREADS,
            args=(levels, np.int64(len(levels)), np.int64(pixels), lower[part], shares[part], out[part]),
        )


def subtract(
    frames: cp.ndarray,
    levels: cp.ndarray,
    lower: cp.ndarray,
    shares: cp.ndarray,
    method: int,
    out: cp.ndarray,
) -> None:
    """Frames without a level that changes in time, as in `between`, divided as `method` says.

    Parameters as the twin says.
    """
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f8"), copy=False)
    pixels = levels.shape[1]
    for at in range(0, len(out), GRID_ROWS):
        part = slice(at, at + GRID_ROWS)
        _subtract(
            (frames.dtype, out.dtype, method),
            blocks=(-(-pixels // THREADS), len(out[part])),
            threads=THREADS,
            args=(
                frames[part],
                levels,
                np.int64(len(levels)),
                np.int64(pixels),
                lower[part],
                shares[part],
                out[part],
            ),
        )
