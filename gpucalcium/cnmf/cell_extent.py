"""What keeps the components of a one-photon movie to single cells: their reach, and one for each place.

The ring model leaves some of the background, wide and slow. A footprint that takes in a little of it gets a trace with
more of it, and then a wider footprint: without a bound, faint cells grow from one update to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.csgraph import connected_components

REACH_OF_SIGMA, REACH_OF_SIZE = 3.0, 0.75
"""Of `gSig` and of `gSiz`: how far from its peak a footprint goes, the larger of both; at 3 sigma a spot is at 1 %."""
RIM = 0.8  # of the reach: beyond, what a footprint has there is background
SAME_PLACE = 0.7  # cosine of two footprints: parts of one cell, or one over what another left


def reach(gSig: Sequence[float], gSiz: Sequence[float]) -> tuple[float, ...]:
    """How far from its peak a footprint may go along each axis, pixels."""
    return tuple(
        max(REACH_OF_SIGMA * sigma, REACH_OF_SIZE * size) for sigma, size in zip(gSig, gSiz, strict=True)
    )


def within_reach(A: Any, dims: tuple[int, ...], reach: Sequence[float]) -> csc_matrix:
    """Footprints inside an ellipse around their peak, less the level that they have at its rim.

    Parameters
    ----------
    A : (d, K), pixels in Fortran order
    dims : tuple of int
        Field of view.
    reach : one number per axis
        Half axes of the ellipse, pixels.

    Returns
    -------
    A : (d, K) float32 CSC
        The level is the median over the pixels of the rim that lie in the field: 0 for a footprint that ends before.
    """
    A = csc_matrix(A, dtype=np.float32)
    kept: list[tuple[NDArray, NDArray]] = []
    for k in range(A.shape[1]):
        part = slice(A.indptr[k], A.indptr[k + 1])
        rows, values = A.indices[part], A.data[part]
        if not len(rows):
            kept.append((rows, values))
            continue
        at = np.array(np.unravel_index(rows, dims, order="F"))
        peak = at[:, int(np.argmax(values))]
        distance = _distance(at, peak, reach)
        rim = (distance > RIM) & (distance <= 1)
        size = _rim_size(peak, dims, reach)
        there = np.zeros(size)
        there[: rim.sum()] = values[rim]
        level = np.median(there) if size else 0.0
        inside = (distance <= 1) & (values > level)
        kept.append((rows[inside], values[inside] - np.float32(level)))
    if not kept:
        return A
    indptr = np.concatenate([[0], np.cumsum([len(rows) for rows, _ in kept])])
    rows, values = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return csc_matrix((values, rows, indptr), shape=A.shape)


def _distance(at: NDArray, peak: NDArray, reach: Sequence[float]) -> NDArray[np.float64]:
    """From the peak, the rim of the ellipse being at 1; `at` has an axis first."""
    scaled = [(x - p) / r for x, p, r in zip(at, peak, reach, strict=True)]
    return np.asarray(np.sqrt(sum(x**2 for x in scaled)))


def _rim_size(peak: NDArray, dims: tuple[int, ...], reach: Sequence[float]) -> int:
    """Pixels of the field in the rim around `peak`."""
    axes = [
        np.arange(max(int(p - r), 0), min(int(p + r) + 1, n))
        for p, r, n in zip(peak, reach, dims, strict=True)
    ]
    distance = _distance(np.stack(np.meshgrid(*axes, indexing="ij")), peak, reach)
    return int(((distance > RIM) & (distance <= 1)).sum())


def groups_at_one_place(A: Any) -> list[NDArray[np.int64]]:
    """Groups of two and more footprints of cosine above 0.7: a cell whose transients were shared out between them."""
    A = csc_matrix(A, dtype=np.float64)
    if not A.shape[1]:
        return []
    norms = np.sqrt(np.asarray(A.power(2).sum(0)).ravel())
    unit = csc_matrix(A.multiply(1 / np.maximum(norms, np.finfo(float).tiny)[None]))
    labels = connected_components(csc_matrix(unit.T @ unit) > SAME_PLACE, directed=False)[1]
    groups = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    return [group for group in groups if len(group) > 1]
