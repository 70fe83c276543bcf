"""Power of many real signals in a frequency band, and what level it has. Twin: backend/cpu/spectrum.py"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend import stencils
from gpucalcium.backend.cuda._launch import kernel

THREADS = 128
TILE = 32  # as in the kernel
BLOCK_BYTES = (
    64 << 20
)  # signals transformed at a time: long enough to fill a device, short of memory for none
MOST_ROWS = 65535  # blocks along the second axis of a grid

METHODS = ("mean", "median", "logmexp")
LOG_FLOOR = 1e-10  # added to the power before the logarithm, so that an empty bin does not rule the mean

_collect = kernel("spectrum.cu", "collect")
_power = kernel("spectrum.cu", "power")
_level = kernel("spectrum.cu", "level")


def collect(frames: cp.ndarray, first: int, origin: cp.ndarray, signals: cp.ndarray, start: int) -> None:
    """Write pixels `first`... of `frames`, less `origin`, into ``signals[:, start : start + len(frames)]``.

    As the twin says, bit for bit.
    """
    dtype = stencils.compiled_dtype(frames.dtype, wide="f8")
    count, length = signals.shape
    _collect(
        (dtype,),
        blocks=(-(-count // TILE), -(-len(frames) // TILE)),
        threads=(TILE, 8),
        args=(
            frames.astype(dtype, copy=False),
            np.int64(len(frames)),
            np.int64(frames.size // len(frames)),
            np.int64(first),
            np.int64(count),
            origin,
            signals,
            np.int64(length),
            np.int64(start),
        ),
    )


def power(signals: cp.ndarray, low: int, high: int) -> cp.ndarray:
    """Periodogram 2 |X_k|^2 / T of each row of `signals` (P, T) for bins k = low..high-1: (P, high-low) float32."""
    count, length = signals.shape
    bins, points = high - low, length // 2 + 1
    band = cp.empty((count, bins), "float32")
    rows = max(1, min(BLOCK_BYTES // (4 * length), MOST_ROWS))
    for at in range(0, count, rows):
        spectrum = cp.fft.rfft(signals[at : at + rows], axis=1).astype("complex64", copy=False)
        _power(
            (),
            blocks=(-(-bins // THREADS), len(spectrum)),
            threads=THREADS,
            args=(
                spectrum,
                np.int64(points),
                np.int64(low),
                np.int64(bins),
                np.float32(2 / length),
                band[at : at + rows],
            ),
        )
    return band


def level(band: cp.ndarray, method: str) -> cp.ndarray:
    """Square root of half the mean, median or geometric mean of each row of `band` (P, bins), in float64: (P,).

    A row of zeros has level 0 whatever the method.
    """
    result = cp.empty(len(band), "float64")
    _level(
        (METHODS.index(method),),
        blocks=len(band),
        threads=THREADS,
        args=(band, np.int64(band.shape[1]), np.float64(LOG_FLOOR), result),
    )
    return result
