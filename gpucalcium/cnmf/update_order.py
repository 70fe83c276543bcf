"""Groups of components that do not overlap, so that their traces can be updated at the same time."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_matrix, csc_matrix

from gpucalcium.errors import ParameterError


def update_order(
    A: Any,
    new_a: Any = None,
    prev_list: list[list[int]] | None = None,
    method: str = "greedy",
    *,
    seed: int = 0,
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
    method : {"greedy", "random"}
        Greedy colouring in order of index: each component joins the first group it does not overlap; or
        repeated random vertex covers: what a cover leaves out is a group.
    seed : int
        Of the random covers.

    Returns
    -------
    groups : list of lists of int
    sizes : list of int

    Raises
    ------
    ParameterError
        Only one of `new_a` and `prev_list` is given, or an unknown method.
    """
    if (new_a is None) != (prev_list is None):
        raise ParameterError("new_a and prev_list belong together: give both or none")
    support = csc_matrix(csc_matrix(A) != 0, dtype=np.int32)
    if new_a is not None and prev_list is not None:
        shared = support.T @ csc_matrix(csc_matrix(new_a) != 0, dtype=np.int32)
        touched = {int(k) for k in np.flatnonzero(shared.toarray())}
        groups = [list(group) for group in prev_list]
        _join(groups, support.shape[1], touched)
    elif method == "greedy":
        overlap = csc_matrix(support.T @ support)
        groups = []
        for k in range(support.shape[1]):
            _join(groups, k, set(overlap.indices[overlap.indptr[k] : overlap.indptr[k + 1]].tolist()))
    elif method == "random":
        groups = _random_groups(coo_matrix(support.T @ support), np.random.default_rng(seed))
    else:
        raise ParameterError(f"method={method!r} is not known: use 'greedy' or 'random'")
    return groups, [len(group) for group in groups]


def _random_groups(overlap: coo_matrix, rng: np.random.Generator) -> list[list[int]]:
    """Groups left out by vertex covers that take both ends of random edges until none is uncovered."""
    left = np.ones(overlap.shape[0], bool)
    edges = np.stack([overlap.row, overlap.col], 1)[overlap.row < overlap.col]
    groups = []
    while left.any():
        cover = ~left
        for a, b in rng.permutation(edges):
            if not (cover[a] or cover[b]):
                cover[a] = cover[b] = True
        for k in rng.permutation(np.flatnonzero(cover & left)):  # what the cover does not need
            if cover[_others(edges, k)].all():
                cover[k] = False
        groups.append(np.flatnonzero(~cover).tolist())
        left &= cover
    return groups


def _others(edges: np.ndarray, k: int) -> np.ndarray:
    """The other ends of the edges of k."""
    mine = edges[(edges == k).any(1)]
    return mine[mine != k]


def _join(groups: list[list[int]], k: int, touched: set[int]) -> None:
    for group in groups:
        if touched.isdisjoint(group):
            group.append(k)
            return
    groups.append([k])
