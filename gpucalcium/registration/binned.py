"""Median over bins of a movie of any kind: a template that ignores activity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.errors import MovieShapeError
from gpucalcium.movies.binned import median_of_bins
from gpucalcium.movies.sources import MovieLike, open_movie


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
    return backend.like(mat, median_of_bins(open_movie(mat), window, exclude_bad=exclude_nans))


def bin_median_3d(mat: MovieLike, window: int = 10, exclude_nans: bool = True) -> NDArray[np.float32]:
    """`bin_median` of a movie of volumes (T, d1, d2, d3); parameters, result and errors are the same."""
    source = open_movie(mat)
    if len(source.shape) != 4:
        raise MovieShapeError(
            f"bin_median_3d takes (T, d1, d2, d3), not {source.shape}; use bin_median for images"
        )
    return bin_median(mat, window, exclude_nans)
