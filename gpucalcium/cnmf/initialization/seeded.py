"""Start from masks that are given instead of sought."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, hstack

from gpucalcium import backend
from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.cnmf.hals import hals_footprints
from gpucalcium.cnmf.initialization.background import background_nmf
from gpucalcium.cnmf.initialization.refine import refine_hals
from gpucalcium.errors import ArrayShapeError

BACKGROUND_PIXELS = 10_000  # whose time courses are factorised, at most: a background is smooth
FOOTPRINT_SWEEPS = 5
ROUNDS = 3  # of HALS, which part the background from the cells on it


def components_in_masks(
    movie: PixelMovie, masks: Any, nb: int
) -> tuple[csc_matrix, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Footprints inside given masks, their traces, and the background of what lies outside all masks.

    Parameters
    ----------
    movie : PixelMovie
    masks : (d, K) bool, pixels in Fortran order
    nb : int
        Rank of the background: 1 is the mean over the pixels outside, more a non-negative factorisation.

    Returns
    -------
    A : (d, K) float32 CSC, C : (K, T), b : (d, nb), f : (nb, T) float32

    Raises
    ------
    ArrayShapeError
        Masks of another number of pixels.
    """
    masks = csc_matrix(masks).astype(np.float32)
    masks.eliminate_zeros()
    if masks.shape[0] != movie.d:
        raise ArrayShapeError(f"the masks have {masks.shape[0]} pixels, but the field of view has {movie.d}")
    sizes = np.maximum(np.asarray(masks.sum(0)).ravel(), 1)
    f = _time_courses(movie, _outside(masks), nb)
    b = _images(movie, f)
    means = csc_matrix(masks.multiply(1 / sizes[None]))
    C = np.maximum(movie.project(means) - (means.T @ b) @ f, 0)
    both = csc_matrix(hstack([masks, csc_matrix(b)]))
    A = hals_footprints(movie, both, np.vstack([C, f]), FOOTPRINT_SWEEPS, slice(0, masks.shape[1]))
    return refine_hals(movie, A[:, : masks.shape[1]], C, b, f, bSiz=None, maxIter=ROUNDS)


def background_beside(
    movie: PixelMovie, A: Any, C: NDArray, nb: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Background of rank `nb`, (d, nb) and (nb, T), beside given components: time courses as in `components_in_masks`.

    Raises
    ------
    ArrayShapeError
        Components of another number of pixels or frames.
    """
    A = csc_matrix(A)
    if A.shape[0] != movie.d or np.shape(C) != (A.shape[1], movie.T):
        raise ArrayShapeError(
            f"Ain has shape {A.shape} and Cin {np.shape(C)}, but the movie has {movie.d} pixels and {movie.T} frames"
        )
    f = _time_courses(movie, _outside(A), nb)
    return _images(movie, f, A @ (C @ f.T)).astype(np.float32), f.astype(np.float32)


def _outside(A: csc_matrix) -> NDArray[np.int64]:
    """Pixels of no component, or all if there are none."""
    outside = np.flatnonzero(np.asarray((A != 0).sum(1)).ravel() == 0)
    return outside if len(outside) else np.arange(A.shape[0])


def _time_courses(movie: PixelMovie, outside: NDArray[np.int64], nb: int) -> NDArray[np.float64]:
    if nb <= 1:
        mean = csc_matrix((np.ones(len(outside)), (outside, np.zeros_like(outside))), shape=(movie.d, 1))
        return movie.project(mean)[:nb] / len(outside)
    chosen = outside[:: -(-len(outside) // BACKGROUND_PIXELS)]
    one_each = (np.ones(len(chosen)), (chosen, np.arange(len(chosen))))
    rows = movie.project(csc_matrix(one_each, shape=(movie.d, len(chosen))))
    return background_nmf(backend.put(np.maximum(rows, 0).astype(np.float32)), nb)[1].astype(np.float64)


def _images(movie: PixelMovie, f: NDArray[np.float64], cells: NDArray | float = 0.0) -> NDArray[np.float64]:
    """b = max(0, (Y f' - cells) (f f')^-1)."""
    everywhere = np.arange(movie.d)
    columns = np.repeat(np.arange(len(f)), movie.d)
    sums, _ = movie.sample(f, np.tile(everywhere, len(f)), columns)
    products = movie.in_fortran_order(sums.reshape(len(f), movie.d).T) - cells
    return np.maximum(np.linalg.lstsq(f @ f.T, products.T, rcond=None)[0].T, 0) if len(f) else products
