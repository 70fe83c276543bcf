"""Power and autocovariance of many real signals, and what level power has. Twin: backend/cuda/spectrum.py"""

from __future__ import annotations

import numba as nb
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gpucalcium.backend.cpu._threads import share
from gpucalcium.backend.device import threads
from gpucalcium.backend.periodogram import hann, one_sided, pieces_of

BLOCK_BYTES = 1 << 20  # signals transformed at a time: block, spectrum and power stay in the L2 cache
PIECES_BYTES = 1 << 18  # of Welch's segments: small enough that threads share some hundred traces evenly
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
    flat = frames.reshape(len(frames), -1)
    share(
        len(signals),
        lambda low, high: _collect(flat, first, origin, signals, start, low, high),
        grain=TILE_PIXELS,
    )


@nb.njit(nogil=True, cache=True)
def _collect(frames, first, origin, signals, start, begin, end):
    n = len(frames)
    for low in range(begin, end, TILE_PIXELS):
        for t0 in range(0, n, TILE_FRAMES):
            for p in range(low, min(low + TILE_PIXELS, end)):
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


def welch(signals: NDArray, segment: int, low: int, high: int) -> NDArray[np.float32]:
    """Welch's one-sided power density of each row of `signals` (K, T), bins low..high-1: (K, high-low) float32.

    Bin k is the frequency k / segment. Segments overlap by half; each is freed of its mean and tapered (periodic
    Hann window). float32 or float64 signals, segment <= T.
    """
    K, length = signals.shape
    pieces, step = pieces_of(length, segment)
    most = max(1, PIECES_BYTES // (4 * segment))  # pieces transformed at a time
    rows = max(1, most // pieces)
    taper = hann(segment)
    total = np.zeros((K, high - low))

    def some(first: int, last: int) -> None:
        for at in range(first, last, rows):
            part = slice(at, min(at + rows, last))
            for piece in range(0, pieces, most):
                count = min(most, pieces - piece)
                cut = np.empty((part.stop - at, count, segment), np.float32)
                _cut(signals[part], piece, step, taper, cut)
                _add_power(scipy.fft.rfft(cut, axis=2), low, total[part])

    share(K, some, grain=rows)  # by whole blocks: transforms are grouped alike for any number of threads
    return (total * one_sided(segment, low, high, pieces)).astype(np.float32)


@nb.njit(nogil=True, cache=True)
def _cut(signals, piece, step, taper, cut):
    rows, count, segment = cut.shape
    x, ones = np.empty(segment), np.ones(segment)
    for k in range(rows):
        origin = np.float64(signals[k, 0])  # so that a constant has no power at all
        for i in range(count):
            start = (piece + i) * step
            for j in range(segment):
                x[j] = np.float64(signals[k, start + j]) - origin
            mean = _product(x, ones) / segment
            for j in range(segment):
                cut[k, i, j] = (x[j] - mean) * taper[j]


@nb.njit(nogil=True, cache=True)
def _add_power(spectrum, low, total):
    for k in range(len(spectrum)):
        for i in range(spectrum.shape[1]):
            for j in range(total.shape[1]):
                x = spectrum[k, i, low + j]
                total[k, j] += np.float64(x.real * x.real + x.imag * x.imag)


def autocovariance(signals: NDArray, most: int) -> NDArray[np.float64]:
    """Biased autocovariance (divided by T) of each row of `signals` (K, T) at lags 0..most: (K, most+1).

    float32 or float64 signals; their means are removed, and products are summed in float64.
    """
    result = np.empty((len(signals), most + 1))
    share(len(signals), lambda first, last: _autocovariance(signals[first:last], result[first:last]))
    return result


@nb.njit(nogil=True, cache=True)
def _autocovariance(signals, result):
    length = signals.shape[1]
    x, ones = np.empty(length), np.ones(length)
    for k in range(len(signals)):
        origin = np.float64(signals[k, 0])  # a constant becomes exact zeros
        for t in range(length):
            x[t] = np.float64(signals[k, t]) - origin
        x -= _product(x, ones) / length
        for lag in range(result.shape[1]):
            result[k, lag] = _product(x[lag:], x[: length - lag]) / length


@nb.njit
def _product(a, b):
    """Sum of a_t b_t in eight partial sums, which do not wait for each other."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = len(a) // 8 * 8
    for t in range(0, whole, 8):
        s0 += a[t] * b[t]
        s1 += a[t + 1] * b[t + 1]
        s2 += a[t + 2] * b[t + 2]
        s3 += a[t + 3] * b[t + 3]
        s4 += a[t + 4] * b[t + 4]
        s5 += a[t + 5] * b[t + 5]
        s6 += a[t + 6] * b[t + 6]
        s7 += a[t + 7] * b[t + 7]
    for t in range(whole, len(a)):
        s0 += a[t] * b[t]
    return ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7))


def level(band: NDArray[np.float32], method: str) -> NDArray[np.float64]:
    """Square root of half the mean, median or geometric mean of each row of `band` (P, bins), in float64: (P,).

    A row of zeros has level 0 whatever the method.
    """
    result = np.empty(len(band))
    share(len(band), lambda first, last: _level(band, METHODS[method], result, first, last))
    return result


@nb.njit(nogil=True, cache=True)
def _level(band, method, result, first, last):
    bins = band.shape[1]
    for p in range(first, last):
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
