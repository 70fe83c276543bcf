"""Sums and covariances of a window that moves along a movie. Twin: backend/cpu/sliding.py."""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend import stencils
from gpucalcium.backend.cuda._launch import kernel

THREADS = 128  # small blocks spread the few threads of a small field over more multiprocessors

_slide = kernel("sliding.cu", "slide")
_departures = kernel("sliding.cu", "departures")
_fade = kernel("sliding.cu", "fade")


def slide(
    frames: cp.ndarray,
    first: int,
    window: int,
    pilot: cp.ndarray,
    offsets: cp.ndarray,
    sums: cp.ndarray,
    last: cp.ndarray,
    counts: cp.ndarray,
    at: int,
    every: int,
    snapshots: cp.ndarray,
) -> None:
    """Move a window on, frame by frame: what enters is added to its sums, what leaves is subtracted.

    As the twin says, bit for bit; `offsets` is on the device too.
    """
    dtype = stencils.compiled_dtype(frames.dtype, wide="f8")
    pixels = sums.shape[1]
    _slide(
        (dtype, len(offsets)),
        blocks=-(-pixels // THREADS),
        threads=THREADS,
        args=(
            frames.astype(dtype, copy=False),
            *map(np.int64, (first, at + every * (len(snapshots) - 1) + 1, window, pixels)),
            pilot.astype(dtype, copy=False),
            offsets,
            sums,
            last,
            counts,
            np.int64(at),
            np.int64(every),
            snapshots,
        ),
    )


def fade(
    frames: cp.ndarray,
    rate: float,
    pilot: cp.ndarray,
    offsets: cp.ndarray,
    mean: cp.ndarray,
    moments: cp.ndarray,
) -> None:
    """Let frames into exponentially weighted means and covariances, each with the weight `rate`.

    As the twin says, bit for bit; `offsets` is on the device too. Beside its arguments it takes one double for
    each pixel of each frame.
    """
    dtype = stencils.compiled_dtype(frames.dtype, wide="f8")
    n, pixels = len(frames), mean.size
    departures = cp.empty((n, pixels), "float64")
    grid = {"blocks": -(-pixels // THREADS), "threads": THREADS}
    _departures(
        (dtype,),
        **grid,
        args=(
            frames.astype(dtype, copy=False),
            np.int64(n),
            np.int64(pixels),
            pilot.astype(dtype, copy=False),
            np.float64(rate),
            mean,
            departures,
        ),
    )
    _fade(
        (len(offsets),),
        **grid,
        args=(departures, np.int64(n), np.int64(pixels), np.float64(rate), offsets, moments),
    )
