"""Transients: runs of active frames, and what in a trace could be one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import signal

from gpucalcium.errors import ArrayShapeError

PEAK_DISTANCE = 2  # frames between peaks of a smooth trace


def runs(active: ArrayLike) -> NDArray[np.int64]:
    """(n, 2) first and last frame, included, of each run of active frames.

    Parameters
    ----------
    active : (T,)
        What is not 0 is active.

    Raises
    ------
    ArrayShapeError
        Not a vector.
    """
    frames = np.asarray(active)
    if frames.ndim != 1:
        raise ArrayShapeError(f"runs are found in the frames of one cell, (T,), not in {frames.shape}")
    steps = np.diff(np.concatenate([[0], frames != 0, [0]]).astype(np.int8))
    return np.stack([np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1], axis=1)


def putative_transients(trace: ArrayLike, least_peak: float | None = None) -> NDArray[np.int64]:
    """(n, 2) first and last frame, included, of what could be transients in a smooth trace: from an onset to a peak.

    An onset is where the trace stops falling: frame i + 1 where d[i] < 0 <= d[i + 1] for its differences d. Peaks are
    `scipy.signal.find_peaks` at least two frames apart; an onset without a peak behind it is none.

    Parameters
    ----------
    trace : (T,)
    least_peak : float, optional
        Lower peaks are dropped, each with the onset before it.

    Returns
    -------
    ends : (n, 2) int64
        In order of time; none overlaps another.
    """
    values = np.asarray(trace, np.float64)
    differences = np.diff(values)
    onsets = np.flatnonzero((differences[:-1] < 0) & (differences[1:] >= 0)) + 1
    peaks, _ = signal.find_peaks(values, distance=PEAK_DISTANCE)
    if least_peak is not None:
        is_low = values[peaks] < least_peak
        before = np.searchsorted(onsets, peaks[is_low]) - 1  # an onset is never a peak
        onsets, peaks = np.delete(onsets, np.unique(before[before >= 0])), peaks[~is_low]
    following = np.searchsorted(peaks, onsets)
    onsets, following = onsets[following < len(peaks)], following[following < len(peaks)]
    following, first = np.unique(following, return_index=True)  # a fall may stop twice before a peak
    return np.stack([onsets[first], peaks[following]], axis=1)


def without_active_frame(places: NDArray[np.int64], active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Those of the places, (n, 2) first and last frame, in which no frame of `active` (T,) lies."""
    before = np.r_[0, np.cumsum(active)]
    return places[before[places[:, 1] + 1] == before[places[:, 0]]]


def widened_to_transients(spikes: ArrayLike, trace: ArrayLike) -> NDArray[np.bool_]:
    """Spikes (T,), each as wide as the putative transient of the trace that holds it; alone where none does."""
    active = np.asarray(spikes) != 0
    for first, last in putative_transients(trace):
        active[first : last + 1] |= active[first : last + 1].any()
    return active
