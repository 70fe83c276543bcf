"""Matching found footprints with true ones, and what follows: precision, recall, F1, trace correlations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from gpucalcium.errors import ArrayShapeError, ParameterError

MASK_FRACTION = 0.25  # a mask is where a footprint exceeds this fraction of its maximum
LEAST_IOU = 0.5  # two masks that share less of their union are not the same cell


@dataclass(frozen=True, eq=False)
class Match:
    """One-to-one pairs of found and true cells, and how well they lie on each other."""

    found: NDArray[np.intp]
    """(n,) columns of the found footprints that have a partner."""
    truth: NDArray[np.intp]
    """(n,) the true column that each of them is."""
    iou: NDArray[np.float64]
    """(n,) intersection over union of the two masks."""
    n_found: int
    """All found cells, the uncounted ones included."""
    n_truth: int
    uncounted: NDArray[np.intp]
    """Found columns that count neither for nor against."""

    @property
    def n_counted(self) -> int:
        """Found cells that count."""
        return self.n_found - len(self.uncounted)

    @property
    def precision(self) -> float:
        """Share of the found cells that are true; 0 if nothing was found."""
        return len(self.found) / self.n_counted if self.n_counted else 0.0

    @property
    def recall(self) -> float:
        """Share of the true cells that were found; 0 if there are none."""
        return len(self.found) / self.n_truth if self.n_truth else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        cells = self.n_counted + self.n_truth
        return 2 * len(self.found) / cells if cells else 0.0

    @property
    def missed(self) -> NDArray[np.intp]:
        """True cells without a partner."""
        return np.setdiff1d(np.arange(self.n_truth), self.truth)

    @property
    def spurious(self) -> NDArray[np.intp]:
        """Found cells without a partner."""
        return np.setdiff1d(np.arange(self.n_found), np.r_[self.found, self.uncounted])


def match_footprints(
    found: sparse.spmatrix | NDArray,
    truth: sparse.spmatrix | NDArray,
    *,
    uncounted: sparse.spmatrix | NDArray | None = None,
    fraction: float = MASK_FRACTION,
    least_iou: float = LEAST_IOU,
) -> Match:
    """Pair found with true cells so that the summed overlap is largest.

    Parameters
    ----------
    found, truth : (d, K1) and (d, K2), sparse or dense
        Footprints on the same pixels in the same order. An empty column matches nothing.
    uncounted : (d, K3), optional
        Things that are there but need not be found, such as cells cut by the border: what matches one of them
        and no true cell counts neither for nor against.
    fraction : float
        A mask is where a footprint exceeds this fraction of its maximum; 0 <= fraction < 1.
    least_iou : float
        Pairs whose masks share less than this fraction of their union are dropped; 0 < least_iou <= 1.

    Returns
    -------
    Match
        Sorted by found column.

    Raises
    ------
    ArrayShapeError
        The footprints have different numbers of pixels.
    ParameterError
        `fraction` or `least_iou` out of range.

    References
    ----------
    Kuhn (1955), Naval Res. Logist. Q. 2:83 (the assignment problem).
    """
    if not 0 < least_iou <= 1:
        raise ParameterError(f"least_iou={least_iou}: must be above 0 and at most 1")
    both = (
        truth
        if uncounted is None
        else sparse.hstack([sparse.csc_matrix(truth), sparse.csc_matrix(uncounted)])
    )
    iou = intersection_over_union(found, both, fraction=fraction)
    enough = np.where(iou >= least_iou, iou, 0.0)  # a worthless pair must not displace a good one
    rows, columns = optimize.linear_sum_assignment(enough, maximize=True)
    kept = enough[rows, columns] > 0
    rows, columns = rows[kept], columns[kept]
    true = columns < truth.shape[1]
    return Match(
        rows[true], columns[true], iou[rows[true], columns[true]], iou.shape[0], truth.shape[1], rows[~true]
    )


def intersection_over_union(
    first: sparse.spmatrix | NDArray, second: sparse.spmatrix | NDArray, *, fraction: float = MASK_FRACTION
) -> NDArray[np.float64]:
    """(K1, K2) shared over joint area of every pair of masks; 0 where either is empty.

    Raises
    ------
    ArrayShapeError
        Different numbers of pixels.
    ParameterError
        `fraction` out of range.
    """
    if first.shape[0] != second.shape[0]:
        raise ArrayShapeError(
            f"footprints of {first.shape[0]} and {second.shape[0]} pixels: both must lie on the same field of view"
        )
    one, other = (binary_masks(A, fraction).astype(np.float64) for A in (first, second))
    shared = (one.T @ other).toarray()
    joint = one.sum(axis=0).T + other.sum(axis=0) - shared
    return np.divide(shared, joint, out=np.zeros_like(shared), where=shared > 0)


def binary_masks(A: sparse.spmatrix | NDArray, fraction: float = MASK_FRACTION) -> sparse.csc_matrix:
    """(d, K) bool masks: where each footprint exceeds `fraction` of its maximum.

    Raises
    ------
    ParameterError
        `fraction` below 0, or 1 or more.
    """
    if not 0 <= fraction < 1:
        raise ParameterError(f"fraction={fraction}: must be at least 0 and below 1")
    A = sparse.csc_matrix(A, copy=True)
    column = np.repeat(np.arange(A.shape[1]), np.diff(A.indptr))
    peak = np.zeros(A.shape[1])
    np.maximum.at(peak, column, A.data)
    masks = sparse.csc_matrix((A.data > fraction * peak[column], A.indices, A.indptr), shape=A.shape)
    masks.eliminate_zeros()
    return masks


def trace_correlations(
    found: NDArray[np.floating], truth: NDArray[np.floating], match: Match
) -> NDArray[np.float64]:
    """(n,) Pearson correlation over time of each matched pair; NaN where a trace is constant.

    Parameters
    ----------
    found, truth : (K1, T) and (K2, T)
        Traces of the footprints that were matched.
    match : Match
        Which row belongs to which.
    """
    pairs = np.asarray(found, np.float64)[match.found], np.asarray(truth, np.float64)[match.truth]
    x, y = (rows - rows.mean(axis=1, keepdims=True) for rows in pairs)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    return np.divide((x * y).sum(axis=1), scale, out=np.full(len(x), np.nan), where=scale > 0)
