"""Where the windows of frames start that a network is given, and the windows of one cell."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from gpucalcium.cinac.patch_data import MoviePatchData
from gpucalcium.cinac.recording import CinacRecording
from gpucalcium.cinac.transients import PEAK_DISTANCE
from gpucalcium.errors import MovieShapeError, ParameterError

Augmentation = Callable[[NDArray], NDArray]

HIGH_PEAK = 90  # percentile of a window's peaks from which on they count for its activity


def window_starts(n_frames: int, window_len: int, overlap: float) -> NDArray[np.int64]:
    """First frames of windows that cover a movie.

    Parameters
    ----------
    n_frames, window_len : int
    overlap : float
        Share of a window that the next one repeats, 0 <= overlap < 1. Windows follow each other by
        ``ceil(window_len * (1 - overlap))`` frames in binary floating point (.7 of 100 frames: 31).

    Returns
    -------
    starts : (n,) int64
        Increasing; the last window ends with the movie. ``[0]`` for a movie shorter than a window.

    Raises
    ------
    ParameterError
        `overlap` out of range; a window without frames.
    MovieShapeError
        A movie without frames.
    """
    if not 0 <= overlap < 1:
        raise ParameterError(f"overlap={overlap}: windows share at least 0 and less than 1 of their frames")
    if window_len < 1:
        raise ParameterError(f"window_len={window_len}: a window has one frame or more")
    if n_frames < 1:
        raise MovieShapeError(f"a movie of {n_frames} frames has no windows: one frame at least is needed")
    step = math.ceil(window_len * (1 - overlap))
    last = max(n_frames - window_len, 0)
    return np.append(np.arange(0, last, step, dtype=np.int64), last)


def load_data_for_prediction(
    cinac_recording: CinacRecording,
    cell: int,
    sliding_window_len: int,
    overlap_value: float,
    augmentation_functions: Sequence[Augmentation] | None,
    n_frames: int,
) -> tuple[list[MoviePatchData], list[int]]:
    """Windows of a cell that cover the movie, to predict its activity.

    Parameters
    ----------
    cinac_recording : CinacRecording
    cell : int
    sliding_window_len : int
        Frames of a window.
    overlap_value : float
        Share of a window that the next one repeats, 0 <= overlap_value < 1.
    augmentation_functions : sequence of callable, or None
        Each takes an image and gives a changed copy; each window is followed by a copy for each of them.
    n_frames : int
        Of the movie.

    Returns
    -------
    patches : list of MoviePatchData
    first_frames : list of int
        Where each of them starts.

    Warns
    -----
    UserWarning
        The movie is shorter than a window: its end is filled with zeros, the mean of the movie.
    """
    _check_cell(cinac_recording, cell)
    starts = window_starts(n_frames, sliding_window_len, overlap_value)
    warn_if_short(cinac_recording.identifier, n_frames, sliding_window_len)
    return _patches(cinac_recording, cell, starts, sliding_window_len, augmentation_functions)


def load_data_for_cell_type_prediction(
    cinac_recording: CinacRecording,
    cell: int,
    sliding_window_len: int,
    overlap_value: float,
    augmentation_functions: Sequence[Augmentation] | None,
    n_frames: int,
    n_windows_len_to_keep_by_cell: int = 2,
) -> tuple[list[MoviePatchData], list[int]]:
    """Windows in which a cell is most active, to predict its type.

    Parameters
    ----------
    cinac_recording, cell, sliding_window_len, overlap_value, augmentation_functions, n_frames
        As for `load_data_for_prediction`, whose windows are the candidates.
    n_windows_len_to_keep_by_cell : int
        How many are kept, the most active first; 1 or more.

    Returns
    -------
    patches : list of MoviePatchData
    first_frames : list of int
        Where each of them starts.

    Raises
    ------
    ParameterError
        `n_windows_len_to_keep_by_cell` below 1.
    """
    _check_cell(cinac_recording, cell)
    candidates = window_starts(n_frames, sliding_window_len, overlap_value)
    warn_if_short(cinac_recording.identifier, n_frames, sliding_window_len)
    trace = cinac_recording.smooth_trace(cell)
    starts = most_active(trace, candidates, sliding_window_len, n_windows_len_to_keep_by_cell)
    return _patches(cinac_recording, cell, starts, sliding_window_len, augmentation_functions)


def most_active(
    trace: NDArray, starts: NDArray[np.int64], window_len: int, n_windows: int
) -> NDArray[np.int64]:
    """The `n_windows` windows of highest activity, in decreasing order; of equal ones the earlier first.

    Parameters
    ----------
    trace : (T,)
        Normalised smooth trace of the cell.
    starts : (n,) int64
    window_len, n_windows : int

    Raises
    ------
    ParameterError
        `n_windows` below 1.
    """
    if n_windows < 1:
        raise ParameterError(f"{n_windows} windows are to be kept of each cell: keep one at least")
    trace = np.asarray(trace)
    peaks, _ = signal.find_peaks(trace, distance=PEAK_DISTANCE)
    cuts = np.searchsorted(peaks, [starts, starts + window_len])
    scores = [_activity(trace[peaks[first:last]]) for first, last in cuts.T]
    return starts[np.argsort(-np.array(scores), kind="stable")[:n_windows]]


def _activity(heights: NDArray) -> float:
    """Mean of the peaks at or above the 90th percentile of them all; -inf if there are none."""
    if len(heights) == 0:
        return -math.inf
    return float(heights[heights >= np.percentile(heights, HIGH_PEAK)].mean())


def warn_if_short(identifier: str, n_frames: int, window_len: int) -> None:
    """Say that a movie is filled up with zeros to the length of one window."""
    if n_frames < window_len:
        warnings.warn(
            f"recording {identifier!r} has {n_frames} frames, fewer than the {window_len} of a window: zeros, the mean "
            "of the movie, are put behind them, and what is predicted there is dropped",
            stacklevel=3,
        )


def _check_cell(recording: CinacRecording, cell: int) -> None:
    if not 0 <= cell < recording.get_n_cells():
        raise ParameterError(
            f"cell {cell}: recording {recording.identifier!r} has {recording.get_n_cells()} cells, counted from 0"
        )


def _patches(
    recording: CinacRecording,
    cell: int,
    starts: NDArray[np.int64],
    window_len: int,
    augmentation_functions: Sequence[Augmentation] | None,
) -> tuple[list[MoviePatchData], list[int]]:
    changes = [None, *(augmentation_functions or ())]
    patches = [
        MoviePatchData(recording, int(cell), int(start), int(window_len), data_augmentation_fct=change)
        for start in starts
        for change in changes
    ]
    return patches, [patch.index_movie for patch in patches]
