"""Median over bins of a movie: a template that ignores activity, of movies of any length."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies.aligning import median_image
from gpucalcium.movies.sources import MovieLike, open_movie
from gpucalcium.registration.template import average

SHARE = 6  # means of bins take at most this part of the memory budget: their median needs as much again


def bin_median(mat: MovieLike, window: int = 10, exclude_nans: bool = True) -> NDArray[np.float32]:
    """Median over bins of the mean of `window` consecutive frames.

    Parameters
    ----------
    mat : movie, (T, d1, d2[, d3]), as `open_movie` takes it
        Read in chunks; once, or once for every strip of rows where the means of all bins exceed a sixth of the
        memory budget.
    window : int
        Frames a bin. Those that fill no bin are left out; a movie shorter than `window` is one bin.
    exclude_nans : bool
        Leave out values that are NaN or infinite; else a pixel that has one is NaN.

    Returns
    -------
    image : (d1, d2[, d3]) float32
        CuPy if `mat` is CuPy. NaN where no value is left.

    Raises
    ------
    ParameterError
        ``window < 1``.
    """
    if window < 1 or window != int(window):
        raise ParameterError(f"window={window}: a bin has a whole number of frames, 1 or more")
    source = open_movie(mat)
    length = min(int(window), len(source))
    bins = len(source) // length
    rows = source.shape[1]
    row_bytes = 4 * bins * math.prod(source.shape[2:])
    most = max(1, min(rows, backend.budget() // (SHARE * row_bytes)))
    strips = [slice(first, first + most) for first in range(0, rows, most)]
    images = [_strip(source, strip, length, bins, exclude_nans) for strip in strips]
    return backend.like(mat, np.concatenate(images))


def bin_median_3d(mat: MovieLike, window: int = 10, exclude_nans: bool = True) -> NDArray[np.float32]:
    """`bin_median` of a movie of volumes (T, d1, d2, d3); parameters, result and errors are the same."""
    source = open_movie(mat)
    if len(source.shape) != 4:
        raise MovieShapeError(
            f"bin_median_3d takes (T, d1, d2, d3), not {source.shape}; use bin_median for images"
        )
    return bin_median(mat, window, exclude_nans)


def _strip(
    source: FrameSource, rows: slice, window: int, bins: int, exclude_nans: bool
) -> NDArray[np.float32]:
    """The image on some rows, in one pass."""
    means = np.empty((bins, len(range(source.shape[1])[rows]), *source.shape[2:]), np.float32)
    bad, sums, counts, have, done = np.zeros((), bool), None, None, 0, 0
    for chunk in backend.stream(source, frames=slice(bins * window), working=4 * math.prod(source.shape[1:])):
        xp = backend.arrays.xp(chunk)
        part = xp.ascontiguousarray(chunk[:, rows])
        bad = bad | ~backend.to_numpy(xp.isfinite(part).all(axis=0))
        while len(part):
            if have == 0:
                sums, counts = xp.zeros(part.shape[1:], np.float64), xp.zeros(part.shape[1:], np.int32)
            now, part = part[: window - have], part[window - have :]
            backend.wing(now).registration.add_frames(now, sums, counts)
            have = (have + len(now)) % window
            if have == 0:
                means[done], done = average(sums, counts), done + 1
    image = median_image(means)
    return image if exclude_nans else np.where(bad, np.float32(np.nan), image)
