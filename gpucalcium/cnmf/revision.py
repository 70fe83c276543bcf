"""Revising estimates: deconvolving the traces again, and merging components.

Everything is computed before the first attribute changes, so an error leaves the estimates as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cnmf import merging, selection
from gpucalcium.cnmf.temporal import deconvolve_traces, largest_root
from gpucalcium.deconvolution import constrained_foopsi
from gpucalcium.errors import ParameterError

if TYPE_CHECKING:
    from gpucalcium.cnmf.estimates_state import EstimatesState
    from gpucalcium.cnmf.params import CNMFParams

MERGED_FIELDS = ("C", "S", "bl", "c1", "neurons_sn", "g", "YrA", "R")
"""Attributes that merging computes for every component."""


def _deconvolution_options(params: CNMFParams) -> dict[str, Any]:
    return {**params.temporal, "p": params.preprocess["p"]}


def deconvolve(estimates: EstimatesState, params: CNMFParams, dff: bool) -> None:
    """See `Estimates.deconvolve`."""
    noisy = np.asarray(estimates.C) + np.asarray(estimates.trace_residuals())
    options = _deconvolution_options(params)
    found = deconvolve_traces(noisy, **options)
    changes: dict[str, Any] = found._asdict()
    changes["neurons_sn"] = changes.pop("sn")
    changes["YrA"] = (noisy - found.C).astype(np.float32)
    if dff:
        if estimates.F_dff is None:
            raise ParameterError("dff_flag: there is no F_dff to deconvolve; call detrend_df_f() first")
        changes["F_dff_dec"], changes["S_dff"] = _deconvolve_dff(estimates.F_dff, found.g, options)
    vars(estimates).update(changes)


def _deconvolve_dff(
    F_dff: NDArray[np.floating], g: NDArray[np.float64], options: Mapping[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Denoised relative fluorescence and its spikes, without baseline, with the calcium models given."""
    c, _, c1, g, _, spikes, _ = constrained_foopsi(
        np.asarray(F_dff, np.float32), bl=0.0, c1=0.0, g=g if g.shape[1] else None, **options
    )
    if options["p"] == 0:
        return c, spikes
    start = np.asarray(c1)[:, None] * largest_root(np.asarray(g))[:, None] ** np.arange(c.shape[1])
    return (c + start).astype(np.float32), spikes


def merge(
    estimates: EstimatesState, params: CNMFParams, mx: int, fast_merge: bool, max_merge_area: float | None
) -> None:
    """See `Estimates.merge_components`."""
    merged = merging.merge_components(
        None,
        estimates.A,
        estimates.b,
        estimates.C,
        estimates.trace_residuals(),
        estimates.f,
        estimates.S,
        estimates.sn,
        params.temporal,
        params.spatial,
        thr=params.merging["merge_thr"],
        fast_merge=fast_merge,
        mx=mx,
        bl=estimates.bl,
        c1=estimates.c1,
        sn=estimates.neurons_sn,
        g=estimates.g,
        max_merge_area=max_merge_area,
    )
    _take_over(estimates, merged)


def merge_by_hand(estimates: EstimatesState, components: Sequence[Sequence[int]], params: CNMFParams) -> None:
    """See `Estimates.manual_merge`."""
    groups = [np.asarray(group, np.int64) for group in components]
    if not groups:
        return
    selection.as_indices(np.concatenate(groups), estimates.count())
    alone = [group.tolist() for group in groups if len(group) < 2]
    if alone:
        raise ParameterError(f"{alone[0]} is not a group: give two components or more to merge")
    merged = merging.merge_groups(
        estimates.A,
        estimates.C,
        estimates.trace_residuals(),
        estimates.S,
        groups,
        params.temporal,
        bl=estimates.bl,
        c1=estimates.c1,
        sn=estimates.neurons_sn,
        g=estimates.g,
    )
    _take_over(estimates, merged)


def _take_over(estimates: EstimatesState, merged: tuple[Any, ...]) -> None:
    """Put merged components in the place of their members; other attributes of merged ones are unknown (NaN)."""
    A, C, nr, groups, S, bl, c1, sn, g, _, R = merged
    if not len(groups):
        return
    alone = np.setdiff1d(np.arange(estimates.count()), np.concatenate(groups))
    survivors = type(estimates)()
    vars(survivors).update(selection.take(estimates, alone))
    new = type(estimates)(A=A[:, len(alone) :])
    changes = dict.fromkeys((*selection.ROW_FIELDS, *selection.COLUMN_FIELDS, *selection.ENTRY_FIELDS))
    changes.update(selection.append(survivors, new))
    values = (C, S, bl, c1, sn, g, R, R if estimates.R is not None else None)
    changes.update(zip(MERGED_FIELDS, values, strict=True), A=A, nr=nr, merged_ROIs=groups)
    if estimates.idx_components is not None:
        accepted = np.flatnonzero(np.isin(alone, estimates.idx_components))
        accepted = np.concatenate([accepted, np.arange(len(alone), nr)])
        changes.update(idx_components=accepted, idx_components_bad=np.setdiff1d(np.arange(nr), accepted))
    vars(estimates).update(changes)
