"""Power and autocovariance of many real signals, and what level power has. Twin: backend/cpu/spectrum.py"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend import stencils
from gpucalcium.backend.cuda._launch import kernel
from gpucalcium.backend.periodogram import hann, one_sided, pieces_of

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


def welch(signals: cp.ndarray, segment: int, low: int, high: int) -> cp.ndarray:
    """Welch's one-sided power density of each row of `signals` (K, T), bins low..high-1: (K, high-low) float32.

    Bin k is the frequency k / segment. Segments overlap by half; each is freed of its mean and tapered (periodic
    Hann window). float32 or float64 signals, segment <= T.
    """
    K, length = signals.shape
    pieces, step = pieces_of(length, segment)
    taper = cp.asarray(hann(segment).astype("float32"))
    scale = cp.asarray(one_sided(segment, low, high, pieces).astype("float32"))
    density = cp.empty((K, high - low), "float32")
    rows = max(1, BLOCK_BYTES // (8 * length))
    for at in range(0, K, rows):
        part = signals[at : at + rows]
        x = (part.astype("float64") - part[:, :1].astype("float64")).astype(
            "float32"
        )  # a constant has no power
        cut = cp.stack([x[:, s * step : s * step + segment] for s in range(pieces)], axis=1)
        cut = (cut - cut.mean(axis=-1, keepdims=True)) * taper
        spectrum = cp.fft.rfft(cut, axis=-1).astype("complex64", copy=False)[:, :, low:high]
        density[at : at + rows] = (spectrum.real**2 + spectrum.imag**2).sum(axis=1) * scale
    return density


def autocovariance(signals: cp.ndarray, most: int) -> cp.ndarray:
    """Biased autocovariance (divided by T) of each row of `signals` (K, T) at lags 0..most: (K, most+1).

    float32 or float64 signals; their means are removed, and products are summed in float64.
    """
    K, length = signals.shape
    result = cp.empty((K, most + 1), "float64")
    rows = max(1, BLOCK_BYTES // (8 * length))
    for at in range(0, K, rows):
        x = signals[at : at + rows].astype("float64")
        x = x - x[:, :1]  # a constant becomes exact zeros
        x = x - x.mean(axis=1, keepdims=True)
        for lag in range(most + 1):
            result[at : at + rows, lag] = (x[:, lag:] * x[:, : length - lag]).sum(axis=1) / length
    return result


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
