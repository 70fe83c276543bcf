"""Relative change of fluorescence, dF/F, of extracted traces, without going back to the movie."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.errors import ArrayShapeError, ParameterError


def detrend_df_f(
    A: Array,
    b: Array | None,
    C: Array,
    f: Array | None,
    YrA: Array | None = None,
    quantileMin: float = 8,
    frames_window: int | None = 500,
    flag_auto: bool = True,
    use_fast: bool = False,
    detrend_only: bool = False,
) -> Array:
    """dF/F of each component: (F - baseline of F) / (baseline of F + baseline of the background under it).

    Parameters
    ----------
    A : sparse or dense, (d, K)
        Footprints, pixels in Fortran order; scaled to unit norm, the traces with them.
    b, f : (d, nb) and (nb, T), or None
        Background. Without it there is nothing to divide by: the result is F less its baseline.
    C : (K, T)
        Traces of the components.
    YrA : (K, T), optional
        Their residuals; F is then C + YrA, else C.
    quantileMin : float, percent
        Percentile taken as the baseline, if not `flag_auto`.
    frames_window : int or None, frames
        Length of the running window; None, or more than T: one baseline for the whole trace.
    flag_auto : bool
        Take for each trace the percentile at which the density of its first `frames_window` samples peaks
        (`df_percentile`).
    use_fast : bool
        Percentiles of consecutive windows, joined by straight lines, in place of the running one.
    detrend_only : bool
        Do not divide.

    Returns
    -------
    F_dff : (K, T) float32
        CuPy if `C` is CuPy, else NumPy. A trace that holds NaN is NaN.

    Raises
    ------
    ArrayShapeError, ParameterError
        Sizes that do not fit; quantileMin outside 0..100; frames_window below 1.
    """
    if not 0 <= quantileMin <= 100:
        raise ParameterError(f"quantileMin={quantileMin}: a percentile lies between 0 and 100")
    if frames_window is not None and frames_window < 1:
        raise ParameterError(f"frames_window={frames_window}: a window has at least one frame, or is None")
    if b is None or f is None:
        if not detrend_only:
            warnings.warn("without background (b, f) traces are detrended, not divided", stacklevel=2)
        detrend_only = True
    F, norms = _fluorescence(A, C, YrA)
    K, T = F.shape
    if K == 0 or T == 0:
        return backend.like(C, F)
    window = None if frames_window is None or frames_window > T else int(frames_window)
    broken = arrays.xp(F).isnan(F).any(axis=1)
    F = arrays.xp(F).where(broken[:, None], np.float32(0), F)
    q = df_percentile(F[:, :window], axis=1)[0] if flag_auto else np.full(K, float(quantileMin))
    baseline = _baseline(F, q, window, use_fast)
    change = F - baseline
    if not detrend_only:
        background = arrays.xp(F).asarray(_background(A, b, f, norms, T))
        change = change / (_baseline(background, q, window, use_fast) + baseline)
    change[broken] = np.nan
    return backend.like(C, change.astype("float32"))


def df_percentile(inputData: Array, axis: int | None = None) -> tuple[Array, Array]:
    """Percentile at which the density of data peaks, and the value there.

    The density is a kernel estimate whose bandwidth comes from the data by diffusion (Botev, Grotowski & Kroese
    2010, Ann. Stat. 38:2916): for fluorescence that is mostly at rest, its peak is the resting level.

    Parameters
    ----------
    inputData : array
        Data without NaN.
    axis : int or None
        Axis along which densities are taken; None: one density of all values.

    Returns
    -------
    data_prct, val : float64
        100 * CDF(mode), 50 where the density cannot be told (constant data), and the mode; scalars or arrays
        of the shape of `inputData` without `axis`. NumPy: they are few and steer what comes next.
    """
    data = backend.put(inputData)
    xp = arrays.xp(data)
    rows = data.reshape(1, -1) if axis is None else xp.moveaxis(data, axis, -1)
    lead = rows.shape[:-1]
    samples = xp.ascontiguousarray(rows.reshape(-1, rows.shape[-1]).astype("float64"))
    if not samples.shape[1]:
        raise ArrayShapeError(f"inputData of shape {data.shape} holds no values along axis {axis}")
    q, value = (backend.to_numpy(x) for x in backend.wing(samples).quantile.mode_percentile(samples))
    return (q[0], value[0]) if axis is None else (q.reshape(lead), value.reshape(lead))


def _fluorescence(A: Array, C: Array, YrA: Array | None) -> tuple[Array, NDArray[np.float64]]:
    """F = C (+ YrA) for footprints of unit norm, float32 on its device, and the norms that were taken out of A."""
    F = backend.put(C).astype("float32")
    if F.ndim != 2 or A.ndim != 2 or A.shape[1] != len(F):
        raise ArrayShapeError(f"footprints {A.shape} and traces {F.shape}: expected (d, K) and (K, T)")
    if YrA is not None:
        residuals = arrays.xp(F).asarray(YrA)
        if residuals.shape != F.shape:
            raise ArrayShapeError(f"YrA has shape {residuals.shape}, C {F.shape}: they must be the same")
        F = F + residuals
    norms = _column_norms(A)
    return (F * arrays.xp(F).asarray(norms)[:, None]).astype("float32"), norms


def _column_norms(A: Array) -> NDArray[np.float64]:
    footprints = scipy.sparse.csc_matrix(_on_host(A)).astype(np.float64)
    return np.sqrt(np.asarray(footprints.multiply(footprints).sum(axis=0)).reshape(-1))


def _background(A: Array, b: Array, f: Array, norms: NDArray[np.float64], T: int) -> NDArray[np.float32]:
    """(A' b) f for unit columns of A: the background under each component, (K, T)."""
    footprints = scipy.sparse.csc_matrix(_on_host(A))
    b, f = np.asarray(_on_host(b)), np.asarray(_on_host(f))
    if b.ndim != 2 or f.ndim != 2 or b.shape != (footprints.shape[0], f.shape[0]) or f.shape[1] != T:
        raise ArrayShapeError(
            f"background b {b.shape} and f {f.shape}: expected ({footprints.shape[0]}, nb) and (nb, {T})"
        )
    share = (footprints.T @ b) / np.where(norms > 0, norms, 1)[:, None]
    return (share @ f).astype(np.float32)


def _on_host(x: Array) -> Array:
    return x.get() if hasattr(x, "get") else x


def _baseline(traces: Array, q: NDArray[np.float64], window: int | None, use_fast: bool) -> Array:
    """Baseline of each trace, (K, T) or (K, 1): percentile q (K,) of all of it, of a running window, or of blocks."""
    xp, quantile = arrays.xp(traces), backend.wing(traces).quantile
    ranks = xp.asarray(q)
    if window is None:
        return quantile.percentile(traces, ranks)[:, None]
    if not use_fast:
        return quantile.running_percentile(traces, ranks, window)
    return _block_baseline(traces, q, window)


def _block_baseline(traces: Array, q: NDArray[np.float64], window: int) -> Array:
    """Percentiles of consecutive windows (the last ends at T), straight lines between their middles."""
    xp, quantile = arrays.xp(traces), backend.wing(traces).quantile
    K, T = traces.shape
    starts = np.unique(np.append(np.arange(0, T - window + 1, window), T - window))
    blocks = xp.stack([traces[:, s : s + window] for s in starts], axis=1).reshape(-1, window)
    levels = quantile.percentile(xp.ascontiguousarray(blocks), xp.asarray(np.repeat(q, len(starts))))
    levels = levels.reshape(K, len(starts))
    place = np.interp(np.arange(T), starts + (window - 1) / 2, np.arange(len(starts)))
    low = np.minimum(place.astype(int), len(starts) - 1)
    high, share = np.minimum(low + 1, len(starts) - 1), (place - low).astype(np.float32)
    return levels[:, xp.asarray(low)] * xp.asarray(1 - share) + levels[:, xp.asarray(high)] * xp.asarray(
        share
    )
