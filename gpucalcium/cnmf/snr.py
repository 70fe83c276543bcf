"""Signal-to-noise ratio of traces: how improbable the largest event is if it were noise.

Giovannucci et al. (2019), eLife 8:e38173, "Component quality": traces are compared with noise whose level is taken
from the samples below the trace's mode.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import log_ndtr, ndtri_exp

from gpucalcium.errors import ParameterError

SIGMA_FACTOR = 3
"""Traces are measured in units of this many s.d. of their noise."""
MEDIAN_TO_SIGMA = 2 / 1.349
"""Median of the one-sided deviations to s.d., as in the reference: 1.349 s.d. is the interquartile range."""
BASELINE_PERCENTILE = 8
LONGEST_BASELINE_BIN = 800
BASELINE_BINS = 5
ROUNDING = 1e-12
"""What a trace differs from its baseline by less than this fraction of its size is rounding, not noise."""
BLOCK_BYTES = 64 * 2**20
"""Traces are worked on in blocks of about this size."""


def half_sample_mode(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mode of each row: the shortest half of the samples, of that the shortest half, and so on.

    Parameters
    ----------
    samples : (K, T)

    Returns
    -------
    mode : (K,) float64
        NaN for a row with NaN.

    References
    ----------
    Bickel & Fruehwirth (2006), Comput. Stat. Data Anal. 50:3500.
    """
    left = np.sort(np.asarray(samples, np.float64), axis=1)
    while (n := left.shape[1]) > 3:
        half = -(-n // 2)
        start = np.argmin(left[:, half - 1 :] - left[:, : n - half + 1], axis=1)
        left = np.take_along_axis(left, start[:, None] + np.arange(half), axis=1)
    if left.shape[1] < 3:
        return left.mean(axis=1)
    lower, upper = left[:, 1] - left[:, 0], left[:, 2] - left[:, 1]
    pair = np.where(lower < upper, left[:, 0], left[:, 2])
    return np.where(lower == upper, left[:, 1], (left[:, 1] + pair) / 2)


def compute_event_exceptionality(
    traces: NDArray[np.floating],
    robust_std: bool = False,
    N: int = 5,
    use_mode_fast: bool = False,
    sigma_factor: float = SIGMA_FACTOR,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How improbable the largest event of each trace is if it were noise.

    Parameters
    ----------
    traces : (K, T)
    robust_std : bool
        Noise level from the median of the deviations below the mode, not from their mean square.
    N : int
        Frames of an event, 1 or more.
    use_mode_fast : bool
        Accepted for old scripts; the mode is exact and fast either way.
    sigma_factor : float
        Number of s.d. that make one unit.

    Returns
    -------
    fitness : (K,) float64
        Least log probability of N successive samples, 0 or less; NaN for a trace with NaN.
    erfc : (K, T) float64
        That log probability for the N samples that end at each frame.
    sd, mode : (K,) float64
        Noise level (of the samples below the mode) and mode.
    """
    if N < 1:
        raise ParameterError(f"N={N}: an event has at least 1 frame; is fr * decay_time 0?")
    samples = np.asarray(traces, np.float64)
    mode = half_sample_mode(samples)
    sd = _noise_below(samples - mode[:, None], robust_std)
    erfc = event_log_probability(samples, mode, sd * sigma_factor, N)
    fitness = erfc.min(axis=1) if samples.shape[1] else np.zeros(len(samples))
    return fitness, erfc, sd, mode


def _noise_below(deviations: NDArray[np.float64], robust: bool) -> NDArray[np.float64]:
    """S.d. of the noise from the negative deviations of each row; 0 if there are none."""
    below = np.where(deviations < 0, deviations, np.nan)
    count = np.isfinite(below).sum(axis=1)
    if robust:
        some = np.where(count[:, None] > 0, np.abs(below), 0.0)
        return MEDIAN_TO_SIGMA * np.nanmedian(some, axis=1)
    return np.sqrt(np.nansum(np.square(below), axis=1) / np.maximum(count, 1))


def event_log_probability(
    traces: NDArray[np.float64], mode: NDArray[np.float64], unit: NDArray[np.float64], N: int
) -> NDArray[np.float64]:
    """Sum of log Phi(-z) over the N samples that end at each frame, z = (x - mode) / unit; z = 0 where unit is 0."""
    scale = np.where(unit > 0, unit, np.inf)
    log_p = log_ndtr(-(traces - mode[:, None]) / scale[:, None])
    sums = np.cumsum(log_p, axis=1)
    sums[:, N:] -= sums[:, :-N].copy()
    return sums


def trace_snr(traces: NDArray[np.floating], fr: float, decay_time: float) -> NDArray[np.float64]:
    """Peak SNR of each trace, in units of three s.d. of its noise, (K,) float64.

    The SNR is that of a constant event of ceil(fr * decay_time) frames that is as improbable as the largest one
    found, after a slow baseline is taken off. NaN for a trace with NaN, 0 for one without noise.
    """
    frames = min(int(np.ceil(fr * decay_time)), np.shape(traces)[1])
    snr = np.zeros(len(traces))
    for rows in _blocks(*traces.shape):
        block = np.asarray(traces[rows], np.float64)
        flat = block - slow_baseline(block)
        flat[np.abs(flat) < ROUNDING * np.abs(block).max(axis=1, keepdims=True)] = 0
        fitness = compute_event_exceptionality(flat, N=frames)[0]
        snr[rows] = -ndtri_exp(fitness / frames)
    return snr


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, BLOCK_BYTES // (8 * max(columns, 1)))
    return (slice(start, start + step) for start in range(0, rows, step))


def slow_baseline(traces: NDArray[np.float64]) -> NDArray[np.float64]:
    """A low percentile of each fifth of the trace (800 frames at most), joined by a cubic spline, (K, T)."""
    count, frames = traces.shape
    width = min(frames // BASELINE_BINS, LONGEST_BASELINE_BIN) or frames
    missing = -frames % width
    left = missing // 2
    padded = np.pad(traces, ((0, 0), (left, missing - left)), mode="reflect") if missing else traces
    with np.errstate(invalid="ignore"):
        bins = np.percentile(padded.reshape(count, -1, width), BASELINE_PERCENTILE, axis=2)
    if bins.shape[1] == 1:
        return np.repeat(bins, frames, axis=1)
    joined = [ndimage.zoom(values, width, order=3, mode="mirror") for values in bins]
    return np.array(joined).reshape(count, -1)[:, left : left + frames]
