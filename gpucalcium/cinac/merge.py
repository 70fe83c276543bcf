"""Predictions of overlapping windows, merged by their maximum: in whatever order they come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def merge_windows(
    merged: NDArray[np.float32],
    cells: NDArray[np.integer],
    starts: NDArray[np.integer],
    predictions: NDArray[np.float32],
) -> None:
    """Raise `merged` to the predictions of windows, frame by frame and class by class.

    The maximum does not depend on the order of windows, nor on how they are split among calls.

    Parameters
    ----------
    merged : (N, T, K) float32
        Changed in place.
    cells : (B,) int
        Row of `merged` that each window is of. A cell may occur once for each start.
    starts : (B,) int
        First frame of each window; frames from T on are dropped.
    predictions : (B, L, K) float32
    """
    length = predictions.shape[1]
    for start in np.unique(starts):
        stop = min(int(start) + length, merged.shape[1])
        here = starts == start
        rows, piece = cells[here], slice(int(start), stop)
        merged[rows, piece] = np.maximum(merged[rows, piece], predictions[here, : stop - int(start)])
