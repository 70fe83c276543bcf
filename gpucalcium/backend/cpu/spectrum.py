"""Power of many real signals in a frequency band, and what level it has. Twin: backend/cuda/spectrum.py"""

from __future__ import annotations

import numba as nb
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gpucalcium.backend.device import threads

BLOCK_BYTES = 1 << 20  # signals transformed at a time: block, spectrum and power stay in the L2 cache
TILE_FRAMES, TILE_PIXELS = (
    16,
    256,
)  # rows that are read side by side, each a stream; one cache line is written at a time

MEAN, MEDIAN, LOGMEXP = 0, 1, 2
METHODS = {"mean": MEAN, "median": MEDIAN, "logmexp": LOGMEXP}
LOG_FLOOR = 1e-10  # added to the power before the logarithm, so that an empty bin does not rule the mean


def collect(frames: NDArray, first: int, origin: NDArray, signals: NDArray[np.float32], start: int) -> None:
    """Write pixels `first`... of `frames`, less `origin`, into ``signals[:, start : start + len(frames)]``.

    frames (n, ...) any real dtype, pixels in C order; origin (P,) float64; signals (P, T) float32.
    """
    _collect(frames.reshape(len(frames), -1), first, origin, signals, start)


@nb.njit(parallel=True, nogil=True, cache=True)
def _collect(frames, first, origin, signals, start):
    pixels, n = len(signals), len(frames)
    for block in nb.prange((pixels + TILE_PIXELS - 1) // TILE_PIXELS):
        low, high = block * TILE_PIXELS, min((block + 1) * TILE_PIXELS, pixels)
        for t0 in range(0, n, TILE_FRAMES):
            for p in range(low, high):
                for t in range(t0, min(t0 + TILE_FRAMES, n)):
                    signals[p, start + t] = np.float64(frames[t, first + p]) - origin[p]


def power(signals: NDArray[np.float32], low: int, high: int) -> NDArray[np.float32]:
    """Periodogram 2 |X_k|^2 / T of each row of `signals` (P, T) for bins k = low..high-1: (P, high-low) float32."""
    count, length = signals.shape
    band = np.empty((count, high - low), np.float32)
    rows = max(1, BLOCK_BYTES * threads() // (4 * length))
    for at in range(0, count, rows):
        spectrum = scipy.fft.rfft(signals[at : at + rows], axis=1, workers=threads())
        _power(spectrum, low, 2.0 / length, band[at : at + rows])
    return band


@nb.njit(nogil=True, cache=True)
def _power(spectrum, low, scale, band):
    for p in range(band.shape[0]):
        for k in range(band.shape[1]):
            x = spectrum[p, low + k]
            band[p, k] = np.float32(scale) * (x.real * x.real + x.imag * x.imag)


def level(band: NDArray[np.float32], method: str) -> NDArray[np.float64]:
    """Square root of half the mean, median or geometric mean of each row of `band` (P, bins), in float64: (P,).

    A row of zeros has level 0 whatever the method.
    """
    result = np.empty(len(band))
    _level(band, METHODS[method], result)
    return result


@nb.njit(parallel=True, nogil=True, cache=True)
def _level(band, method, result):
    bins = band.shape[1]
    for p in nb.prange(len(band)):
        total = 0.0
        largest = np.float32(0)
        for k in range(bins):
            x = band[p, k]
            total += np.log(np.float64(x) + LOG_FLOOR) if method == LOGMEXP else np.float64(x)
            if not x <= largest:  # so that NaN counts as non-zero
                largest = x
        if largest == 0:
            result[p] = 0.0
        elif np.isnan(total):
            result[p] = np.nan
        elif method == MEDIAN:
            ranked = np.sort(band[p])
            middle = 0.5 * (np.float64(ranked[(bins - 1) // 2]) + np.float64(ranked[bins // 2]))
            result[p] = np.sqrt(0.5 * middle)
        elif method == LOGMEXP:
            result[p] = np.sqrt(0.5 * np.exp(total / bins))
        else:
            result[p] = np.sqrt(0.5 * total / bins)
