"""Median over bins of a movie: an image that ignores activity, of movies of any length."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import ParameterError

SHARE = 6  # means of bins take at most this part of the memory budget: their median needs as much again


def median_of_bins(source: FrameSource, window: int, *, exclude_bad: bool = True) -> NDArray[np.float32]:
    """Median over bins of each pixel's mean over `window` frames in a row.

    One pass over the movie, or one for every strip of rows where the means of all bins exceed a sixth of the memory
    budget. Means are summed in float64, in order of the frames, and rounded to float32.

    Parameters
    ----------
    source : FrameSource, (T, d1, d2[, d3])
    window : int
        Frames a bin. Those that fill no bin are left out; a movie shorter than `window` is one bin.
    exclude_bad : bool
        Leave out values that are NaN or infinite; else a pixel that has one, in the frames of bins, is NaN.

    Returns
    -------
    image : (d1, d2[, d3]) float32
        NaN where no value is left.

    Raises
    ------
    ParameterError
        `window` is no whole number, or less than 1.
    """
    if window < 1 or window != int(window):
        raise ParameterError(f"window={window}: a bin has a whole number of frames, 1 or more")
    length = min(int(window), len(source))
    bins = len(source) // length
    rows = source.shape[1]
    row_bytes = 4 * bins * math.prod(source.shape[2:])
    most = max(1, min(rows, backend.budget() // (SHARE * row_bytes)))
    strips = (slice(first, first + most) for first in range(0, rows, most))
    return np.concatenate([_strip(source, strip, length, bins, exclude_bad) for strip in strips])


def _strip(
    source: FrameSource, rows: slice, window: int, bins: int, exclude_bad: bool
) -> NDArray[np.float32]:
    """The image on some rows, in one pass, on the device where the frames are."""
    dims = (len(range(source.shape[1])[rows]), *source.shape[2:])
    pixels, copied = math.prod(dims), math.prod(source.shape[1:]) * source.dtype.itemsize
    is_bad, means, sums, counts, have, done = np.zeros(dims, bool), None, None, None, 0, 0
    for chunk in backend.stream(source, frames=slice(bins * window), working=copied):
        xp, wing = backend.arrays.xp(chunk), backend.wing(chunk).baseline
        part = xp.ascontiguousarray(chunk[:, rows]).reshape(len(chunk), pixels)
        if means is None:
            means = xp.empty((bins, pixels), np.float32)
            sums, counts = xp.zeros(pixels, np.float64), xp.zeros(pixels, np.float64)
        if not exclude_bad:
            is_bad |= ~backend.to_numpy(xp.isfinite(part).all(axis=0)).reshape(dims)
        while len(part):
            now, part = part[: window - have], part[window - have :]
            wing.add_present(now, sums, counts)
            have = (have + len(now)) % window
            if have == 0:
                wing.take_means(sums, counts, means[done])
                done += 1
    image = backend.arrays.xp(means).empty(pixels, np.float32)
    backend.wing(means).baseline.percentile(means, 50.0, True, image)
    found = backend.to_numpy(image).reshape(dims)
    return np.where(is_bad, np.float32(np.nan), found)
