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
from gpucalcium.deconvolution._convex import solve_convex
from gpucalcium.deconvolution._signals import (
    as_given,
    band,
    checked_events,
    checked_traces,
    coefficients,
    noise_levels,
    number,
    per_trace,
    shape_of,
    whole,
)
from gpucalcium.deconvolution.noise import GetSn
from gpucalcium.deconvolution.oasis import refit_ar1, solve_ar1, tame_decay
from gpucalcium.deconvolution.oasis_ar2 import refit_ar2, slower_root, solve_ar2, tame_coefficients
from gpucalcium.deconvolution.time_constants import estimate_time_constant
from gpucalcium.errors import NotSupportedError, ParameterError

Foopsi = tuple[Array, ...]


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
    method_deconvolution : "oasis", "cvxpy" or "cvx"
        "oasis": batches, on any device, p <= 2. "cvxpy" (or "cvx"): a convex programme of any order, solved trace by
        trace on the CPU by `solvers` (needs the extra ``cvx``); where it is infeasible, spikes are penalised by
        ``sn / 500`` instead. It takes neither `s_min` nor `optimize_g`.
    bas_nonneg : bool
        Keep an estimated baseline at 0 or above.
    s_min : float, optional
        None: least sum of spikes (convex). 0: few and large spikes. > 0: smallest spike. < 0: smallest spike in
        units of ``sn * sqrt(1 - d)``, d the slowest root of the model.
    optimize_g : int
        Fit `g` anew to this many of the largest transients of each trace. 0: keep it.
    verbosity : bool
        Let the solvers of "cvxpy" print.
    solvers : sequence of str, optional
        Solvers that "cvxpy" tries in turn; default ("CLARABEL", "SCS"). Those that are not installed are left out.
    **ignored
        Options of other stages, taken so that the parameters of a whole group can be passed on.

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
        Penalty at which the residual met the noise (p = 2: about; see `constrained_oasisAR2`). "cvxpy": the price of
        the noise constraint, spikes per unit of ``sn * sqrt(T)``.

    CuPy if `fluor` is CuPy, else NumPy. p = 0: lam is None (zeros for a batch), g is array(0) ((K, 0)). A constant
    trace gives c = 0 and bl = the constant.

    Raises
    ------
    ParameterError
        p is None, negative or no whole number; NaN or infinite samples (the message names the traces); a noise level
        below 0, or another value that does not fit.
    NotSupportedError
        p > 2 with "oasis"; `s_min` or `optimize_g` with "cvxpy".
    MissingExtraError
        "cvxpy" is asked for and not installed.
    """
    order, events = _checked_order(p, method_deconvolution, s_min, optimize_g), checked_events(optimize_g)
    traces = checked_traces(fluor)
    K = len(traces)
    noise = noise_levels(
        GetSn(traces, band(noise_range, "noise_range"), noise_method) if sn is None else sn, K
    )
    if order == 0:
        return _without_model(fluor, traces, noise)
    if g is None:
        model = np.asarray(backend.to_numpy(estimate_time_constant(traces, order, noise, lags, fudge_factor)))
    else:
        model = coefficients(g, K, order)
    baseline = None if bl is None else per_trace(bl, K, "bl")
    start = None if c1 is None else per_trace(c1, K, "c1")
    if method_deconvolution != "oasis":
        return _by_programme(fluor, traces, model, noise, baseline, start, bas_nonneg, solvers, verbosity)
    solve = _Oasis(order, noise, baseline, bas_nonneg)
    model = solve.tame(model, given=g is not None)
    known = np.zeros(K) if start is None else start
    if known.any():
        decaying = known[:, None] * solve.decay(model)[:, None] ** np.arange(traces.shape[1])
        traces = traces - arrays.xp(traces).asarray(decaying)
    if events:
        model = solve.refit(traces, model, events)
    c, s, b, lam = solve(traces, model, s_min)
    xp = arrays.xp(c)
    first = xp.empty(K, "float64")
    backend.wing(c).oasis.take_start(c, xp.asarray(solve.decay(model)), first)
    return as_given(fluor, c, b, first + xp.asarray(known), model, noise, s, lam)


class _Oasis:
    """The functions of `oasis` and `oasis_ar2` under one signature; the model g is (K, order)."""

    def __init__(
        self, order: int, sn: NDArray[np.float64], b: NDArray[np.float64] | None, b_nonneg: bool
    ) -> None:
        self.order, self.sn, self.b, self.b_nonneg = order, sn, b, b_nonneg

    def tame(self, g: NDArray[np.float64], *, given: bool) -> NDArray[np.float64]:
        return (
            tame_decay(g[:, 0], given=given)[:, None]
            if self.order == 1
            else tame_coefficients(g, given=given)
        )

    def decay(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.ascontiguousarray(g[:, 0]) if self.order == 1 else slower_root(g)

    def refit(self, traces: Array, g: NDArray[np.float64], events: int) -> NDArray[np.float64]:
        if self.order == 1:
            return refit_ar1(traces, g[:, 0], self.sn, self.b, events, b_nonneg=self.b_nonneg)[:, None]
        return refit_ar2(traces, g, self.sn, self.b, events, b_nonneg=self.b_nonneg)

    def __call__(
        self, traces: Array, g: NDArray[np.float64], s_min: float | None
    ) -> tuple[Array, Array, Array, Array]:
        penalty, least = (1, 0.0) if s_min is None else (0, s_min)
        if self.order == 1:
            return solve_ar1(
                traces, self.decay(g), self.sn, self.b, b_nonneg=self.b_nonneg, penalty=penalty, s_min=least
            )
        return solve_ar2(traces, g, self.sn, self.b, b_nonneg=self.b_nonneg, penalty=penalty, s_min=least)


def _by_programme(
    fluor: Array,
    traces: Array,
    g: NDArray[np.float64],
    sn: NDArray[np.float64],
    bl: NDArray[np.float64] | None,
    c1: NDArray[np.float64] | None,
    b_nonneg: bool,
    solvers: Sequence[str] | None,
    verbose: bool,
) -> Foopsi:
    """The method "cvxpy": one trace after the other, on the CPU."""
    xp, host = arrays.xp(traces), backend.to_numpy(traces)
    fits = [
        solve_convex(
            y,
            g[k],
            sn[k],
            None if bl is None else bl[k],
            None if c1 is None else c1[k],
            b_nonneg=b_nonneg,
            solvers=solvers,
            verbose=verbose,
        )
        for k, y in enumerate(host)
    ]
    c, s = (np.array(x, np.float32).reshape(host.shape) for x in ([f.c for f in fits], [f.s for f in fits]))
    b, first, lam = np.array([(f.b, f.c1, f.lam) for f in fits], np.float64).reshape(-1, 3).T
    return as_given(fluor, *map(xp.asarray, (c, b, first)), g, sn, *map(xp.asarray, (s, lam)))


def _checked_order(p: int | None, method: str, s_min: float | None, optimize_g: int) -> int:
    if p is None:
        raise ParameterError(
            "p=None: give the order of the calcium model, 0 (none), 1 (decay) or 2 (rise and decay)"
        )
    p = whole(p, "p", 0, "the order of the calcium model, a whole number")
    if method not in ("oasis", "cvxpy", "cvx"):
        raise ParameterError(f"method_deconvolution={method!r}: choose 'oasis', 'cvxpy' or 'cvx'")
    if method == "oasis" and p > 2:
        raise NotSupportedError(
            f"p={p}: 'oasis' deconvolves models of order 1 and 2 only; use method_deconvolution='cvxpy'"
        )
    if s_min is not None:
        number(s_min, "s_min")
    if method != "oasis" and (s_min is not None or optimize_g):
        raise NotSupportedError(
            f"s_min={s_min}, optimize_g={optimize_g}: a convex programme has neither a smallest spike "
            "nor time constants to fit; leave them out, or use method_deconvolution='oasis'"
        )
    return p


def _without_model(fluor: Array, traces: Array, noise: NDArray[np.float64]) -> Foopsi:
    xp, K = arrays.xp(traces), len(traces)
    c = xp.maximum(traces, 0).astype("float32")
    if len(shape_of(fluor)) == 1:
        c = backend.like(fluor, c[0])
        return c, 0.0, 0.0, np.array(0), noise[0], c.copy(), None
    zeros = xp.zeros(K, "float64")
    return as_given(fluor, c, zeros, zeros.copy(), np.zeros((K, 0)), noise, c.copy(), zeros.copy())
