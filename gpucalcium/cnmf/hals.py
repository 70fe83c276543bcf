"""Hierarchical alternating least squares: plain sweeps over traces or footprints, without deconvolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from gpucalcium import backend
from gpucalcium.cnmf._movie import PixelMovie


def hals_traces(
    projections: NDArray[np.float64],
    gram: csr_matrix,
    traces: NDArray[np.float64],
    *,
    order: Sequence[int] | NDArray[np.int64] | None = None,
    free: Sequence[int] = (),
    sweeps: int,
    tol: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Non-negative traces C that reduce |Y - A C|, row after row.

    Parameters
    ----------
    projections : (M, T)
        A'Y.
    gram : (M, M) sparse
        A'A. Rows with a zero on the diagonal keep their trace.
    traces : (M, T)
        Where to start.
    order : sequence of int, optional
        Rows to be updated, in this order; default: all.
    free : sequence of int
        Rows that may be negative.
    sweeps : int
        At most.
    tol : float
        Stop once a sweep changes the traces by less than this, relative.

    Returns
    -------
    traces, noisy : (M, T) float64
        `noisy` is what each trace was before it was clipped.

    References
    ----------
    Cichocki & Phan (2009), IEICE Trans. Fundam. E92-A:708, fast HALS.
    """
    M = len(traces)
    usable = gram.diagonal() > 0
    rows = np.array([m for m in (range(M) if order is None else order) if usable[m]], np.int64)
    clipped = np.ones(M, bool)
    clipped[list(free)] = False
    gram = csr_matrix(gram, dtype=np.float64)
    C = backend.put(np.array(traces, np.float64, order="C"))
    if C is traces:
        C = C.copy()
    noisy = C.copy()
    given = [
        backend.put(x)
        for x in (
            np.ascontiguousarray(projections, np.float64),
            gram.indptr.astype(np.int64),
            gram.indices.astype(np.int64),
            gram.data,
            rows,
            clipped,
        )
    ]
    sweep = backend.wing(C).hals.sweep_traces
    if tol <= 0:
        sweep(C, noisy, *given, sweeps)
    else:
        for _ in range(sweeps):
            before = C.copy()
            sweep(C, noisy, *given, 1)
            change = backend.to_numpy(((C - before) ** 2).sum())
            if change <= tol**2 * backend.to_numpy((before**2).sum()):
                break
    return backend.to_numpy(C), backend.to_numpy(noisy)


def hals_footprints(
    movie: PixelMovie, A: csc_matrix, traces: NDArray, sweeps: int, updated: slice = slice(None)
) -> csc_matrix:
    """Non-negative footprints on their own supports that reduce |Y - A C|; one pass over the movie.

    Parameters
    ----------
    movie : PixelMovie
    A : (d, M) CSC, pixels in Fortran order
        Every stored entry, also a stored zero, may change.
    traces : (M, T)
    sweeps : int
    updated : slice
        Columns that may change.

    Returns
    -------
    A : (d, M) float32 CSC
    """
    pattern = movie.in_frame_order(A)
    columns = np.repeat(np.arange(A.shape[1]), np.diff(pattern.indptr))
    sums, _ = movie.sample(traces, pattern.indices, columns)
    by_pixel = csr_matrix((pattern.data.astype(np.float64), (pattern.indices, columns)), shape=A.shape)
    products = csr_matrix((sums, (pattern.indices, columns)), shape=A.shape)
    C = np.asarray(traces, np.float64)
    gram = C @ C.T
    fixed = np.ones(A.shape[1], bool)
    fixed[updated] = False
    gram[fixed, fixed] = 0  # the diagonal: a component without curvature is left as it is
    given = [
        backend.put(x)
        for x in (
            by_pixel.data,
            by_pixel.indptr.astype(np.int64),
            by_pixel.indices.astype(np.int64),
            products.data,
            gram,
        )
    ]
    backend.wing(*given).hals.sweep_footprints(*given, sweeps)
    values = csr_matrix(
        (backend.to_numpy(given[0]), by_pixel.indices, by_pixel.indptr), shape=A.shape
    ).tocoo()
    rows = movie.fortran_rows(values.row)
    out = csc_matrix((values.data.astype(np.float32), (rows, values.col)), shape=A.shape)
    out.eliminate_zeros()
    return out
