"""The background of a fitted model, and what the footprints see beside the model.

Two-photon: B = b f. One-photon: B = b0 + U W D (Y - A C - b0), where D averages blocks of pixels, U repeats them
back, and the rows of W weigh a pixel's ring of neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpucalcium import backend
from gpucalcium.cnmf._movie import PixelMovie, images_movie, pixel_movie
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


def block_mean(dims: tuple[int, ...], blocks: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Averaging of blocks of pixels into `blocks` values, and repeating them back.

    Parameters
    ----------
    dims : tuple of int
        Image size.
    blocks : int
        Number of blocks, from which their side follows. Blocks at the far border may be smaller.

    Returns
    -------
    D : (blocks, d), U : (d, blocks) CSR float64
        Pixels and blocks in Fortran order.

    Raises
    ------
    ArrayShapeError
        No side gives so many blocks.
    """
    side = 1
    while (grid := tuple(-(-n // side) for n in dims)) != (1,) * len(dims) and np.prod(grid) > blocks:
        side += 1
    if np.prod(grid) != blocks:
        raise ArrayShapeError(f"a ring model of {blocks} blocks does not fit an image of {dims}")
    places = np.indices(dims).reshape(len(dims), -1, order="F") // side
    block = np.atleast_1d(np.ravel_multi_index(tuple(places), grid, order="F"))
    pixels = np.arange(len(block))
    U = sparse.csr_matrix((np.ones(len(block)), (pixels, block)), shape=(len(block), blocks))
    D = sparse.csr_matrix(sparse.diags(1 / np.bincount(block, minlength=blocks)) @ U.T)
    return D, U


class Ring(NamedTuple):
    """The ring model's operator U W D, which is applied factor by factor: as one matrix it would be huge."""

    D: sparse.csr_matrix
    W: sparse.csr_matrix
    U: sparse.csr_matrix

    @classmethod
    def on(cls, W: Any, dims: tuple[int, ...]) -> Ring:
        """The operator of weights `W` on images of size `dims`."""
        D, U = block_mean(dims, W.shape[0])
        return cls(D, sparse.csr_matrix(W, dtype=np.float64), U)

    def of(self, images: NDArray[np.float64]) -> NDArray[np.float64]:
        """U W D images, (d, ...)."""
        return self.U @ (self.W @ (self.D @ images))

    def seen_by(self, rows: Any) -> sparse.csr_matrix:
        """rows U W D, (K, d) sparse, for sparse rows (K, d)."""
        return sparse.csr_matrix(((rows @ self.U) @ self.W) @ self.D)


def _offset(b0: NDArray, dims: tuple[int, ...]) -> NDArray[np.float64]:
    """b0 of every pixel, (d,), repeated from blocks where the model was fitted on blocks."""
    b0 = np.asarray(b0, np.float64).ravel()
    return b0 if len(b0) == np.prod(dims) else block_mean(dims, len(b0))[1] @ b0


def compute_background(estimates: EstimatesState, Yr: Any) -> NDArray[np.float32]:
    """The background of every frame, (d, T): as large as the movie. See `Estimates.compute_background`."""
    if not _has_ring(estimates):
        return np.asarray(estimates.b @ estimates.f, np.float32)
    W, b0, dims = _ring(estimates)
    movie = as_pixel_movie(Yr, dims, estimates.footprints().shape[0])
    ring = Ring.on(W, dims)
    offset = _offset(b0, dims)
    fixed = offset - ring.of(offset)
    background = np.empty((movie.d, movie.T), np.float32)
    for start, frames in movie.frames(working=16 * movie.d):
        part = slice(start, start + len(frames))
        pixels = movie.in_fortran_order(np.asarray(backend.to_numpy(frames).T, np.float64))
        background[:, part] = ring.of(pixels - estimates.A @ estimates.C[:, part]) + fixed[:, None]
    return background


def _has_ring(estimates: EstimatesState) -> bool:
    """Whether the background is the ring model; a run without low-rank background has an empty `f` then."""
    if estimates.f is not None and (len(estimates.f) or estimates.W is None):
        return False
    if estimates.W is None or estimates.b0 is None:
        raise ParameterError("there is no background: neither b and f nor W and b0 have been estimated")
    return True


def _ring(estimates: EstimatesState) -> tuple[Any, Any, tuple[int, ...]]:
    if estimates.dims is None:
        raise ParameterError("the ring background needs estimates.dims, the image size")
    return estimates.W, estimates.b0, tuple(estimates.dims)


def residual_traces(estimates: EstimatesState, Yr: Any) -> NDArray[np.float32]:
    """What each footprint sees of Y - A C - B, (K, T); one pass over the movie.

    With Q = A' - A' U W D the ring model leaves A'(Y - A C - B) = Q (Y - A C - b0), so the background
    itself is never formed.
    """
    A = estimates.footprints().astype(np.float64)
    movie = as_pixel_movie(Yr, estimates.dims, A.shape[0])
    squares = np.asarray(A.power(2).sum(axis=0)).ravel() + EPSILON
    if not _has_ring(estimates):
        seen = movie.project(A) - (A.T @ A) @ estimates.C - (A.T @ estimates.b) @ estimates.f
    else:
        W, b0, dims = _ring(estimates)
        Q = sparse.csr_matrix(A.T - Ring.on(W, dims).seen_by(A.T))
        seen = (
            movie.project(sparse.csc_matrix(Q.T)) - (Q @ A) @ estimates.C - (Q @ _offset(b0, dims))[:, None]
        )
    return np.asarray(seen / squares[:, None], np.float32)
