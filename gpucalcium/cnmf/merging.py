"""Merging of overlapping components whose traces say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csc_matrix, hstack
from scipy.sparse.csgraph import connected_components

from gpucalcium.cnmf.temporal import Deconvolved, deconvolve_traces
from gpucalcium.errors import ArrayShapeError

RANK_ONE_ITERATIONS = 10
SURE_OF_COVARIANCE = 4.0  # standard errors that a lag-one covariance must be away from that of white noise


def merge_components(
    Y: Any,
    A: Any,
    b: Any,
    C: NDArray,
    R: NDArray | None,
    f: Any,
    S: NDArray | None,
    sn_pix: Any,
    temporal_params: Mapping[str, Any],
    spatial_params: Mapping[str, Any],
    dview: object = None,
    thr: float = 0.85,
    fast_merge: bool = True,
    mx: int = 1000,
    bl: NDArray | None = None,
    c1: NDArray | None = None,
    sn: NDArray | None = None,
    g: NDArray | None = None,
    merge_parallel: bool = False,
    max_merge_area: float | None = None,
) -> tuple[Any, ...]:
    """Make one component of each group of overlapping components with correlated traces.

    Parameters
    ----------
    A : (d, K)
        Footprints.
    C, S, R : (K, T)
        Traces, spikes, residual traces (None: zeros).
    temporal_params : mapping
        Options of the deconvolution of a merged trace (`p`, ``method_deconvolution`` ...).
    thr : float
        Correlation of two traces above which two overlapping components belong together.
    fast_merge : bool
        True: the best footprint x trace for the sum of the group; else its strongest member stands for all.
    mx : int
        Groups at most, those with the largest summed correlation first.
    bl, c1, sn : (K,), g : (K, p), optional
        What the deconvolution found; all or none.
    max_merge_area : float, optional
        Groups that cover more pixels stay apart.
    Y, b, f, sn_pix, spatial_params, dview, merge_parallel
        Accepted for old scripts and not used: merging needs neither the movie nor processes.

    Returns
    -------
    A, C, nr, merged_ROIs, S, bl, c1, sn, g, empty, R
        The survivors in their order, then the merged; `nr` their number, `merged_ROIs` the groups as arrays of
        former indices, `empty` whether each merged one came out empty and was dropped.

    Raises
    ------
    ArrayShapeError
        `bl`, `c1`, `sn` or `g` do not have one entry for each component.
    """
    groups = groups_to_merge(A, C, thr, max_merge_area)
    return merge_groups(A, C, R, S, groups[:mx], temporal_params, fast_merge, bl, c1, sn, g)


def merge_groups(
    A: Any,
    C: NDArray,
    R: NDArray | None,
    S: NDArray | None,
    groups: list[NDArray[np.int64]],
    temporal_params: Mapping[str, Any],
    fast_merge: bool = True,
    bl: NDArray | None = None,
    c1: NDArray | None = None,
    sn: NDArray | None = None,
    g: NDArray | None = None,
) -> tuple[Any, ...]:
    """Make one component of each group of components; arguments and results as for `merge_components`."""
    A = csc_matrix(A)
    K, T = A.shape[1], np.shape(C)[1]
    C = np.asarray(C, np.float32)
    R = np.zeros_like(C) if R is None else np.asarray(R, np.float32)
    p = int(temporal_params.get("p") or 0)
    old = _found(C, S, bl, c1, sn, g, p)
    if not groups:
        return (A, C, K, [], old.S, old.bl, old.c1, old.sn, old.g, np.zeros(0, bool), R)
    shapes, found, residuals = [], Deconvolved.none_yet(len(groups), T, old.g.shape[1]), []
    for i, group in enumerate(groups):
        if fast_merge:
            shape, seen = _rank_one(A, C + R, group)
            part = deconvolve_traces(seen[None], **{**temporal_params, "p": p})
            part = part._replace(g=_padded(part.g, old.g.shape[1]))
        else:
            best = group[int(np.argmax(_energy(A[:, group], C[group])))]
            shape, seen, part = A[:, [best]], C[best] + R[best], old.at([best])
        shapes.append(csc_matrix(shape))
        found.write(np.array([i]), part)
        residuals.append(seen - part.C[0])
    empty = ~(np.nan_to_num(found.C).any(1) & np.array([shape.nnz > 0 for shape in shapes]))
    alone = np.setdiff1d(np.arange(K), np.concatenate(groups))
    new = found.at(~empty)
    fields = [np.concatenate([getattr(old, name)[alone], getattr(new, name)]) for name in Deconvolved._fields]
    all_found = Deconvolved(*fields)
    kept_shapes = [shape for shape, gone in zip(shapes, empty, strict=True) if not gone]
    A_new = csc_matrix(hstack([A[:, alone], *kept_shapes]), dtype=np.float32)
    R_new = np.concatenate([R[alone], np.array(residuals, np.float32).reshape(-1, T)[~empty]])
    return (
        A_new, all_found.C, A_new.shape[1], groups, all_found.S, all_found.bl, all_found.c1, all_found.sn,
        all_found.g, empty, R_new,
    )  # fmt: skip


def _found(C: NDArray, S: Any, bl: Any, c1: Any, sn: Any, g: Any, p: int) -> Deconvolved:
    """The given per-component results; zeros for what is None."""
    K, T = C.shape
    for name, value in (("bl", bl), ("c1", c1), ("sn", sn), ("g", g)):
        if value is not None and len(value) != K:
            raise ArrayShapeError(f"{name} has {len(value)} entries, but there are {K} components")
    out = Deconvolved.none_yet(K, T, p)
    S = out.S if S is None else np.asarray(S, np.float32)
    bl, c1, sn = (
        mine if given is None else np.asarray(given, np.float64).reshape(K)
        for mine, given in ((out.bl, bl), (out.c1, c1), (out.sn, sn))
    )
    g = out.g if g is None or not K else np.array([np.ravel(row) for row in g], np.float64)
    return Deconvolved(C, S, bl, c1, sn, _padded(g, p), out.lam)


def _padded(g: NDArray[np.float64], p: int) -> NDArray[np.float64]:
    """AR coefficients with columns of zeros up to order p."""
    return np.pad(g, ((0, 0), (0, max(p - g.shape[1], 0))))


def groups_to_merge(
    A: Any, C: NDArray, thr: float, max_merge_area: float | None = None, noisy: bool = False
) -> list[NDArray[np.int64]]:
    """Groups of two and more overlapping components, the largest sum of correlations first.

    With `noisy`, traces are also compared a frame apart, where noise that is white in time does not count.
    """
    A, C = csc_matrix(A), np.asarray(C, np.float32)
    overlap = coo_matrix(A.T @ A)
    pairs = (overlap.row < overlap.col) & (overlap.data > 0)
    first, second = overlap.row[pairs], overlap.col[pairs]
    X = np.asarray(C, np.float64)
    X = X - X.mean(1, keepdims=True)
    norms = np.sqrt((X * X).sum(1))
    usable = np.isfinite(norms) & (norms > 1e-6 * np.sqrt((np.asarray(C, np.float64) ** 2).sum(1)))
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=usable)
    X = np.where(usable[:, None], X, 0.0) * scale[:, None]
    correlation = np.array([X[i] @ X[j] for i, j in zip(first, second, strict=True)])
    if noisy:
        correlation = np.maximum(correlation, _a_frame_apart(X, first, second))
    linked = correlation > thr
    if not linked.any():
        return []
    K = A.shape[1]
    graph = coo_matrix((correlation[linked], (first[linked], second[linked])), shape=(K, K))
    labels = connected_components(graph, directed=False)[1]
    strength = np.bincount(labels[graph.row], weights=graph.data, minlength=labels.max() + 1)
    members = [np.flatnonzero(labels == label) for label in np.argsort(-strength, kind="stable")]
    groups = [group for group in members if len(group) > 1]
    if max_merge_area is not None:
        groups = [group for group in groups if _area(A, group) <= max_merge_area]
    return groups


def _a_frame_apart(X: NDArray[np.float64], first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """Correlation of pairs of rows (norm 1, mean 0) without what is white: covariances at lag one over their scale.

    0 where the lag-one covariance of one of the two is within the error of that of white noise.
    """
    early, late = X[:, :-1], X[:, 1:]
    own = (early * late).sum(1)
    own[own < SURE_OF_COVARIANCE / np.sqrt(X.shape[1])] = np.inf
    both = [(early[i] @ late[j] + early[j] @ late[i]) / 2 for i, j in zip(first, second, strict=True)]
    apart: NDArray[np.float64] = np.array(both) / np.sqrt(own[first] * own[second])
    return apart


def _area(A: csc_matrix, group: NDArray[np.int64]) -> int:
    return len(np.unique(A[:, group].indices))


def _energy(A: csc_matrix, C: NDArray) -> NDArray[np.float64]:
    return np.asarray(A.multiply(A).sum(0), np.float64).ravel() * (C.astype(np.float64) ** 2).sum(1)


def _rank_one(A: csc_matrix, noisy: NDArray, group: NDArray[np.int64]) -> tuple[csc_matrix, NDArray]:
    """Best non-negative a c for M = sum of the group's a_i c_i, |a| = 1, and what a sees, M'a."""
    members = A[:, group]
    rows = np.unique(members.indices)
    shapes = members[rows].toarray().astype(np.float64)
    traces = noisy[group].astype(np.float64)
    energy = np.sqrt((shapes**2).sum(0)) * np.sqrt((traces**2).sum(1))
    a = shapes @ energy
    for _ in range(RANK_ONE_ITERATIONS):
        c = np.maximum((a @ shapes) @ traces, 0) / max(a @ a, np.finfo(float).tiny)
        a = np.maximum(shapes @ (traces @ c), 0) / max(c @ c, np.finfo(float).tiny)
    norm = np.sqrt(a @ a)
    a = a / norm if norm > 0 else a
    column = csc_matrix((a, (rows, np.zeros_like(rows))), shape=(A.shape[0], 1))
    column.eliminate_zeros()
    return column, ((a @ shapes) @ traces).astype(np.float32)
