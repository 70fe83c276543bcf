"""Taking some of the components, putting set-aside ones back, and scaling footprints to unit norm."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpucalcium.errors import ParameterError

if TYPE_CHECKING:
    from gpucalcium.cnmf.estimates_state import EstimatesState

TRACE_FIELDS = ("C", "S", "YrA", "R", "F_dff", "F_dff_dec", "S_dff", "noisyC")
QUALITY_FIELDS = ("cnn_preds", "SNR_comp", "r_values", "r_contrast", "ecc")
SCALAR_FIELDS = ("g", "bl", "c1", "neurons_sn", "lam", *QUALITY_FIELDS, "center")
ROW_FIELDS = TRACE_FIELDS + SCALAR_FIELDS
"""Attributes with one row, value or entry for each component."""
COLUMN_FIELDS = ("A", "A_thr")
"""Sparse attributes with one column for each component."""
ENTRY_FIELDS = ("coordinates",)
"""Lists with one entry for each component."""
INDEX_FIELDS = ("accepted_list", "rejected_list")
"""Lists of component numbers."""

SCALED_FIELDS = ("C", "S", "YrA", "R", "bl", "c1", "neurons_sn")
"""What is in the units of the traces."""

log = logging.getLogger(__name__)


def column_norms(A: Any) -> NDArray[np.float64]:
    """Euclidean norm of each column of a sparse or dense matrix, (columns,); 1 for a zero column."""
    if sparse.issparse(A):
        squares = np.asarray(A.astype(np.float64).power(2).sum(axis=0)).ravel()
    else:
        squares = np.square(np.asarray(A, dtype=np.float64)).sum(axis=0)
    norms = np.sqrt(squares)
    return np.where(norms > 0, norms, 1.0)


def scale_columns(A: Any, factors: NDArray[np.float64]) -> Any:
    """`A` with column k multiplied by factors[k]; sparse stays CSC, the dtype is kept."""
    if sparse.issparse(A):
        return sparse.csc_matrix(A @ sparse.diags(factors), dtype=A.dtype)
    return np.asarray(A * factors, dtype=A.dtype)


def scale_rows(values: Any, factors: NDArray[np.float64]) -> Any:
    """Values with entry or row k multiplied by factors[k]; the dtype of floats is kept."""
    rows = np.asarray(values)
    product = rows * factors.reshape(-1, *(1,) * (rows.ndim - 1))
    return product.astype(rows.dtype) if rows.dtype.kind == "f" else product


def normalize(estimates: EstimatesState) -> None:
    """Unit columns of A and b; traces, residuals, baselines, noise and f take up the norms."""
    scaled: dict[str, Any] = {}
    if estimates.A is not None:
        norms = column_norms(estimates.A)
        scaled["A"] = scale_columns(estimates.A, 1 / norms)
        for name in SCALED_FIELDS:
            values = getattr(estimates, name)
            if values is not None and len(values) == len(norms):
                scaled[name] = scale_rows(values, norms)
    if estimates.b is not None and estimates.f is not None:
        norms = column_norms(estimates.b)
        scaled["b"] = scale_columns(estimates.b, 1 / norms)
        scaled["f"] = scale_rows(estimates.f, norms)
    vars(estimates).update(scaled)


def as_indices(chosen: Any, count: int) -> NDArray[np.intp]:
    """Component numbers from numbers or a mask of `count` entries.

    Raises
    ------
    ParameterError
        A number is out of range or appears twice, or a mask has the wrong length.
    """
    chosen = np.atleast_1d(np.asarray(chosen))
    if chosen.dtype == bool:
        if chosen.shape != (count,):
            raise ParameterError(f"a mask of {chosen.shape} entries cannot choose among {count} components")
        return np.flatnonzero(chosen)
    numbers = chosen.astype(np.intp).ravel()
    wrong = numbers[(numbers < -count) | (numbers >= count)]
    if len(wrong):
        raise ParameterError(f"component {wrong[0]} does not exist: there are {count}, numbered from 0")
    numbers = numbers % max(count, 1)
    if len(np.unique(numbers)) < len(numbers):
        raise ParameterError("the same component is chosen twice")
    return numbers


def take(estimates: EstimatesState, chosen: NDArray[np.intp]) -> dict[str, Any]:
    """The attributes of the chosen components, by name; attributes that are None or of other length are left out."""
    count = estimates.count()
    part: dict[str, Any] = {}
    for name in COLUMN_FIELDS:
        if _belongs(value := getattr(estimates, name), name, count):
            part[name] = sparse.csc_matrix(value)[:, chosen]
    for name in ROW_FIELDS:
        if _belongs(value := getattr(estimates, name), name, count):
            part[name] = value[chosen] if isinstance(value, np.ndarray) else [value[k] for k in chosen]
    for name in ENTRY_FIELDS:
        if _belongs(value := getattr(estimates, name), name, count):
            part[name] = [value[k] for k in chosen]
    place = {int(old): new for new, old in enumerate(chosen)}
    for name in INDEX_FIELDS:
        if getattr(estimates, name) is not None:
            kept = [place[int(k)] for k in getattr(estimates, name) if int(k) in place]
            part[name] = np.asarray(kept, dtype=np.intp)
    return part


def _belongs(value: Any, name: str, count: int) -> bool:
    if value is None:
        return False
    return (value.shape[1] if name in COLUMN_FIELDS else len(value)) == count


def append(first: EstimatesState, second: EstimatesState) -> dict[str, Any]:
    """The attributes of the components of `first` followed by those of `second`, by name.

    What only `first` knows (computed after `second` was set aside) is NaN for `second`; what only `second` knows
    is dropped.
    """
    counts = first.count(), second.count()
    joined: dict[str, Any] = {}
    for name in (*COLUMN_FIELDS, *ROW_FIELDS, *ENTRY_FIELDS):
        one, two = getattr(first, name), getattr(second, name)
        if not _belongs(one, name, counts[0]):
            continue
        known = _belongs(two, name, counts[1])
        if name in COLUMN_FIELDS:
            joined[name] = sparse.hstack([one, two], format="csc") if known else None
        elif isinstance(one, list):
            joined[name] = [*one, *two] if known else None
        else:
            joined[name] = np.concatenate([one, two if known else _unknown(one, counts[1])])
    for name in INDEX_FIELDS:
        if getattr(first, name) is not None:
            other = getattr(second, name)
            moved = np.asarray([] if other is None else other, dtype=np.intp) + counts[0]
            joined[name] = np.concatenate([getattr(first, name), moved]).astype(np.intp)
    return joined


def _unknown(like: NDArray[Any], count: int) -> NDArray[Any]:
    return np.full((count, *like.shape[1:]), np.nan, dtype=like.dtype if like.dtype.kind == "f" else float)


def select(estimates: EstimatesState, chosen: Sequence[int] | NDArray[Any], save_discarded: bool) -> None:
    """Keep the chosen components, in the order given; set the others aside in `discarded_components`."""
    count = estimates.count()
    kept = as_indices(chosen, count)
    others = np.setdiff1d(np.arange(count), kept)
    changes = take(estimates, kept)
    if save_discarded and len(others):
        aside = type(estimates)(dims=estimates.dims)
        vars(aside).update(take(estimates, others), nr=len(others))
        if estimates.discarded_components is not None:
            earlier = estimates.discarded_components
            vars(aside).update(append(earlier, aside), nr=earlier.count() + len(others))
        changes["discarded_components"] = aside
    changes.update(nr=len(kept), idx_components=None, idx_components_bad=None)
    vars(estimates).update(changes)


def restore(estimates: EstimatesState) -> None:
    """Put the components that were set aside back, after the present ones."""
    aside = estimates.discarded_components
    if aside is None:
        return
    changes = append(estimates, aside)
    changes.update(nr=estimates.count() + aside.count(), discarded_components=None)
    changes.update(idx_components=None, idx_components_bad=None)
    vars(estimates).update(changes)
