"""Footprints as images: where to look for them, and how raw regression weights become one connected shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csc_matrix

from gpucalcium.errors import ParameterError


def determine_search_location(
    A: Any,
    dims: tuple[int, ...],
    method: str = "dilate",
    min_size: float = 3,
    max_size: float = 8,
    dist: float = 3,
    expandCore: NDArray | None = None,
) -> csc_matrix:
    """Pixels in which each footprint may be after the next update.

    Parameters
    ----------
    A : (d, K)
        Footprints, pixels in Fortran order.
    dims : tuple of int
        Field of view.
    method : {"dilate", "ellipse"}
        The support dilated by `expandCore` (default: a diamond of radius 2), or the ellipse of the footprint's own
        covariance, `dist` standard deviations wide, these kept within `min_size` and `max_size` pixels.

    Returns
    -------
    support : (d, K) bool CSC
    """
    A = csc_matrix(A)
    if method == "dilate":
        return _dilated(A, dims, _diamond(len(dims)) if expandCore is None else np.asarray(expandCore))
    if method == "ellipse":
        columns = [_ellipse(A[:, k], dims, min_size, max_size, dist) for k in range(A.shape[1])]
        return _from_rows(columns, A.shape)
    raise ParameterError(f"method_exp={method!r} is not known: use 'dilate' or 'ellipse'")


def _diamond(ndim: int) -> NDArray[np.bool_]:
    return ndimage.iterate_structure(ndimage.generate_binary_structure(ndim, 1), 2)


def _dilated(A: csc_matrix, dims: tuple[int, ...], core: NDArray) -> csc_matrix:
    if core.ndim != len(dims):
        core = _diamond(len(dims))
    columns = []
    for k in range(A.shape[1]):
        rows = A.indices[A.indptr[k] : A.indptr[k + 1]][A.data[A.indptr[k] : A.indptr[k + 1]] != 0]
        if len(rows) == A.shape[0]:
            columns.append(rows)
            continue
        at = np.array(np.unravel_index(rows, dims, order="F")).T
        moved = (at[:, None] + np.argwhere(core)[None] - np.array(core.shape) // 2).reshape(-1, len(dims))
        inside = ((moved >= 0) & (moved < dims)).all(1)
        columns.append(np.unique(np.ravel_multi_index(tuple(moved[inside].T), dims, order="F")))
    return _from_rows(columns, A.shape)


def _ellipse(
    column: csc_matrix, dims: tuple[int, ...], smallest: float, largest: float, dist: float
) -> NDArray[np.int64]:
    """Pixels within `dist` of the centre of mass in the metric of the footprint's covariance."""
    if not column.nnz:
        return np.zeros(0, np.int64)
    at = np.array(np.unravel_index(column.indices, dims, order="F"), np.float64)
    weights = column.data / column.data.sum()
    centre = at @ weights
    variances, axes = np.linalg.eigh((at - centre[:, None]) * weights @ (at - centre[:, None]).T)
    variances = variances.clip(smallest**2, largest**2)
    grid = np.indices(dims).reshape(len(dims), -1, order="F") - centre[:, None]
    distance = np.sqrt(((axes.T @ grid) ** 2 / variances[:, None]).sum(0))
    return np.flatnonzero(distance <= dist)


def _from_rows(columns: list[NDArray[np.int64]], shape: tuple[int, int]) -> csc_matrix:
    indptr = np.concatenate([[0], np.cumsum([len(rows) for rows in columns])])
    rows = np.concatenate(columns) if columns else np.zeros(0, np.int64)
    return csc_matrix((np.ones(len(rows), bool), rows, indptr), shape=shape)


def threshold_components(
    A: Any,
    dims: tuple[int, ...],
    medw: tuple[int, ...] | None = None,
    thr_method: str = "max",
    maxthr: float = 0.1,
    nrgthr: float = 0.9999,
    extract_cc: bool = True,
    se: NDArray | None = None,
    ss: NDArray | None = None,
    dview: object = None,
) -> csc_matrix:
    """Footprints smoothed by a median, cut at a threshold, closed, and reduced to one connected piece.

    Parameters
    ----------
    A : (d, K)
        Footprints, pixels in Fortran order.
    dims : tuple of int
        Field of view.
    medw : tuple of int, optional
        Window of the median filter, pixels; default 3 on each axis.
    thr_method : {"max", "nrg"}
        Keep the values above `maxthr` of the largest, or the largest ones that hold the fraction `nrgthr` of the
        energy (always at least one).
    extract_cc : bool
        Keep only the connected piece with most energy.
    se, ss : (3, ...) array, optional
        Structuring elements of the closing and of what counts as connected; default: full 3 x 3 [x 3].
    dview : object
        Accepted for old scripts and not used.

    Returns
    -------
    A : (d, K) float32 CSC
        The values are those after the median filter.
    """
    if thr_method not in ("max", "nrg"):
        raise ParameterError(f"thr_method={thr_method!r} is not known: use 'max' or 'nrg'")
    A, ndim = csc_matrix(A), len(dims)
    window = (3,) * ndim if medw is None or len(medw) != ndim else tuple(medw)
    closing = _element(se, ndim)
    connected = _element(ss, ndim)
    margin = max(
        *window, *closing.shape
    )  # the piece that is cut out behaves as the whole field of view would
    data, rows, counts = [], [], []
    for k in range(A.shape[1]):
        part = slice(A.indptr[k], A.indptr[k + 1])
        piece, corner = _cut_out(A.indices[part], A.data[part], dims, margin)
        if piece.size:
            piece = ndimage.median_filter(piece, size=window)
            mask = _above(piece, thr_method, maxthr, nrgthr)
            mask = ndimage.binary_closing(np.pad(mask, margin), closing)[(slice(margin, -margin),) * ndim]
            if extract_cc:
                mask = _strongest_piece(piece, mask, connected)
            piece = np.where(mask, piece, 0)
        at = np.nonzero(piece)
        flat = np.ravel_multi_index(tuple(i + c for i, c in zip(at, corner, strict=True)), dims, order="F")
        order = np.argsort(flat)
        rows.append(flat[order])
        data.append(piece[at][order])
        counts.append(len(flat))
    if not rows:
        return csc_matrix(A.shape, dtype=np.float32)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return csc_matrix((np.concatenate(data).astype(np.float32), np.concatenate(rows), indptr), shape=A.shape)


def _element(given: NDArray | None, ndim: int) -> NDArray[np.bool_]:
    if given is None or np.ndim(given) != ndim:
        return np.ones((3,) * ndim, bool)
    return np.asarray(given).astype(bool)


def _cut_out(
    rows: NDArray, values: NDArray, dims: tuple[int, ...], margin: int
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """A footprint as an image with `margin` zero pixels around it (less at the border), and where it begins."""
    if not len(rows):
        return np.zeros((0,) * len(dims)), (0,) * len(dims)
    at = np.unravel_index(rows, dims, order="F")
    first = tuple(max(int(x.min()) - margin, 0) for x in at)
    last = tuple(min(int(x.max()) + margin + 1, n) for x, n in zip(at, dims, strict=True))
    piece = np.zeros(tuple(b - a for a, b in zip(first, last, strict=True)))
    piece[tuple(x - a for x, a in zip(at, first, strict=True))] = values
    return piece, first


def _above(piece: NDArray[np.float64], method: str, maxthr: float, nrgthr: float) -> NDArray[np.bool_]:
    if method == "max":
        return piece > maxthr * piece.max()
    energy = np.sort(piece.ravel() ** 2)[::-1]
    total = energy.sum()
    kept = max(int(np.sum(np.cumsum(energy) < nrgthr * total)), 1)
    return (piece**2 >= energy[kept - 1]) & (piece > 0)


def _strongest_piece(
    piece: NDArray[np.float64], mask: NDArray[np.bool_], connected: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    labels, n = ndimage.label(mask, connected)
    if n < 2:
        return mask
    return labels == 1 + int(np.argmax(ndimage.sum(piece**2, labels, np.arange(1, n + 1))))


def centers_of_mass(A: Any, dims: tuple[int, ...]) -> NDArray[np.float64]:
    """Centre of mass of each footprint, (K, ndim), pixels; NaN for an empty one."""
    A = csc_matrix(A)
    grid = np.indices(dims).reshape(len(dims), -1, order="F")
    total = np.asarray(A.sum(0), np.float64).ravel()
    moments = np.asarray((A.T @ grid.T), np.float64)
    return np.divide(moments, total[:, None], out=np.full(moments.shape, np.nan), where=total[:, None] != 0)
