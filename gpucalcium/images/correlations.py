"""Images in which cells stand out because their pixels go up and down together."""

from __future__ import annotations

import operator

import numpy as np

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import NotSupportedError, ParameterError
from gpucalcium.images.neighbours import NeighbourCorrelations, Neighbourhood
from gpucalcium.images.time_axis import open_with_time
from gpucalcium.movies.sources import MovieLike


def local_correlations(
    Y: MovieLike, eight_neighbours: bool = True, swap_dim: bool = True, order_mean: int = 1
) -> Array:
    """Mean correlation over time of each pixel with its neighbours.

    Pixels of one cell share its transients and rise above the tissue around, whose noise is
    independent from pixel to pixel. One pass over the movie, in its own dtype.

    Parameters
    ----------
    Y : array-like or path, (d1, d2[, d3], T) if `swap_dim`, else (T, d1, d2[, d3]), any real dtype
        Fluorescence; its scale and offset do not matter. Read in chunks, never held whole.
    eight_neighbours : bool
        8 neighbours, or the 4 that share an edge. Volumes: always the 6 that share a face.
    swap_dim : bool
        Time is the last axis of the array. Files and frame sources know their time axis; for them this
        means nothing.
    order_mean : int
        1: mean; k > 1: k-th root of the mean k-th power, with the sign of that mean; 0: geometric mean, in
        which a negative correlation counts as zero.

    Returns
    -------
    rho : (d1, d2[, d3]) float32
        In -1..1; CuPy if `Y` is CuPy, else NumPy. Pixels at the border have fewer neighbours and are
        averaged over those. A correlation with a constant pixel is 0. A pixel that is NaN or infinite in any
        frame (or beyond 1e38) is NaN, and is no neighbour of others.

    Raises
    ------
    ParameterError
        `order_mean` is negative or no whole number.
    MovieShapeError
        Not 3 or 4 axes, or empty.

    Notes
    -----
    Pearson's r with the population variance. Sums are exact products in float64, added in order of time:
    chunks, threads and device do not change a bit.

    References
    ----------
    Smith and Häusser (2010), Nat. Neurosci. 13:1144, Methods ("cross-correlation image").
    """
    order = _checked_order(order_mean)
    source = open_with_time(Y, swap_dim)
    neighbourhood: Neighbourhood = "all" if eight_neighbours and len(source.shape) == 3 else "faces"
    return backend.like(Y, _correlations(source, neighbourhood).image(order))


def local_correlations_fft(
    Y: MovieLike,
    eight_neighbours: bool = True,
    swap_dim: bool = True,
    opencv: bool = True,
    rolling_window: int | None = None,
) -> Array:
    """As `local_correlations`, but in volumes `eight_neighbours` chooses 26 neighbours over 6.

    Parameters
    ----------
    Y, swap_dim
        As in `local_correlations`.
    eight_neighbours : bool
        All neighbours (8; 26 in volumes), or those that share a face (4; 6).
    opencv : bool
        Taken for the sake of callers: it chose between two ways to the same sums.
    rolling_window : None
        Correlations in a sliding window are not supported yet.

    Returns
    -------
    rho : (d1, d2[, d3]) float32
        As in `local_correlations`.

    Raises
    ------
    NotSupportedError
        `rolling_window` is given.
    """
    if rolling_window is not None:
        raise NotSupportedError(
            f"rolling_window={rolling_window}: correlations in a sliding window are not supported; call "
            "local_correlations on the frames of each window"
        )
    source = open_with_time(Y, swap_dim)
    return backend.like(Y, _correlations(source, "all" if eight_neighbours else "faces").image())


def max_correlation_image(
    Y: MovieLike, bin_size: int = 1000, eight_neighbours: bool = True, swap_dim: bool = True
) -> Array:
    """Largest local correlation of each pixel over bins of time: shows cells that are active but once.

    Parameters
    ----------
    Y, eight_neighbours, swap_dim
        As in `local_correlations`.
    bin_size : int
        Length of a bin, in frames. The movie is cut into ``round(T / bin_size)`` bins, at least one, whose
        lengths differ by one frame at most: none is left out.

    Returns
    -------
    image : (d1, d2[, d3]) float32
        Pixelwise maximum; CuPy if `Y` is CuPy, else NumPy. NaN where a pixel is NaN in every bin.

    Raises
    ------
    ParameterError
        `bin_size` below 1.
    """
    if bin_size < 1:
        raise ParameterError(f"bin_size={bin_size}: a bin holds at least one frame")
    source = open_with_time(Y, swap_dim)
    neighbourhood: Neighbourhood = "all" if eight_neighbours and len(source.shape) == 3 else "faces"
    n, bins = len(source), max(1, round(len(source) / bin_size))
    image = None
    for b in range(bins):
        frames = slice(b * n // bins, (b + 1) * n // bins)
        now = _correlations(source, neighbourhood, frames).image()
        image = now if image is None else np.fmax(image, now)
    return backend.like(Y, image)


def mean_image(
    file_name: MovieLike, Tot_frames: int | None = None, fr: float = 10.0, window: int = 100
) -> Array:
    """Mean over time, in one pass.

    Parameters
    ----------
    file_name : array-like or path, (T, d1, d2[, d3]), any real dtype
    Tot_frames : int, optional
        Only the first so many frames.
    fr, window
        Taken for the sake of callers: they set how much was read at a time, which here follows from the
        memory budget.

    Returns
    -------
    image : (d1, d2[, d3]) float32
        In the movie's units; CuPy if the movie is CuPy, else NumPy. NaN where any frame is NaN.

    Raises
    ------
    ParameterError
        `Tot_frames` below 1 or beyond the end of the movie.
    """
    source = open_with_time(file_name, swap_dim=False)
    n = len(source) if Tot_frames is None else operator.index(Tot_frames)
    if not 1 <= n <= len(source):
        raise ParameterError(
            f"Tot_frames={Tot_frames}: the movie has {len(source)} frames; give 1 to {len(source)}"
        )
    return backend.like(file_name, _correlations(source, "none", slice(n)).mean())


def _correlations(
    source: FrameSource, neighbourhood: Neighbourhood, frames: slice = slice(None)
) -> NeighbourCorrelations:
    """Fold `frames` of a movie into correlations."""
    sums = NeighbourCorrelations(source.shape[1:], neighbourhood)
    for chunk in backend.stream(source, frames=frames, working=sums.working(source.dtype)):
        backend.retry_halved(sums.add, chunk)
    return sums


def _checked_order(order_mean: int) -> int:
    try:
        order = operator.index(order_mean)
    except TypeError:
        order = -1
    if order < 0:
        raise ParameterError(f"order_mean={order_mean}: expected a whole number, 0 (geometric mean) or more")
    return order
