"""Correlation images of other kinds: by direction, and without what the whole field has in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.errors import MovieShapeError
from gpucalcium.images.correlations import correlations, planar_steps
from gpucalcium.images.neighbours import NeighbourCorrelations, Steps
from gpucalcium.images.time_axis import open_with_time
from gpucalcium.movies.sources import MovieLike

COLOURS = ((1, 0), (1, -1), (1, 1))  # to the neighbour below, and to the two on its sides


def local_correlations_multicolor(Y: MovieLike, swap_dim: bool = True) -> Array:
    """Half the correlation of each pixel in three directions, as the channels of a colour image.

    Cells whose pixels go together in every direction are grey; edges and threads take the colour of theirs.

    Parameters
    ----------
    Y, swap_dim
        As in `local_correlations`; in volumes each plane is taken by itself.

    Returns
    -------
    rho : (d1 - 1, d2 - 1[, d3], 3) float32
        In -0.5..0.5; CuPy if `Y` is CuPy, else NumPy. ``rho[i, j]`` is half the correlation of pixel (i, j + 1) with
        (i + 1, j + 1), of (i, j + 1) with (i + 1, j), and of (i, j) with (i + 1, j + 1). Constant pixels give 0, those
        that are not finite in any frame NaN.

    Raises
    ------
    MovieShapeError
        Fewer than two rows or columns.
    """
    source = open_with_time(Y, swap_dim)
    return backend.like(Y, colours(correlations(source, colour_steps(source.shape[1:]))))


def correlation_image_ecobost(mov: MovieLike, chunk_size: int = 1000, dview: object = None) -> Array:
    """Local correlations once the mean of each frame is subtracted: without what the whole field has in common.

    Parameters
    ----------
    mov : array-like or path, (T, d1, d2[, d3]), any real dtype
        As `local_correlations` takes it, time first. Frame means run over the finite pixels.
    chunk_size, dview
        Taken for the sake of callers, who say with them how much is read at a time and by which workers: here the
        memory budget decides, and all threads work.

    Returns
    -------
    rho : (d1, d2[, d3]) float32
        As `local_correlations` with 8 neighbours, 6 in volumes. Pixels without a signal of their own (dark, saturated)
        are left with minus the frame means, and correlate perfectly.
    """
    source = open_with_time(mov, swap_dim=False)
    steps = planar_steps(source.shape[1:], True)
    return backend.like(mov, correlations(source, steps, transform=_without_frame_means).image())


def colour_steps(dims: tuple[int, ...]) -> Steps:
    """Steps in the directions of the colours, within planes."""
    if dims[0] < 2 or dims[1] < 2:
        raise MovieShapeError(f"frames of {dims}: directions need two rows and two columns")
    return [(*step, *(0,) * (len(dims) - 2)) for step in COLOURS]


def colour_shape(dims: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a colour image of frames of `dims`."""
    return dims[0] - 1, dims[1] - 1, *dims[2:], len(COLOURS)


def colours(sums: NeighbourCorrelations) -> NDArray[np.float32]:
    """Colour image from sums along `colour_steps`; on the host."""
    below, left, right = sums.pairs()
    return (np.stack([below[:, 1:], left, right], axis=-1) / 2).astype(np.float32)


def _without_frame_means(frames: Array) -> Array:
    """Frames less the mean of their finite pixels, float32; 32- and 64-bit numbers are subtracted in float64."""
    xp = arrays.xp(frames)
    flat = frames.reshape(len(frames), -1).astype(np.result_type(frames.dtype, np.float32), copy=False)
    finite = xp.isfinite(flat)
    total = xp.where(finite, flat, flat.dtype.type(0)).sum(axis=1, dtype="float64")
    mean = total / xp.maximum(finite.sum(axis=1), 1)
    return (flat - mean.astype(flat.dtype)[:, None]).astype("float32", copy=False).reshape(frames.shape)
