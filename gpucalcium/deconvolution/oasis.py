"""Spikes and calcium of AR(1) traces with a bound on the residual: OASIS.

Friedrich, Zhou & Paninski 2017, PLoS Comput. Biol. 13:e1005423. All traces of a batch go through one call of the
wing, which searches penalty and baseline trace by trace; docs/theory/deconvolution.md derives the search.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.deconvolution._refit import refit_roots
from gpucalcium.deconvolution._signals import (
    as_given,
    checked_events,
    checked_traces,
    noise_levels,
    number,
    per_trace,
    whole,
)
from gpucalcium.errors import ParameterError

LARGEST_DECAY = 0.999  # per frame: at 1 calcium would never leave and the baseline could not be told from it
SCRATCH_PER_SAMPLE = 2 * (3 * 8 + 8) + 8  # bytes: two stacks of pools, and c and s
MOST_STEPS = 1000  # of a search with a given baseline, which ends by itself


def constrained_oasisAR1(
    y: Array,
    g: float | Array,
    sn: float | Array,
    optimize_b: bool = False,
    b_nonneg: bool = True,
    optimize_g: int = 0,
    decimate: int = 1,
    max_iter: int = 5,
    penalty: int = 1,
    s_min: float = -3,
) -> tuple[Array, ...]:
    """Sparsest calcium of AR(1) traces whose residual has the variance of the noise.

    Minimises sum_t s_t subject to |y - b - c|^2 <= sn^2 T, s_t = c_t - g c_{t-1} >= 0 (`penalty` 1), or takes
    few and large spikes instead (`penalty` 0).

    Parameters
    ----------
    y : array, (T,) or (K, T)
        Fluorescence, in any unit.
    g : float or (K,)
        Decay of calcium per frame, in [0, 0.999].
    sn : float or (K,)
        Noise standard deviation, in units of `y`.
    optimize_b : bool
        Estimate the baseline; else it is 0.
    b_nonneg : bool
        Keep an estimated baseline at 0 or above.
    optimize_g : int
        Fit `g` anew to this many of the largest transients (at most eight rounds). 0: keep it.
    decimate : int, frames
        Search penalty and baseline on means of this many frames (rough and, on very long traces, quicker).
    max_iter : int
        Most steps of the joint search of penalty and baseline; it ends by itself once the residual sum of
        squares is within 1e-5 of its target.
    penalty : {1, 0}
        1: sum of spikes (convex); 0: number of spikes, found greedily at the baseline of the convex problem.
    s_min : float
        For `penalty` 0. 0: the largest spikes, as few as reach the noise level. > 0: spikes of at least this
        size. < 0: spikes of at least ``-s_min * sn * sqrt(1 - g)``.

    Returns
    -------
    c, s : (T,) or (K, T) float32
        Calcium and spikes; the calcium at t = 0 is no spike, so ``s[0] = 0``.
    b, g, lam : float64, scalars or (K,)
        Baseline, decay, and penalty of the convex problem. Where even the most flexible fit leaves more than
        the noise, that fit is returned with lam = 0 (to rounding).

    Raises
    ------
    ParameterError, ArrayShapeError
        NaN or infinite samples (named), s_min or sizes that do not fit.
    """
    traces = checked_traces(y)
    K = len(traces)
    decay = tame_decay(per_trace(g, K, "g"), given=True)
    noise = noise_levels(sn, K)
    b = None if optimize_b else np.zeros(K)
    if checked_events(optimize_g):
        decay = refit_ar1(traces, decay, noise, b, optimize_g, b_nonneg=b_nonneg)
    c, s, level, lam = solve_ar1(
        traces,
        decay,
        noise,
        b,
        b_nonneg=b_nonneg,
        decimate=decimate,
        max_iter=max_iter,
        penalty=penalty,
        s_min=s_min,
    )
    return as_given(y, c, s, level, decay, lam)


def oasisAR1(
    y: Array, g: float | Array, lam: float | Array = 0, s_min: float | Array = 0
) -> tuple[Array, ...]:
    """Calcium and spikes of AR(1) traces for a given penalty: minimises |c - y|^2 / 2 + lam sum_t s_t.

    Parameters
    ----------
    y : array, (T,) or (K, T)
        Fluorescence less its baseline.
    g, lam : float or (K,)
        Decay per frame; penalty, in units of `y`.
    s_min : float or (K,)
        Smallest spike. 0 makes the problem convex and its solution exact; above 0 it is a greedy one.

    Returns
    -------
    c, s : (T,) or (K, T) float32
    """
    traces = checked_traces(y)
    K, xp = len(traces), arrays.xp(traces)
    smallest = per_trace(s_min, K, "s_min")
    if (smallest < 0).any():
        raise ParameterError(
            f"s_min={smallest.min():.4g}: without a noise level a smallest spike is 0 or more"
        )
    decay, penalty, least = (
        xp.asarray(x)
        for x in (
            tame_decay(per_trace(g, K, "g"), given=True),
            per_trace(lam, K, "lam"),
            smallest,
        )
    )
    c, s = xp.empty(traces.shape, "float32"), xp.empty(traces.shape, "float32")
    for rows in _tiles(traces):
        zero = xp.zeros(len(traces[rows]), "float64")
        backend.wing(traces).oasis.ar1(
            traces[rows], decay[rows], zero, penalty[rows], least[rows], c[rows], s[rows]
        )
    return as_given(y, c, s)


def solve_ar1(
    traces: Array,
    g: NDArray[np.float64],
    sn: NDArray[np.float64],
    b: NDArray[np.float64] | None,
    *,
    b_nonneg: bool = True,
    decimate: int = 1,
    max_iter: int = 5,
    penalty: int = 1,
    s_min: float = 0,
) -> tuple[Array, Array, Array, Array]:
    """`constrained_oasisAR1` of checked traces (K, T) on their device; `b` None is estimated, else kept.

    Returns c, s (K, T) float32 and b, lam (K,) float64 on the device of `traces`.
    """
    if penalty not in (0, 1):
        raise ParameterError(f"penalty={penalty}: 1 penalises the sum of spikes, 0 their number")
    K, T = traces.shape
    decimate, max_iter, s_min = (
        whole(decimate, "decimate", 1),
        whole(max_iter, "max_iter", 1),
        number(s_min, "s_min"),
    )
    if decimate > T:
        raise ParameterError(f"decimate={decimate}: traces of {T} frames can be averaged by 1 to {T}")
    xp, wing = arrays.xp(traces), backend.wing(traces)
    c, s = xp.empty((K, T), "float32"), xp.empty((K, T), "float32")
    level, lam = xp.asarray(np.zeros(K) if b is None else b.astype(float)), xp.empty(K, "float64")
    decay, theta = xp.asarray(g), xp.asarray(sn**2 * T)
    least = xp.asarray(s_min if s_min > 0 else abs(s_min) * sn * np.sqrt(1 - g)) + xp.zeros(K, "float64")
    steps = MOST_STEPS if b is not None else max_iter
    for rows in _tiles(traces):
        y = traces[rows]
        at = (decay[rows], theta[rows], level[rows])
        if decimate > 1:
            _decimated_search(y, g[rows], sn[rows], at[2], lam[rows], b is None, b_nonneg, steps, decimate)
            wing.oasis.ar1(y, at[0], at[2], lam[rows], xp.zeros(len(y), "float64"), c[rows], s[rows])
        else:
            wing.oasis.constrained_ar1(y, *at, b is None, b_nonneg, steps, c[rows], s[rows], lam[rows])
        if penalty == 0 and s_min == 0:
            wing.oasis.greedy_ar1(y, *at, c[rows], s[rows])
        elif penalty == 0:
            wing.oasis.ar1(y, at[0], at[2], xp.zeros(len(y), "float64"), least[rows], c[rows], s[rows])
    return c, s, level, lam


def _decimated_search(
    y: Array,
    g: NDArray,
    sn: NDArray,
    b: Array,
    lam: Array,
    free_b: bool,
    b_nonneg: bool,
    steps: int,
    k: int,
) -> None:
    """Baseline and penalty from means of k frames: calcium decays by g^k, noise is sn / sqrt(k); writes b and lam."""
    xp, n = arrays.xp(y), y.shape[1] // k
    coarse = backend.wing(y).oasis.block_means(y, k)
    c, s = xp.empty(coarse.shape, "float32"), xp.empty(coarse.shape, "float32")
    decay, theta = xp.asarray(g**k), xp.asarray(sn**2 / k * n)
    backend.wing(y).oasis.constrained_ar1(coarse, decay, theta, b, free_b, b_nonneg, steps, c, s, lam)
    lam *= xp.asarray((1 - g**k) / (1 - g))


def refit_ar1(
    traces: Array,
    g: NDArray[np.float64],
    sn: NDArray[np.float64],
    b: NDArray[np.float64] | None,
    events: int,
    *,
    b_nonneg: bool,
) -> NDArray[np.float64]:
    """`g` (K,) fitted anew to the `events` largest transients of traces on their device."""

    def few(roots: NDArray[np.float64]) -> tuple[Array, Array]:
        c, s, *_ = solve_ar1(traces, roots[:, 0], sn, b, b_nonneg=b_nonneg, penalty=0)
        return c, s

    return refit_roots(traces, np.stack([g, 0 * g], axis=1), b, events, few, b_nonneg=b_nonneg)[:, 0]


def tame_decay(g: NDArray[np.float64], *, given: bool) -> NDArray[np.float64]:
    """`g` clipped to [0, 0.999]; says so if it was `given`."""
    tame = np.clip(g, 0.0, LARGEST_DECAY)
    changed = np.flatnonzero(tame != g)
    if given and len(changed):
        warnings.warn(
            f"a decay of {g[changed[0]]:.4g} per frame (trace {changed[0]}; {len(changed)} in all) was clipped to "
            f"[0, {LARGEST_DECAY}]: calcium has to decay",
            stacklevel=3,
        )
    return tame


def _tiles(traces: Array) -> list[slice]:
    """Rows whose pools fit the memory budget together."""
    K, T = traces.shape
    rows = max(1, int(backend.budget() // (2 * SCRATCH_PER_SAMPLE * T)))
    return [slice(at, min(at + rows, K)) for at in range(0, K, rows)]
