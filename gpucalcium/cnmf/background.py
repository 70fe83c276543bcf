"""The background of a fitted model, and what the footprints see beside the model.

Two-photon: B = b f. One-photon: the ring model, see `gpucalcium.cnmf.ring`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.cnmf._movie import PixelMovie, images_movie, pixel_movie
from gpucalcium.cnmf.ring import RingModel, RingResidual
from gpucalcium.cnmf.temporal import EPSILON
from gpucalcium.errors import ArrayShapeError, ParameterError

if TYPE_CHECKING:
    from gpucalcium.cnmf.estimates_state import EstimatesState


def as_pixel_movie(Y: Any, dims: tuple[int, ...] | None, pixels: int) -> PixelMovie:
    """A movie given as (d, T), pixels in Fortran order, or as frames (T, d1, d2[, d3]).

    Raises
    ------
    ArrayShapeError
        It has another number of pixels than the footprints, or another image size.
    """
    movie = pixel_movie(Y) if getattr(Y, "ndim", 0) == 2 else images_movie(Y, hold=False)
    if movie.d != pixels or (len(movie.dims) > 1 and dims is not None and movie.dims != tuple(dims)):
        raise ArrayShapeError(
            f"the movie has frames of {movie.dims}; footprints of {pixels} pixels in an image of {dims} were fitted"
        )
    return movie


def compute_background(estimates: EstimatesState, Yr: Any) -> NDArray[np.float32]:
    """The background of every frame, (d, T): as large as the movie. See `Estimates.compute_background`."""
    if not _has_ring(estimates):
        return np.asarray(estimates.b @ estimates.f, np.float32)
    rest = _beside_ring(estimates, Yr)
    background = np.empty((rest.d, rest.T), np.float32)
    for start, frames in rest.backgrounds():
        background[:, start : start + len(frames)] = rest.in_fortran_order(backend.to_numpy(frames).T)
    return background


def _has_ring(estimates: EstimatesState) -> bool:
    """Whether the background is the ring model, of which b f, if there is one as well, is but a part of low rank."""
    if estimates.W is not None and estimates.b0 is not None:
        return True
    if estimates.b is None or estimates.f is None:
        raise ParameterError("there is no background: neither b and f nor W and b0 have been estimated")
    return False


def _beside_ring(estimates: EstimatesState, Yr: Any) -> RingResidual:
    """The movie without its ring background, made as it is read."""
    if estimates.dims is None:
        raise ParameterError("the ring background needs estimates.dims, the image size")
    movie = as_pixel_movie(Yr, estimates.dims, estimates.footprints().shape[0])
    ring = RingModel.of(estimates.W, estimates.b0, estimates.dims)
    return ring.without_background(movie, estimates.footprints(), estimates.C)


def residual_traces(estimates: EstimatesState, Yr: Any) -> NDArray[np.float32]:
    """What each footprint sees of Y - A C - B, (K, T); one pass over the movie."""
    A = estimates.footprints().astype(np.float64)
    squares = np.asarray(A.power(2).sum(axis=0)).ravel() + EPSILON
    if _has_ring(estimates):
        seen = _beside_ring(estimates, Yr).project(A) - (A.T @ A) @ estimates.C
    else:
        movie = as_pixel_movie(Yr, estimates.dims, A.shape[0])
        seen = movie.project(A) - (A.T @ A) @ estimates.C - (A.T @ estimates.b) @ estimates.f
    return np.asarray(seen / squares[:, None], np.float32)
