"""First estimates made better: sweeps of least squares, and a second look at what the first cells leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix, hstack

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.cnmf.footprints import determine_search_location
from gpucalcium.cnmf.hals import hals_footprints, hals_traces
from gpucalcium.cnmf.initialization.greedy import Found, time_last
from gpucalcium.cnmf.merging import groups_to_merge, merge_groups
from gpucalcium.cnmf.quality import transient_contrast
from gpucalcium.errors import ArrayShapeError

DUPLICATE_CORRELATION = 0.8  # of the traces of overlapping components that are taken for parts of one cell
CELL_LIKE = 0.5  # correlation of a footprint with the picture of its transients, above which strength decides
SECOND_LOOKS = 2  # times that what is left is searched for cells in place of such parts
LEAST_SKEWNESS = 0.5  # of what a second look finds: transients go up, misfits of what is known go both ways
LEAST_FRAMES = 8  # for a second look: fewer have no noise level, and hardly a transient
SUPPORT_GROWTH = 3  # pixels: side of the box by which supports grow before HALS refines them

Model = tuple[csc_matrix, NDArray, NDArray, NDArray]
"""A, C, b, f."""


def refine_hals(
    movie: PixelMovie,
    A: csc_matrix,
    C: NDArray,
    b: NDArray,
    f: NDArray,
    bSiz: int | None = SUPPORT_GROWTH,
    maxIter: int = 5,
) -> Model:
    """Refine footprints, traces and background by HALS: `maxIter` times two sweeps over each.

    Parameters
    ----------
    movie : PixelMovie
    A : (d, K), C : (K, T), b : (d, nb), f : (nb, T)
        Where to start; pixels in Fortran order.
    bSiz : int, optional
        Footprints may grow by a box of this side; None: not at all.
    maxIter : int

    Returns
    -------
    A, C, b, f
    """
    K = A.shape[1]
    support = csc_matrix(A)
    if bSiz is not None:
        support = determine_search_location(A, movie.dims, expandCore=np.ones((bSiz,) * len(movie.dims)))
    both = on_support(
        csc_matrix(hstack([A, csc_matrix(b)])), csc_matrix(hstack([support, np.ones(b.shape, bool)]))
    )
    traces = np.vstack([C, f]).astype(np.float64)
    for _ in range(maxIter):
        traces, _ = hals_traces(movie.project(both), both.T @ both, traces, sweeps=2)
        both = on_support(hals_footprints(movie, both, traces, sweeps=2), both)
    return (
        csc_matrix(both[:, :K]),
        traces[:K].astype(np.float32),
        both[:, K:].toarray().astype(np.float32),
        traces[K:].astype(np.float32),
    )


def hals(
    Y: Any, A: Any, C: NDArray, b: NDArray, f: NDArray, bSiz: int | None = SUPPORT_GROWTH, maxIter: int = 5
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Refine components and background by hierarchical alternating least squares.

    Parameters
    ----------
    Y : (d1, d2[, d3], T)
        Movie with time last.
    A : (d, K), C : (K, T), b : (d, nb), f : (nb, T)
        Where to start; pixels in Fortran order, `A` and `b` dense or sparse. `nb` may be 0.
    bSiz : int, optional
        Footprints may grow by a box of this side, pixels; None: not at all. The background may change everywhere.
    maxIter : int
        Iterations, of two sweeps over the traces and two over the footprints.

    Returns
    -------
    A : (d, K), C : (K, T), b : (d, nb), f : (nb, T) float32

    Raises
    ------
    ArrayShapeError
        Factors that do not fit the movie or each other.

    References
    ----------
    Cichocki & Phan (2009), IEICE Trans. Fundam. E92-A:708; Friedrich et al. (2017), Front. Neural Circuits 11:3.
    """
    movie = time_last(Y)
    A, b = csc_matrix(A), csc_matrix(b).toarray()
    C, f = np.asarray(C), np.asarray(f)
    for left, right, names in ((A, C, "A and C"), (b, f, "b and f")):
        if (left.shape[0], *right.shape) != (movie.d, left.shape[1], movie.T):
            raise ArrayShapeError(
                f"{names} have shapes {left.shape} and {right.shape}: expected ({movie.d}, K) and (K, {movie.T})"
            )
    with movie.device():
        A, C, b, f = refine_hals(movie, A, C, b, f, bSiz, maxIter)
    return A.toarray(), C, b, f


def look_again(
    movie: PixelMovie,
    frames: Array,
    first: Model,
    K: int,
    search: Callable[[Array, int], Found],
    maxIter: int,
    candidates: float = 1.0,
) -> Model:
    """Search what the model leaves of the movie for more cells, and keep the components that are most like cells.

    A greedy search takes a cell that is larger than its box, or shaped unlike its filter, several times, noise where
    there is most light, and loses as many others that are dim or lie close to a bright one. Once HALS has fitted the
    background and the whole of each cell these stand out.

    Parameters
    ----------
    movie, frames : PixelMovie, (T, d1, d2[, d3])
        The movie, and the same in one array on the device.
    first : A, C, b, f
    K : int
        Cells that are wanted, at most.
    search : callable
        ``search(frames, n)`` finds n cells.
    maxIter : int
        HALS iterations after each look.
    candidates : float
        Components looked at for each of the K that are kept.

    Returns
    -------
    A, C, b, f
    """
    A, C, b, f = first
    if movie.T < LEAST_FRAMES:
        return A[:, :K], C[:K], b, f
    sought = math.ceil(candidates * K)
    for _ in range(SECOND_LOOKS):
        A, C = without_duplicates(A, C)
        if A.shape[1] >= sought:
            break
        more = search(_residual(frames, movie, A, C, b, f), sought - A.shape[1])
        real = skewness(more.C) > LEAST_SKEWNESS
        if not real.any():
            break
        A, C = csc_matrix(hstack([A, more.A[:, real]])), np.vstack([C, more.C[real]])
        A, C, b, f = refine_hals(movie, A, C, b, f, maxIter=maxIter)
    A, C = without_duplicates(A, C)
    if A.shape[1] > K:
        kept = _most_like_cells(movie, A, C, K)
        A, C = A[:, kept], C[kept]
    return A, C, b, f


def _most_like_cells(movie: PixelMovie, A: csc_matrix, C: NDArray, K: int) -> NDArray[np.intp]:
    """The K strongest of the components with the footprint of their transients; the most alike if these are fewer."""
    contrast = transient_contrast(movie, A, C)
    energy = np.asarray(A.multiply(A).sum(0)).ravel() * np.square(C, dtype=np.float64).sum(1)
    alike = contrast > CELL_LIKE
    order = np.lexsort((-np.where(alike, energy, contrast), ~alike))
    return np.sort(order[:K])


def without_duplicates(A: csc_matrix, C: NDArray) -> tuple[csc_matrix, NDArray]:
    """One component in place of each group of overlapping ones with the same trace: parts of one cell."""
    groups = groups_to_merge(A, C, DUPLICATE_CORRELATION, noisy=True)
    A, C, *_ = merge_groups(A, C, None, None, groups, {"p": 0})
    return A, C


def _residual(frames: Array, movie: PixelMovie, A: csc_matrix, C: NDArray, b: NDArray, f: NDArray) -> Array:
    """Frames (T, ...) without components and background."""
    xp, sparse = backend.arrays.xp(frames), backend.arrays.sparse(frames)
    cells = csr_matrix(movie.in_frame_order(A), dtype=np.float32)
    parts = tuple(backend.put(x) for x in (cells.data, cells.indices, cells.indptr))
    model = sparse.csr_matrix(parts, shape=cells.shape) @ backend.put(np.asarray(C, np.float32))
    images = movie.in_frame_order(csc_matrix(b)).toarray().astype(np.float32)
    model += xp.matmul(backend.put(images), backend.put(np.asarray(f, np.float32)))
    return frames - model.T.reshape(frames.shape)


def skewness(traces: NDArray) -> NDArray[np.float64]:
    """Third standardised moment of each row; 0 for a constant."""
    X = np.asarray(traces, np.float64)
    X = X - X.mean(1, keepdims=True)
    spread = np.sqrt((X**2).mean(1))
    return np.divide((X**3).mean(1), spread**3, out=np.zeros(len(X)), where=spread > 0)


def on_support(A: csc_matrix, support: csc_matrix) -> csc_matrix:
    """`A` with stored zeros wherever `support` has an entry."""
    values, places = coo_matrix(A), coo_matrix(support)
    data = np.concatenate([values.data, np.zeros(places.nnz)]).astype(np.float32)
    rows = np.concatenate([values.row, places.row])
    columns = np.concatenate([values.col, places.col])
    return csc_matrix((data, (rows, columns)), shape=A.shape)
