"""Spikes and calcium of AR(2) traces, which rise before they decay.

A rough AR(1) solution (`oasis`) tells the baseline, the penalty and where spikes can be; there they are
found by non-negative least squares, exactly and over the whole trace (Friedrich, Zhou & Paninski 2017,
PLoS Comput. Biol. 13:e1005423; docs/theory/deconvolution.md).
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.deconvolution._ar2_fit import AR2Fit, Frames, slower_root
from gpucalcium.deconvolution._refit import refit_roots
from gpucalcium.deconvolution._signals import (
    as_given,
    checked_events,
    checked_traces,
    coefficients,
    noise_levels,
    number,
    whole,
)
from gpucalcium.deconvolution.oasis import LARGEST_DECAY
from gpucalcium.errors import ParameterError

SCRATCH_PER_SAMPLE = (
    10 * 8 + 4 + 5 * 8
)  # bytes: rows of the least squares, masks, coarse solution and results
SHORTEST_WINDOW, WINDOW_DECAYS, SHIFT = (
    200,
    5,
    100,
)  # frames, time constants, frames: windows if only one is given
ROUNDING = 1e-9  # of a root that is one of two alike, or at the bound: nothing to warn of
FASTEST_START = 0.05  # of the slower root: where the search for the rise starts if there is none


def constrained_oasisAR2(
    y: Array,
    g: Array,
    sn: float | Array,
    optimize_b: bool = True,
    b_nonneg: bool = True,
    optimize_g: int = 0,
    decimate: int = 5,
    shift: int = 100,
    window: int | None = None,
    tol: float = 1e-9,
    max_iter: int = 1,
    penalty: int = 1,
    s_min: float = 0,
) -> tuple[Array, Array, Array, Array, Array]:
    """Sparse calcium of AR(2) traces whose residual has the variance of the noise, about or (`max_iter`) exactly.

    Parameters
    ----------
    y : array, (T,) or (K, T)
        Fluorescence, in any unit.
    g : (2,) or (K, 2)
        Coefficients: s_t = c_t - g_1 c_{t-1} - g_2 c_{t-2}.
    sn : float or (K,)
        Noise standard deviation, in units of `y`.
    optimize_b, b_nonneg : bool
        Estimate the baseline (else it is 0); keep it at 0 or above.
    optimize_g : int
        Fit `g` anew to this many of the largest transients (at most eight rounds). 0: keep it.
    decimate : int, frames
        Penalty and baseline come from an AR(1) solution of means of this many frames. 0: from the 15th percentile
        and the noise, and spikes may be anywhere.
    shift, window : int, frames
        By default the whole trace is solved at once, exactly. If `window` is given (or a `shift` other than 100), so
        many frames are solved at a time, the spikes of the first `shift` are kept, and the window moves on: close to
        the exact solution if it is several decay times long, and it needs less memory at a time. `window` is by
        default that of the original, 200 or five decay times, whichever is more.
    tol : float
        Non-negative least squares end where no further spike would lower the cost by more, per unit, than `tol`
        times the largest correlation of data and impulse response.
    max_iter : int
        1: one pass; the residual sum of squares then ends at 0.95 to 1.2 of its target. More: after it at most so many
        passes with spikes anywhere, which move penalty and baseline until the residual meets its target within 1e-4:
        the optimum of the convex problem (`kkt_residual` measures how near). 15 are enough.
    penalty : {1, 0}
        1: sum of spikes; 0: few and large spikes, refitted without penalty.
    s_min : float
        For `penalty` 0. 0: the largest spikes, as few as reach the noise level. > 0: spikes of this
        size or more. < 0: of ``-s_min * sn * sqrt(1 - d)``, d the slower root.

    Returns
    -------
    c, s : (T,) or (K, T) float32
        Calcium and spikes. What calcium there is at t = 0 decays by the slower root; it is no spike, so ``s[0] = 0``.
    b : float64, scalar or (K,)
    g : float64, (2,) or (K, 2)
    lam : float64, scalar or (K,)
        Penalty, moved against the last correction of the baseline so that b + lam (1 - g_1 - g_2) stays; after a
        single pass it can come out negative.

    Raises
    ------
    ParameterError, ArrayShapeError
        NaN or infinite samples (named), values or sizes that do not fit.
    """
    traces = checked_traces(y)
    K = len(traces)
    tame = tame_coefficients(coefficients(g, K, 2), given=True)
    noise = noise_levels(sn, K)
    b = None if optimize_b else np.zeros(K)
    if checked_events(optimize_g):
        tame = refit_ar2(traces, tame, noise, b, optimize_g, b_nonneg=b_nonneg)
    if (shift, window) != (SHIFT, None) and window is None:
        window = max(
            SHORTEST_WINDOW, int(-WINDOW_DECAYS / np.log(max(slower_root(tame).max(initial=0.0), 0.001)))
        )
    c, s, level, lam = solve_ar2(
        traces,
        tame,
        noise,
        b,
        b_nonneg=b_nonneg,
        decimate=decimate,
        frames=None if window is None else _frames(window, shift),
        tol=tol,
        max_iter=max_iter,
        penalty=penalty,
        s_min=s_min,
    )
    return as_given(y, c, s, level, tame, lam)


def solve_ar2(
    traces: Array,
    g: NDArray[np.float64],
    sn: NDArray[np.float64],
    b: NDArray[np.float64] | None,
    *,
    b_nonneg: bool = True,
    decimate: int = 5,
    frames: Frames | None = None,
    tol: float = 1e-9,
    max_iter: int = 1,
    penalty: int = 1,
    s_min: float = 0,
) -> tuple[Array, Array, Array, Array]:
    """`constrained_oasisAR2` of checked traces (K, T) on their device; `b` None is estimated, else kept.

    Returns c, s (K, T) float32 and b, lam (K,) float64 on the device of `traces`.
    """
    if penalty not in (0, 1):
        raise ParameterError(f"penalty={penalty}: 1 penalises the sum of spikes, 0 their number")
    if not 0 <= number(tol, "tol") < 1:
        raise ParameterError(f"tol={tol}: expected 0 <= tol < 1")
    decimate, max_iter, s_min = (
        whole(decimate, "decimate", 0),
        whole(max_iter, "max_iter", 1),
        number(s_min, "s_min"),
    )
    K, T = traces.shape
    xp = arrays.xp(traces)
    c, s = xp.empty((K, T), "float32"), xp.empty((K, T), "float32")
    baseline, lam = xp.empty(K, "float64"), xp.empty(K, "float64")
    rows = max(1, int(backend.budget() // (2 * SCRATCH_PER_SAMPLE * T)))
    for at in range(0, K, rows):
        part = slice(at, min(at + rows, K))
        given = None if b is None else b[part]
        fit = AR2Fit(
            traces[part],
            g[part],
            sn[part],
            given,
            b_nonneg=b_nonneg,
            decimate=decimate,
            frames=frames,
            tol=tol,
        )
        fit.search(max_iter)
        if penalty == 0 and s_min == 0:
            fit.keep_fewest()
        elif penalty == 0:
            unit = abs(s_min) * sn[part] * np.sqrt(1 - slower_root(g[part]))
            fit.keep_above(np.full(len(unit), s_min) if s_min > 0 else unit)
        c[part], s[part], baseline[part], lam[part] = fit.c, fit.s, fit.b, fit.lam
    return c, s, baseline, lam


def refit_ar2(
    traces: Array,
    g: NDArray[np.float64],
    sn: NDArray[np.float64],
    b: NDArray[np.float64] | None,
    events: int,
    *,
    b_nonneg: bool,
) -> NDArray[np.float64]:
    """`g` (K, 2), real roots, fitted anew to the `events` largest transients of traces on their device."""
    slow = slower_root(g)
    fast = np.clip(g[:, 0] - slow, FASTEST_START * slow, slow**2)
    roots = np.stack([slow, fast], axis=1)

    def few(roots: NDArray[np.float64]) -> tuple[Array, Array]:
        c, s, *_ = solve_ar2(traces, _of_roots(roots), sn, b, b_nonneg=b_nonneg, penalty=0)
        return c, s

    return _of_roots(refit_roots(traces, roots, b, events, few, b_nonneg=b_nonneg))


def _of_roots(roots: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([roots.sum(axis=1), -roots.prod(axis=1)], axis=1)


def _frames(window: int, shift: int) -> Frames:
    frames = Frames(whole(window, "window", 2), whole(shift, "shift", 2))
    if frames.shift > frames.window:
        raise ParameterError(f"window={window}, shift={shift}: expected 2 <= shift <= window")
    return frames


def tame_coefficients(g: NDArray[np.float64], *, given: bool) -> NDArray[np.float64]:
    """`g` (K, 2) with complex roots replaced by their real part and roots clipped to [0, 0.999]; says so if `given`."""
    spread = np.sqrt((g[:, 0] ** 2 + 4 * g[:, 1]).astype(complex)).real
    roots = np.stack([(g[:, 0] + spread) / 2, (g[:, 0] - spread) / 2], axis=1)
    clipped = np.clip(roots, 0.0, LARGEST_DECAY)
    curved = g[:, 0] ** 2 + 4 * g[:, 1]
    changed = (clipped != roots).any(axis=1) | (curved < 0)
    tame = np.where(changed[:, None], np.stack([clipped.sum(axis=1), -clipped.prod(axis=1)], axis=1), g)
    noticed = (np.abs(clipped - roots) > ROUNDING).any(axis=1) | (curved < -ROUNDING)
    if given and noticed.any():
        k = int(np.flatnonzero(noticed)[0])
        warnings.warn(
            f"the roots of g={g[k]} (trace {k}; {int(noticed.sum())} in all) were made real and clipped to "
            f"[0, {LARGEST_DECAY}]: calcium has to decay without ringing",
            stacklevel=3,
        )
    return tame
