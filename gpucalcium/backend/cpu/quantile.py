"""Percentiles of traces: overall, running, and where their density peaks. Twin: backend/cuda/quantile.py"""

from __future__ import annotations

import numba as nb
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gpucalcium.backend.cpu._threads import share
from gpucalcium.backend.device import threads

BINS = 4096  # of the histogram that the density is smoothed from
MARGIN = 0.1  # of the range of the data, added on both sides
STAGES = 7  # Botev et al. 2010: further stages change nothing
WIDEST = 0.1  # squared bandwidth, in units of the range
UNKNOWN = 50.0  # percentile of a trace whose density cannot be told


def running_percentile(traces: NDArray, q: NDArray[np.float64], window: int) -> NDArray:
    """Element int(window q / 100) (at most the last) of the sorted window around each sample; as `traces` (K, T).

    The window of sample t is t - window // 2 ... t + window - 1 - window // 2; beyond its ends a trace is
    mirrored, the end sample repeated. 1 <= window <= T, q (K,) in 0..100, no NaN. traces float32.
    """
    result = np.empty_like(traces)
    padded = np.pad(traces, ((0, 0), (window // 2, window - 1 - window // 2)), mode="symmetric")
    share(len(result), lambda first, last: _running(padded, q, window, result, first, last))
    return result


@nb.njit(nogil=True, cache=True)
def _running(padded, q, window, result, first, last):
    for k in range(first, last):
        x, rank = padded[k], min(int(window * q[k] / 100.0), window - 1)
        ranked = np.sort(x[:window])
        result[k, 0] = ranked[rank]
        for t in range(1, result.shape[1]):
            _replace(ranked, x[t - 1], x[t - 1 + window])
            result[k, t] = ranked[rank]


@nb.njit
def _replace(ranked, old, new):
    """Put `new` in the place of `old` in a sorted array: what lies between them moves up by one."""
    i = np.searchsorted(ranked, old)
    if new > old:
        last = len(ranked) - 1
        while i < last and ranked[i + 1] < new:
            ranked[i] = ranked[i + 1]
            i += 1
    else:
        while i > 0 and ranked[i - 1] > new:
            ranked[i] = ranked[i - 1]
            i -= 1
    ranked[i] = new


def percentile(traces: NDArray, q: NDArray[np.float64]) -> NDArray:
    """Percentile q (K,) of each trace (K, T), linear between samples: (K,) of the dtype of `traces`."""
    result = np.empty(len(traces), traces.dtype)
    share(len(traces), lambda first, last: _percentile(traces, q, result, first, last))
    return result


@nb.njit(nogil=True, cache=True)
def _percentile(traces, q, result, first, last):
    for k in range(first, last):
        ranked = np.sort(traces[k])
        place = q[k] / 100.0 * (len(ranked) - 1)
        low = min(int(place), len(ranked) - 1)
        high = min(low + 1, len(ranked) - 1)
        result[k] = ranked[low] + (place - low) * (np.float64(ranked[high]) - np.float64(ranked[low]))


def mode_percentile(samples: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile at which the density of each row of `samples` (K, n) peaks, and the value there: (K,), (K,).

    The density is the histogram smoothed by diffusion for the time at which the mean squared error is least
    (Z. Botev, J. Grotowski, D. Kroese 2010, Ann. Stat. 38:2916, algorithm 1). A constant row: percentile 50.
    """
    histograms = np.zeros((len(samples), BINS))
    q, value, distinct = np.empty(len(samples)), np.empty(len(samples)), np.empty(len(samples), np.int64)
    _histogram(samples, histograms, distinct)
    waves = scipy.fft.dct(histograms, type=2, axis=1, workers=threads())
    times = np.empty(len(samples))
    share(len(waves), lambda first, last: _diffusion_times(waves, distinct, times, first, last))
    k = np.arange(BINS)
    waves *= np.exp(-((k * np.pi) ** 2) * times[:, None] / 2)
    density = scipy.fft.idct(waves, type=2, axis=1, workers=threads())
    _mode(samples, density, times, q, value)
    return q, value


@nb.njit(nogil=True, cache=True)
def _histogram(samples, histograms, distinct):
    for k in range(len(samples)):
        x = samples[k]
        low, spread = np.float64(x.min()), np.float64(x.max()) - np.float64(x.min())
        distinct[k] = len(np.unique(x))
        if not 0 < spread < np.inf:
            distinct[k] = 0
            continue
        width = (1 + 2 * MARGIN) * spread / (BINS - 1)
        for value in x:
            histograms[k, int((value - low + MARGIN * spread) / width)] += 1.0 / len(x)


@nb.njit(nogil=True, cache=True)
def _diffusion_times(waves, distinct, times, first, last):
    for k in range(first, last):
        times[k] = _diffusion_time((waves[k] / 2) ** 2, distinct[k]) if distinct[k] > 1 else np.nan


@nb.njit
def _diffusion_time(squares, n):
    """Smallest root of t = xi gamma^[7](t) in 0..WIDEST, by bisection after a scan; NaN without one."""
    low, step = 0.0, 1e-5
    while low < WIDEST:
        high = min(low + step, WIDEST)
        if _excess(high, squares, n) > 0:
            for _ in range(60):
                middle = 0.5 * (low + high)
                if _excess(middle, squares, n) > 0:
                    high = middle
                else:
                    low = middle
            return 0.5 * (low + high)
        low, step = high, 2 * step
    return np.nan


@nb.njit
def _excess(t, squares, n):
    """t - xi gamma^[7](t) of Botev et al."""
    f = _roughness(STAGES, t, squares)
    for s in range(STAGES - 1, 1, -1):
        odd = 1.0
        for factor in range(1, 2 * s, 2):
            odd *= factor
        time = (2 * (1 + 0.5 ** (s + 0.5)) / 3 * odd / np.sqrt(2 * np.pi) / (n * f)) ** (2 / (3 + 2 * s))
        f = _roughness(s, time, squares)
    return t - (2 * n * np.sqrt(np.pi) * f) ** (-0.4)


@nb.njit
def _roughness(s, t, squares):
    """2 pi^(2 s) sum_k k^(2 s) a_k^2 exp(-k^2 pi^2 t): squared norm of the s-th derivative of the density."""
    total = 0.0
    for k in range(1, len(squares)):
        exponent = (k * np.pi) ** 2 * t
        if exponent > 700:
            break
        total += (k * np.pi) ** (2 * s) * squares[k] * np.exp(-exponent)
    return 2 * total


@nb.njit(nogil=True, cache=True)
def _mode(samples, density, times, q, value):
    for k in range(len(samples)):
        low = np.float64(samples[k].min())
        spread = np.float64(samples[k].max()) - low
        at = np.argmax(density[k])
        value[k] = low - MARGIN * spread + at * (1 + 2 * MARGIN) * spread / (BINS - 1)
        q[k] = 100 * density[k, : at + 1].sum()
        if not (times[k] > 0 and 0 <= q[k] < 100):
            q[k] = UNKNOWN
