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
from gpucalcium.deconvolution._signals import checked_traces, coefficients, per_trace, shape_of
from gpucalcium.deconvolution.oasis import LARGEST_DECAY, solve_ar1
from gpucalcium.errors import NotSupportedError, ParameterError

SCRATCH_PER_SAMPLE = (
    10 * 8 + 4 + 5 * 8
)  # bytes: rows of the least squares, masks, coarse solution and results
LARGE_SPIKE = 0.1  # of the largest spike of the rough solution: what marks where spikes can be
MARK_FRAMES = 2  # ... and so many frames on either side
TOLERANCE = 1e-4  # of the residual sum of squares against its target
PRUNING = (
    0.7,
    0.8,
    0.9,
    1.0,
)  # of the smallest spike wanted: pruned in passes, as spikes grow when others go


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
    """Sparse calcium of AR(2) traces whose residual has about the variance of the noise.

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
    decimate : int, frames
        Penalty and baseline come from an AR(1) solution of means of this many frames. 0: from the 15th percentile
        and the noise, and spikes may be anywhere.
    max_iter : int
        1: one pass; the residual sum of squares then ends at 0.95 to 1.2 of its target. More: at most so many passes,
        which bring it to the target within 1e-4 where the candidate frames allow.
    penalty : {1, 0}
        1: sum of spikes; 0: few and large spikes, refitted without penalty.
    s_min : float
        For `penalty` 0. 0: the largest spikes, as few as reach the noise level. > 0: spikes of about this
        size or more. < 0: of ``-s_min * sn * sqrt(1 - d)``, d the slower root.
    optimize_g, shift, window, tol
        Not supported: whole traces are solved at once and to rounding, so there are no windows; values other
        than the defaults raise.

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
    NotSupportedError
        See the parameters.
    """
    if optimize_g:
        raise NotSupportedError(
            f"optimize_g={optimize_g}: refitting the time constants is not carried out yet; use optimize_g=0"
        )
    if (shift, window, tol) != (100, None, 1e-9):
        raise NotSupportedError(
            f"shift={shift}, window={window}, tol={tol}: not supported because whole traces are solved at once and to "
            "rounding; leave them out"
        )
    traces = checked_traces(y)
    K = len(traces)
    tame = tame_coefficients(coefficients(g, K, 2), given=True)
    c, s, b, lam = solve_ar2(
        traces,
        tame,
        per_trace(sn, K, "sn"),
        None if optimize_b else np.zeros(K),
        b_nonneg=b_nonneg,
        decimate=decimate,
        max_iter=max_iter,
        penalty=penalty,
        s_min=s_min,
    )
    single = len(shape_of(y)) == 1
    return tuple(backend.like(y, x[0] if single else x) for x in (c, s, b, tame, lam))


def solve_ar2(
    traces: Array,
    g: NDArray[np.float64],
    sn: NDArray[np.float64],
    b: NDArray[np.float64] | None,
    *,
    b_nonneg: bool = True,
    decimate: int = 5,
    max_iter: int = 1,
    penalty: int = 1,
    s_min: float = 0,
) -> tuple[Array, Array, NDArray[np.float64], NDArray[np.float64]]:
    """`constrained_oasisAR2` of checked traces (K, T) on their device; `b` None is estimated, else kept.

    Returns c, s (K, T) float32 on the device of `traces`, and b, lam (K,) float64 on the host.
    """
    if penalty not in (0, 1):
        raise ParameterError(f"penalty={penalty}: 1 penalises the sum of spikes, 0 their number")
    if decimate < 0 or max_iter < 1:
        raise ParameterError(
            f"decimate={decimate}, max_iter={max_iter}: expected decimate >= 0 and max_iter >= 1"
        )
    K, T = traces.shape
    xp = arrays.xp(traces)
    c, s = xp.empty((K, T), "float32"), xp.empty((K, T), "float32")
    baseline, lam = np.empty(K), np.empty(K)
    rows = max(1, int(backend.budget() // (2 * SCRATCH_PER_SAMPLE * T)))
    for at in range(0, K, rows):
        part = slice(at, min(at + rows, K))
        fit = _Fit(traces[part], g[part], sn[part], None if b is None else b[part], b_nonneg, decimate)
        fit.search(max_iter)
        if penalty == 0 and s_min == 0:
            fit.keep_fewest()
        elif penalty == 0:
            fit.keep_above(s_min if s_min > 0 else abs(s_min) * sn[part] * np.sqrt(1 - slower_root(g[part])))
        c[part], s[part], baseline[part], lam[part] = fit.c, fit.s, fit.b, fit.lam
    return c, s, baseline, lam


class _Fit:
    """Traces with where their spikes may be, and the current baseline, penalty, calcium and spikes."""

    def __init__(
        self,
        traces: Array,
        g: NDArray[np.float64],
        sn: NDArray[np.float64],
        b: NDArray[np.float64] | None,
        b_nonneg: bool,
        decimate: int,
    ) -> None:
        xp = arrays.xp(traces)
        self.traces, self.g, self.theta = traces, xp.asarray(g), sn**2 * traces.shape[1]
        self.free, self.b_nonneg = b is None, b_nonneg
        self.gain = 1 / (
            1 - g.sum(axis=1)
        )  # calcium that steady unit spikes would hold; lam / gain lowers the data
        self.c, self.s = xp.empty(traces.shape, "float32"), xp.empty(traces.shape, "float32")
        if decimate == 0:
            self.b, self.lam, self.allowed = self._plain_start(g, sn, b)
        else:
            self.b, self.lam, self.allowed = self._coarse_start(g, sn, b, min(decimate, traces.shape[1]))

    def _plain_start(
        self, g: NDArray[np.float64], sn: NDArray[np.float64], b: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Array]:
        xp = arrays.xp(self.traces)
        if b is None:
            fifteen = xp.full(len(self.traces), 15.0)
            b = self._bounded(
                backend.to_numpy(backend.wing(self.traces).quantile.percentile(self.traces, fifteen))
            )
        # norm of the impulse response: the standard deviation of the AR(2) process that unit white noise drives
        norm = np.sqrt((1 - g[:, 1]) / ((1 + g[:, 1]) * ((1 - g[:, 1]) ** 2 - g[:, 0] ** 2)))
        return b.astype(np.float64), 2 * sn * norm, xp.full(self.traces.shape, 1, "uint8")

    def _coarse_start(
        self, g: NDArray[np.float64], sn: NDArray[np.float64], b: NDArray[np.float64] | None, k: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Array]:
        """Baseline and penalty of AR(1) on means of k frames; spikes near the large ones of AR(1) at that penalty."""
        xp, wing = arrays.xp(self.traces), backend.wing(self.traces)
        K, T = self.traces.shape
        decay, n = slower_root(g), T // k
        coarse = xp.ascontiguousarray(self.traces[:, : n * k].reshape(K, n, k).mean(axis=2))
        _, _, level, lam = solve_ar1(coarse, decay**k, sn / np.sqrt(k), b, b_nonneg=self.b_nonneg)
        steady = lam * xp.asarray(1 - decay**k)
        wing.oasis.ar1(
            self.traces,
            xp.asarray(decay),
            level,
            steady / xp.asarray(1 - decay),
            xp.zeros(K, "float64"),
            self.c,
            self.s,
        )
        large = self.s > LARGE_SPIKE * self.s.max(axis=1, keepdims=True)
        allowed = large.astype("uint8")
        allowed[:, 0] = self.c[:, 0] > LARGE_SPIKE * self.s.max(axis=1)
        for lag in range(1, min(MARK_FRAMES, T - 1) + 1):
            allowed[:, lag:] |= large[:, :-lag].astype("uint8")
            allowed[:, :-lag] |= large[:, lag:].astype("uint8")
        return backend.to_numpy(level), backend.to_numpy(steady) * self.gain, allowed

    def search(self, max_iter: int) -> None:
        """Solve; then move the level b + lam / gain until the residual meets the noise: `max_iter` passes at most.

        Only the last two samples feel baseline and penalty apart from their level, so a second solution settles
        both there and makes the residual grow with the level alone.
        """
        level = self.b + self.lam / self.gain
        low, high = np.full(len(level), -np.inf), np.full(len(level), np.inf)
        step = np.maximum(np.abs(self.lam / self.gain), 1e-9)
        floor = -np.inf if self.free and not self.b_nonneg else np.zeros(len(level)) if self.free else self.b
        for i in range(max_iter):
            if i > 0:
                ratio = self._residual() / np.where(self.theta > 0, self.theta, 1)
                moving = np.abs(ratio - 1) > TOLERANCE
                if not moving.any():
                    break
                low, high = np.where(ratio < 1, level, low), np.where(ratio > 1, level, high)
                step = np.where(np.isfinite(low) & np.isfinite(high), step, 2 * step)
                middle = np.where(
                    np.isinf(high), low + step / 2, np.where(np.isinf(low), high - step / 2, (low + high) / 2)
                )
                level = np.maximum(np.where(moving, middle, level), floor)
                self.b = np.minimum(self.b, level)
                self.lam = (level - self.b) * self.gain
            for _ in range(1 if i == 0 else 2):
                self._solve(self.allowed, self.lam)
                self._refine_baseline()

    def keep_fewest(self) -> None:
        """The largest spikes, refitted without penalty: as few as bring the residual below the noise (by bisection)."""
        xp = arrays.xp(self.traces)
        rank = self._ranks()
        fewest, most = np.zeros(len(self.b), np.int64), backend.to_numpy((self.s > 0).sum(axis=1))
        chosen = self.s > 0
        while (fewest < most).any():
            middle = (fewest + most) // 2
            self._refit(chosen & (rank < xp.asarray(middle[:, None])))
            enough = self._residual() < self.theta
            fewest, most = (
                np.where(enough | (fewest >= most), fewest, middle + 1),
                np.where(enough, middle, most),
            )
        self._refit(chosen & (rank < xp.asarray(most[:, None])))

    def keep_above(self, s_min: float | NDArray[np.float64]) -> None:
        """Spikes of about `s_min` or more, refitted without penalty."""
        least = arrays.xp(self.traces).asarray(s_min + 0 * self.b)[:, None]
        for share in PRUNING:
            self._refit(self.s > share * least)

    def _refit(self, spikes: Array) -> None:
        """Calcium of the given spikes without penalty, and of what there was at t = 0."""
        allowed = spikes.astype("uint8")
        allowed[:, 0] = self.c[:, 0] > 0
        self._solve(allowed, 0 * self.lam)

    def _ranks(self) -> Array:
        """Place of each spike of a trace among them by decreasing size, from 0."""
        xp = arrays.xp(self.traces)
        return xp.argsort(xp.argsort(-self.s, axis=1), axis=1)

    def _solve(self, allowed: Array, lam: NDArray[np.float64]) -> None:
        xp = arrays.xp(self.traces)
        backend.wing(self.traces).onnls.nnls_ar2(
            self.traces, self.g, xp.asarray(self.b), xp.asarray(lam), allowed, self.c, self.s
        )

    def _refine_baseline(self) -> None:
        """The best baseline for the calcium, at the same level: what it gains the penalty loses."""
        if self.free:
            better = self._bounded(backend.to_numpy((self.traces - self.c).mean(axis=1, dtype="float64")))
            self.lam = self.lam - (better - self.b) * self.gain
            self.b = better

    def _residual(self) -> NDArray[np.float64]:
        xp = arrays.xp(self.traces)
        residual = self.traces - self.c - xp.asarray(self.b)[:, None]
        return backend.to_numpy((residual * residual).sum(axis=1, dtype="float64"))

    def _bounded(self, b: NDArray) -> NDArray[np.float64]:
        return np.maximum(b, 0).astype(np.float64) if self.b_nonneg else b.astype(np.float64)


def slower_root(g: NDArray[np.float64]) -> NDArray[np.float64]:
    """Larger root d of x^2 - g_1 x - g_2 for each row of `g` (K, 2), real: the decay per frame."""
    return (g[:, 0] + np.sqrt(np.maximum(g[:, 0] ** 2 + 4 * g[:, 1], 0))) / 2


def tame_coefficients(g: NDArray[np.float64], *, given: bool) -> NDArray[np.float64]:
    """`g` (K, 2) with complex roots replaced by their real part and roots clipped to [0, 0.999]; says so if `given`."""
    spread = np.sqrt((g[:, 0] ** 2 + 4 * g[:, 1]).astype(complex)).real
    roots = np.stack([(g[:, 0] + spread) / 2, (g[:, 0] - spread) / 2], axis=1)
    clipped = np.clip(roots, 0.0, LARGEST_DECAY)
    changed = (clipped != roots).any(axis=1) | (g[:, 0] ** 2 + 4 * g[:, 1] < 0)
    tame = np.where(changed[:, None], np.stack([clipped.sum(axis=1), -clipped.prod(axis=1)], axis=1), g)
    if given and changed.any():
        k = int(np.flatnonzero(changed)[0])
        warnings.warn(
            f"the roots of g={g[k]} (trace {k}; {int(changed.sum())} in all) were made real and clipped to "
            f"[0, {LARGEST_DECAY}]: calcium has to decay without ringing",
            stacklevel=3,
        )
    return tame
