"""Groups of components that do not overlap, so that their traces can be updated at the same time."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csc_matrix

from gpucalcium.errors import NotSupportedError, ParameterError


def update_order(
    A: Any,
    new_a: Any = None,
    prev_list: list[list[int]] | None = None,
    method: str = "greedy",
) -> tuple[list[list[int]], list[int]]:
    """Split components into groups without spatial overlap.

    Parameters
    ----------
    A : (d, K) sparse or dense
        Footprints; two overlap if they share a non-zero pixel.
    new_a : (d, 1), optional
        One more component, number K, to be added to the groups of `prev_list`.
    prev_list : list of lists of int, optional
        Groups of the components of `A`; given if and only if `new_a` is.
    method : {"greedy"}
        Greedy colouring in order of index: each component joins the first group it does not overlap.

    Returns
    -------
    groups : list of lists of int
    sizes : list of int

    Raises
    ------
    ParameterError
        Only one of `new_a` and `prev_list` is given, or an unknown method.
    NotSupportedError
        ``method="random"``, random vertex covers: groups only differ in how many there are.
    """
    if (new_a is None) != (prev_list is None):
        raise ParameterError("new_a and prev_list belong together: give both or none")
    support = csc_matrix(csc_matrix(A) != 0, dtype=np.int32)
    if new_a is not None and prev_list is not None:
        touched = set(
            np.flatnonzero((support.T @ csc_matrix(csc_matrix(new_a) != 0, dtype=np.int32)).toarray())
        )
        groups = [list(group) for group in prev_list]
        _join(groups, support.shape[1], touched)
    elif method == "greedy":
        overlap = csc_matrix(support.T @ support)
        groups = []
        for k in range(support.shape[1]):
            _join(groups, k, set(overlap.indices[overlap.indptr[k] : overlap.indptr[k + 1]]))
    elif method == "random":
        raise NotSupportedError("method='random' (random vertex covers) is not there yet: use 'greedy'")
    else:
        raise ParameterError(f"method={method!r} is not known: use 'greedy'")
    return groups, [len(group) for group in groups]


def _join(groups: list[list[int]], k: int, touched: set[int]) -> None:
    for group in groups:
        if touched.isdisjoint(group):
            group.append(k)
            return
    groups.append([k])
