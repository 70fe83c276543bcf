"""Images in which cells stand out because their pixels go up and down together."""

from __future__ import annotations

import math
import operator

import numpy as np

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import ParameterError
from gpucalcium.images.neighbours import NeighbourCorrelations, Steps, forward_steps
from gpucalcium.images.sliding import TRANSFORM_WORKING, Transform, assembled, window_images
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
    order = checked_order(order_mean)
    source = open_with_time(Y, swap_dim)
    steps = planar_steps(source.shape[1:], eight_neighbours)
    return backend.like(Y, correlations(source, steps).image(order))


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
    rolling_window : int, optional
        Frames w of a window that moves frame by frame: one image for each of the T - w windows after the first, of
        frames ``k + 1`` to ``k + w``. Each is the correlation image of its frames; CaImAn measures each frame from the
        mean of the window that ends with it, whose "correlations" pass 1.

    Returns
    -------
    rho : (d1, d2[, d3]) float32, or (T - w, d1, d2[, d3]) with `rolling_window`
        As in `local_correlations`. A pixel is NaN in the windows in which it is not finite.

    Raises
    ------
    ParameterError
        `rolling_window` is not between 1 and T - 1.
    """
    source = open_with_time(Y, swap_dim)
    steps = forward_steps(source.shape[1:], "all" if eight_neighbours else "faces")
    if rolling_window is not None:
        window, n = checked_whole(rolling_window, "rolling_window"), len(source)
        if window >= n:
            raise ParameterError(
                f"rolling_window={window}: the movie has {n} frames, and a window must be shorter"
            )
        windows = range(1, n - window + 1)
        images = window_images(source, windows, window, steps)
        return backend.like(Y, assembled(source, images, (len(windows), *source.shape[1:])))
    return backend.like(Y, correlations(source, steps).image())


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
        `bin_size` is no whole number, or below 1.
    """
    bin_size = checked_whole(bin_size, "bin_size")
    source = open_with_time(Y, swap_dim)
    steps = planar_steps(source.shape[1:], eight_neighbours)
    n, bins = len(source), max(1, round(len(source) / bin_size))
    image = None
    for b in range(bins):
        frames = slice(b * n // bins, (b + 1) * n // bins)
        now = correlations(source, steps, frames).image()
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
    n = checked_frames(source, Tot_frames, "Tot_frames")
    return backend.like(file_name, correlations(source, (), slice(n)).mean())


def planar_steps(shape: tuple[int, ...], eight_neighbours: bool) -> Steps:
    """Steps to the neighbours of the documented functions: 8 or 4 in images, 6 in volumes."""
    return forward_steps(shape, "all" if eight_neighbours and len(shape) == 2 else "faces")


def correlations(
    source: FrameSource, steps: Steps, frames: slice = slice(None), transform: Transform | None = None
) -> NeighbourCorrelations:
    """Fold `frames` of a movie, transformed on the way, into correlations."""
    sums = NeighbourCorrelations(source.shape[1:], steps)
    working = TRANSFORM_WORKING * math.prod(sums.shape) if transform else sums.working(source.dtype)
    for chunk in backend.stream(source, frames=frames, working=working):
        backend.retry_halved(lambda part: sums.add(transform(part) if transform else part), chunk)
    return sums


def checked_order(order_mean: int) -> int:
    """`order_mean` if it is 0 or more."""
    try:
        order = operator.index(order_mean)
    except TypeError:
        order = -1
    if order < 0:
        raise ParameterError(f"order_mean={order_mean}: expected a whole number, 0 (geometric mean) or more")
    return order


def checked_whole(number: int, name: str) -> int:
    """The parameter `name` if it is a number of frames, at least 1."""
    try:
        whole = operator.index(number)
    except TypeError:
        whole = 0
    if whole < 1:
        raise ParameterError(f"{name}={number}: expected a whole number of frames, 1 or more")
    return whole


def checked_rate(fr: float) -> float:
    """The frame rate `fr` if it is one."""
    try:
        rate = float(fr)
    except (TypeError, ValueError):
        rate = 0.0
    if not 0 < rate < math.inf:
        raise ParameterError(f"fr={fr!r}: the frame rate is a positive number of frames per second")
    return rate


def checked_frames(source: FrameSource, wanted: int | None, name: str) -> int:
    """How many frames of the movie the parameter `name` asks for."""
    n = len(source) if wanted is None else checked_whole(wanted, name)
    if not 1 <= n <= len(source):
        raise ParameterError(f"{name}={wanted}: the movie has {len(source)} frames; give 1 to {len(source)}")
    return n
