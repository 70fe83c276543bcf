"""Fast non-negative deconvolution of fluorescence under a noise constraint.

Vogelstein et al. 2010, J. Neurophysiol. 104:3691; Pnevmatikakis et al. 2016, Neuron 89:285, eq. 6 and methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.deconvolution._signals import checked_traces, coefficients, per_trace, shape_of
from gpucalcium.deconvolution.noise import GetSn
from gpucalcium.deconvolution.oasis import solve_ar1, tame_decay
from gpucalcium.deconvolution.oasis_ar2 import slower_root, solve_ar2, tame_coefficients
from gpucalcium.deconvolution.time_constants import estimate_time_constant
from gpucalcium.errors import NotSupportedError, ParameterError

Foopsi = tuple[Array, Array, Array, Array, Array, Array, Array]


def constrained_foopsi(
    fluor: Array,
    bl: float | Array | None = None,
    c1: float | Array | None = None,
    g: float | Array | None = None,
    sn: float | Array | None = None,
    p: int | None = None,
    method_deconvolution: str = "oasis",
    bas_nonneg: bool = True,
    noise_range: Sequence[float] = (0.25, 0.5),
    noise_method: str = "logmexp",
    lags: int = 5,
    fudge_factor: float = 1.0,
    verbosity: bool = False,
    solvers: Sequence[str] | None = None,
    optimize_g: int = 0,
    s_min: float | None = None,
    **ignored: Any,
) -> Foopsi:
    """Calcium, spikes and baseline of fluorescence traces, sparsest within the noise.

    Parameters
    ----------
    fluor : array, (T,) or (K, T), any real dtype
        Fluorescence of one trace, or of a batch that is solved in one call.
    bl : float or (K,), optional
        Baseline; estimated if None.
    c1 : float or (K,), optional
        Calcium at t = 0 left by spikes before it, taken off before the fit; what the fit finds beyond it is added.
    g : float, (p,) or (K, p), optional
        AR coefficients; estimated if None (`lags`, `fudge_factor`: see `estimate_time_constant`).
    sn : float or (K,), optional
        Noise standard deviation; estimated if None (`noise_range`, `noise_method`: see `GetSn`).
    p : int
        Order of the calcium model: 0 none (`fluor` is cut off at 0), 1 decay only, 2 rise and decay.
    method_deconvolution : "oasis"
        "cvxpy" (or "cvx") is not carried out yet.
    bas_nonneg : bool
        Keep an estimated baseline at 0 or above.
    s_min : float, optional
        None: least sum of spikes (convex). 0: few and large spikes. > 0: smallest spike. < 0: smallest spike in
        units of ``sn * sqrt(1 - d)``, d the slowest root of the model.
    optimize_g : int
        Refit `g` on this many transients: not carried out yet.
    verbosity, solvers, **ignored
        Concern "cvxpy" only, or other stages; taken so that the parameters of a whole group can be passed on.

    Returns
    -------
    c : (T,) or (K, T) float32
        Calcium without the decay of what there was at t = 0, ``c1 * d**t``, d the slowest root.
    bl, c1 : float64, scalar or (K,)
    g : (p,) or (K, p) float64
    sn : float64, scalar or (K,)
    sp : (T,) or (K, T) float32
        Spikes, in units of `fluor`.
    lam : float64, scalar or (K,)
        Penalty at which the residual met the noise (p = 2: about; see `constrained_oasisAR2`).

    CuPy if `fluor` is CuPy, else NumPy. p = 0: lam is None (zeros for a batch), g is array(0) ((K, 0)). A constant
    trace gives c = 0 and bl = the constant.

    Raises
    ------
    ParameterError
        p is None or negative; NaN or infinite samples (the message names the traces).
    NotSupportedError
        p > 2, "cvxpy", or optimize_g > 0.
    """
    order = _checked_order(p, method_deconvolution, optimize_g)
    traces = checked_traces(fluor)
    noise = per_trace(GetSn(traces, noise_range, noise_method) if sn is None else sn, len(traces), "sn")
    if order == 0:
        return _without_model(fluor, traces, noise)
    if g is None:
        found = backend.to_numpy(estimate_time_constant(traces, order, noise, lags, fudge_factor))
    else:
        found = coefficients(g, len(traces), order)
    if order == 1:
        decay = tame_decay(found[:, 0], given=g is not None)
        model = decay[:, None]
    else:
        model = tame_coefficients(found, given=g is not None)
        decay = slower_root(model)
    start = per_trace(0.0 if c1 is None else c1, len(traces), "c1")
    if start.any():
        traces = traces - arrays.xp(traces).asarray(
            start[:, None] * decay[:, None] ** np.arange(traces.shape[1])
        )
    solve = solve_ar1 if order == 1 else solve_ar2
    c, s, b, lam = solve(
        traces,
        decay if order == 1 else model,
        noise,
        None if bl is None else per_trace(bl, len(traces), "bl"),
        b_nonneg=bas_nonneg,
        penalty=1 if s_min is None else 0,
        s_min=0 if s_min is None else s_min,
    )
    xp = arrays.xp(c)
    first = xp.empty(len(c), "float64")
    backend.wing(c).oasis.take_start(c, xp.asarray(decay), first)
    return _as_given(fluor, c, b, first + xp.asarray(start), model, noise, s, lam)


def _checked_order(p: int | None, method: str, optimize_g: int) -> int:
    if p is None or p < 0:
        raise ParameterError(
            f"p={p}: give the order of the calcium model, 0 (none), 1 (decay) or 2 (rise and decay)"
        )
    if method in ("cvxpy", "cvx"):
        raise NotSupportedError(f"method_deconvolution={method!r} is not carried out yet; use 'oasis'")
    if method != "oasis":
        raise ParameterError(f"method_deconvolution={method!r}: choose 'oasis'")
    if p > 2:
        raise NotSupportedError(f"p={p}: 'oasis' deconvolves models of order 1 and 2 only")
    if optimize_g:
        raise NotSupportedError(
            f"optimize_g={optimize_g}: refitting the decay on large transients is not carried out yet; use optimize_g=0"
        )
    return p


def _without_model(fluor: Array, traces: Array, noise: NDArray[np.float64]) -> Foopsi:
    xp, K = arrays.xp(traces), len(traces)
    c = xp.maximum(traces, 0).astype("float32")
    if len(shape_of(fluor)) == 1:
        c = backend.like(fluor, c[0])
        return c, 0.0, 0.0, np.array(0), noise[0], c.copy(), None
    zeros = xp.zeros(K, "float64")
    return _as_given(fluor, c, zeros, zeros.copy(), np.zeros((K, 0)), noise, c.copy(), zeros.copy())


def _as_given(fluor: Array, *results: Array) -> Foopsi:
    """Results in the kind of array `fluor` is; without the axis of traces if it has none."""
    single = len(shape_of(fluor)) == 1
    return tuple(backend.like(fluor, x[0] if single else x) for x in results)
