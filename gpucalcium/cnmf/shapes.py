"""Footprints as pixel masks: which are too small or large, which are the same cell twice, and their export."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def sizes(A_thr: Any) -> NDArray[np.intp]:
    """Number of pixels above zero in each footprint, (K,)."""
    return np.asarray((sparse.csc_matrix(A_thr) > 0).sum(axis=0)).ravel()


def within_size(A_thr: Any, smallest: float, largest: float) -> NDArray[np.intp]:
    """Footprints of more than `smallest` and fewer than `largest` pixels."""
    count = sizes(A_thr)
    return np.flatnonzero((count > smallest) & (count < largest))


def without_duplicates(A_thr: Any, metric: NDArray[Any], least_overlap: float) -> NDArray[np.intp]:
    """Footprints that remain when of every two that cover each other the worse one is removed.

    Parameters
    ----------
    A_thr : (d, K) sparse
        Footprints cut off at a threshold; positive pixels count.
    metric : (K,)
        The better one of two has the larger value; of equals the first is removed.
    least_overlap : float
        Two footprints are the same cell if at least this fraction of one lies in the other.

    Returns
    -------
    kept : (n,) int array
        Pairs are resolved from the best component downwards.
    """
    masks = sparse.csc_matrix(sparse.csc_matrix(A_thr) > 0, dtype=np.float64)
    count = np.maximum(np.diff(masks.indptr), 1)
    shared = sparse.coo_matrix(masks.T @ masks)
    pairs = (shared.row < shared.col) & (
        shared.data >= least_overlap * np.minimum(count[shared.row], count[shared.col])
    )
    one, two = shared.row[pairs], shared.col[pairs]
    best, worst = np.maximum(metric[one], metric[two]), np.minimum(metric[one], metric[two])
    alive = np.ones(masks.shape[1], bool)
    for pair in np.lexsort((two, one, -worst, -best)):
        i, j = one[pair], two[pair]
        if alive[i] and alive[j]:
            alive[j if metric[i] > metric[j] else i] = False
    return np.flatnonzero(alive)


def neurofinder_regions(A_thr: Any, dims: tuple[int, ...], dataset_name: str) -> dict[str, Any]:
    """Masks in the format of the Neurofinder challenge.

    Returns
    -------
    dict
        ``{"dataset": name, "regions": [{"coordinates": [[row, column], ...]}, ...]}``, one region per footprint.
    """
    A = sparse.csc_matrix(A_thr)
    regions = []
    for k in range(A.shape[1]):
        part = slice(A.indptr[k], A.indptr[k + 1])
        pixels = np.sort(A.indices[part][A.data[part] > 0])
        places = np.stack(np.unravel_index(pixels, dims, order="F"), axis=1)
        regions.append({"coordinates": places.tolist()})
    return {"dataset": dataset_name, "regions": regions}
