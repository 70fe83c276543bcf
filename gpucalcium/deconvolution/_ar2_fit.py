"""The search for baseline, penalty and spikes of AR(2) traces: a batch at a time, all of it on their device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.deconvolution.oasis import solve_ar1

LARGE_SPIKE = 0.1  # of the largest spike of the rough solution: what marks where spikes can be
MARK_FRAMES = 2  # ... and so many frames on either side
TOLERANCE = 1e-4  # of the residual sum of squares against its target
LARGEST_STEP = 4.0  # times the last one, where the residual is not yet bracketed
PRUNING = (
    0.7,
    0.8,
    0.9,
    1.0,
)  # of the smallest spike wanted: pruned in passes, as spikes grow when others go
SEGMENT, MARGIN = (
    2048,
    256,
)  # samples that are solved at a time for a start, and those around them that are not kept
PENALTY_FLOOR = 1e-9  # of the noise: where the penalty is 0, the first step of the search needs a size


class Frames(NamedTuple):
    """How many frames are solved at once."""

    window: int
    """Frames in one problem."""
    shift: int
    """Frames whose spikes are kept before the next one."""


class AR2Fit:
    """Traces with where their spikes may be, and the current baseline, penalty, calcium and spikes."""

    def __init__(
        self,
        traces: Array,
        g: NDArray[np.float64],
        sn: NDArray[np.float64],
        b: NDArray[np.float64] | None,
        *,
        b_nonneg: bool,
        decimate: int,
        frames: Frames | None,
        tol: float,
    ) -> None:
        xp = arrays.xp(traces)
        self.traces, self.g, self.frames, self.tol = traces, g, frames, tol
        self.g_there, self.theta = xp.asarray(g), xp.asarray(sn**2 * traces.shape[1])
        self.free, self.b_nonneg = b is None, b_nonneg
        # calcium that steady unit spikes would hold; lam / gain lowers the data
        self.gain = xp.asarray(1 / (1 - g.sum(axis=1)))
        self.c, self.s = xp.empty(traces.shape, "float32"), xp.empty(traces.shape, "float32")
        self.none = xp.zeros(len(traces), "float64")
        if decimate == 0:
            self.b, self.lam, self.allowed = self._plain_start(sn, b)
        else:
            self.b, self.lam, self.allowed = self._coarse_start(sn, b, min(decimate, traces.shape[1]))

    def _plain_start(
        self, sn: NDArray[np.float64], b: NDArray[np.float64] | None
    ) -> tuple[Array, Array, Array]:
        xp, g = arrays.xp(self.traces), self.g
        if b is None:
            fifteen = xp.full(len(self.traces), 15.0)
            level = backend.wing(self.traces).quantile.percentile(self.traces, fifteen).astype("float64")
            level = xp.maximum(level, 0) if self.b_nonneg else level
        else:
            level = xp.asarray(b.astype(np.float64))
        # norm of the impulse response: the standard deviation of the AR(2) process that unit white noise drives
        norm = np.sqrt((1 - g[:, 1]) / ((1 + g[:, 1]) * ((1 - g[:, 1]) ** 2 - g[:, 0] ** 2)))
        return level, xp.asarray(2 * sn * norm), xp.full(self.traces.shape, 1, "uint8")

    def _coarse_start(
        self, sn: NDArray[np.float64], b: NDArray[np.float64] | None, k: int
    ) -> tuple[Array, Array, Array]:
        """Baseline and penalty of AR(1) on means of k frames; spikes near the large ones of AR(1) at that penalty."""
        xp, wing = arrays.xp(self.traces), backend.wing(self.traces)
        decay, coarse = slower_root(self.g), wing.oasis.block_means(self.traces, k)
        _, _, level, lam = solve_ar1(coarse, decay**k, sn / np.sqrt(k), b, b_nonneg=self.b_nonneg)
        steady = lam * xp.asarray(1 - decay**k)
        penalty = steady / xp.asarray(1 - decay)
        wing.oasis.ar1(self.traces, xp.asarray(decay), level, penalty, self.none, self.c, self.s)
        allowed = wing.onnls.near_large(self.c, self.s, LARGE_SPIKE, MARK_FRAMES)
        return level, steady * self.gain, allowed

    def search(self, max_iter: int) -> None:
        """Solve where spikes are likely; then anywhere, moving the level b + lam / gain until the residual meets theta.

        Only the last two samples feel baseline and penalty apart from their level, so a second solution settles
        both there and makes the residual grow with the level alone.
        """
        xp = arrays.xp(self.traces)
        self._solve(self.allowed, self.lam, warm=False)
        self._refine_baseline()
        if max_iter == 1:
            return
        self.allowed = xp.full(self.traces.shape, 1, "uint8")
        level = self.b + self.lam / self.gain
        floor = self.b if not self.free else self.none if self.b_nonneg else self.none - np.inf
        level = xp.maximum(level, floor)
        size = xp.maximum(
            abs(self.lam / self.gain), PENALTY_FLOOR * xp.sqrt(self.theta / self.traces.shape[1])
        )
        bracket = _Bracket(level, floor, size / 4)
        for _ in range(max_iter - 1):
            self.b = xp.minimum(self.b, level)
            self.lam = (level - self.b) * self.gain
            for _ in range(2 if self.free else 1):
                self._solve(self.allowed, self.lam, warm=True)
                self._refine_baseline()
            excess = self._residual() / xp.maximum(self.theta, 1e-300) - 1
            stays = bracket.settled(level, excess)
            if bool(stays.all()):
                break
            level = xp.where(stays, level, bracket.next(level, excess))

    def keep_fewest(self) -> None:
        """The largest spikes, refitted without penalty: as few as bring the residual below the noise (by bisection)."""
        xp = arrays.xp(self.traces)
        chosen, rank = self.s > 0, self._ranks()
        most = chosen.sum(axis=1)
        fewest = xp.zeros_like(most)
        for _ in range(int(self.traces.shape[1]).bit_length()):
            middle = (fewest + most) // 2
            self._refit(chosen & (rank < middle[:, None]))
            enough = self._residual() < self.theta
            going = fewest < most
            fewest = xp.where(going & ~enough, middle + 1, fewest)
            most = xp.where(going & enough, middle, most)
        self._refit(chosen & (rank < most[:, None]))

    def keep_above(self, s_min: NDArray[np.float64]) -> None:
        """Spikes of `s_min` (one a trace) or more, refitted without penalty."""
        least = arrays.xp(self.traces).asarray(s_min)[:, None]
        for share in PRUNING:
            self._refit(self.s > share * least)
        while bool(((self.s > 0) & (self.s < least)).any()):  # each round takes some away
            self._refit(self.s >= least)

    def _refit(self, spikes: Array) -> None:
        """Calcium of the given spikes without penalty, and of what there was at t = 0."""
        allowed = spikes.astype("uint8")
        allowed[:, 0] = self.c[:, 0] > 0
        self._solve(allowed, self.none, warm=False)

    def _ranks(self) -> Array:
        """Place of each spike of a trace among them by decreasing size, from 0."""
        xp = arrays.xp(self.traces)
        return xp.argsort(xp.argsort(-self.s, axis=1), axis=1)

    def _solve(self, allowed: Array, lam: Array, *, warm: bool) -> None:
        if self.frames is not None and self.frames.window < self.traces.shape[1]:
            self._solve_in_windows(allowed, lam, self.frames)
            return
        if not warm and self.traces.shape[1] >= 2 * (SEGMENT + 2 * MARGIN):
            self._start_from_segments(allowed, lam)
            warm = True
        backend.wing(self.traces).onnls.nnls_ar2(
            self.traces, self.g_there, self.b, lam, allowed, self.tol, warm, self.c, self.s
        )

    def _start_from_segments(self, allowed: Array, lam: Array) -> None:
        """Spikes, and calcium at t = 0, of segments that know nothing of each other: near the solution of the whole.

        Each is solved with the samples around it, whose spikes are dropped; what calcium there is at its beginning
        decays by the slower root. Only those that end with the trace bear the penalty of its last samples.
        """
        xp, (K, T), width = arrays.xp(self.traces), self.traces.shape, SEGMENT + 2 * MARGIN
        segments = -(-T // SEGMENT)
        first = np.clip(np.arange(segments) * SEGMENT - MARGIN, 0, T - width)
        frames = xp.asarray(first[:, None] + np.arange(width))
        y, may = self.traces[:, frames], allowed[:, frames]
        may[:, 1:, 0] = 1
        last = xp.asarray(first == T - width)
        penalty = xp.where(last, lam[:, None], 0.0)
        level = self.b[:, None] + (lam[:, None] - penalty) / self.gain[:, None]
        g = xp.stack([self.g_there] * segments, axis=1).reshape(-1, 2)
        c, s = (xp.empty((K * segments, width), "float32") for _ in range(2))
        backend.wing(y).onnls.nnls_ar2(
            y.reshape(-1, width),
            g,
            level.reshape(-1),
            penalty.reshape(-1),
            may.reshape(-1, width),
            self.tol,
            False,
            c,
            s,
        )
        time = np.arange(T)
        kept = xp.asarray(time // SEGMENT * width + time - first[time // SEGMENT])
        self.s[...] = s.reshape(K, -1)[:, kept]
        self.c[:, :1] = c.reshape(K, -1)[:, :1]

    def _solve_in_windows(self, allowed: Array, lam: Array, frames: Frames) -> None:
        """As `_solve`, a window at a time: what comes later bears on a spike only as far as its window reaches.

        A window begins one frame before the first that may spike, as calcium at its own beginning would decay by
        the slower root alone. All but the last one bear the penalty of samples that others follow.
        """
        xp, wing = arrays.xp(self.traces), backend.wing(self.traces)
        T, (window, shift) = self.traces.shape[1], frames
        level = self.b + lam / self.gain
        later, sooner = _free_decay(self.g, min(window + 1, T))
        later, sooner = xp.asarray(later), xp.asarray(sooner)
        for at in range(0, T, shift):
            first, end = max(at - 1, 0), min(at + window, T)
            last = end == T
            y = xp.ascontiguousarray(self.traces[:, first:end])
            may = xp.ascontiguousarray(allowed[:, first:end])
            past = 0.0
            if at > 0:
                may[:, 0] = 0
                past = (
                    later[:, : end - at] * self.c[:, at - 1 : at]
                    + sooner[:, : end - at] * self.c[:, at - 2 : at - 1]
                )
                y[:, 1:] -= past.astype(y.dtype)
            c, s = xp.empty(y.shape, "float32"), xp.empty(y.shape, "float32")
            b, penalty = (self.b, lam) if last else (level, self.none)
            wing.onnls.nnls_ar2(y, self.g_there, b, penalty, may, self.tol, False, c, s)
            kept = slice(at, T if last else at + shift)
            inside = slice(at - first, kept.stop - first)
            self.c[:, kept] = (c[:, at - first :] + past)[:, : kept.stop - at]
            self.s[:, kept] = s[:, inside]
            if last:
                return

    def _refine_baseline(self) -> None:
        """The best baseline for the calcium, at the same level: what it gains the penalty loses."""
        if self.free:
            wing = backend.wing(self.traces).onnls
            sums, _ = wing.residual_sums(self.traces, self.c, self.b)
            better = self.b + sums / self.traces.shape[1]
            better = arrays.xp(better).maximum(better, 0) if self.b_nonneg else better
            self.lam = self.lam - (better - self.b) * self.gain
            self.b = better

    def _residual(self) -> Array:
        return backend.wing(self.traces).onnls.residual_sums(self.traces, self.c, self.b)[1]


class _Bracket:
    """Root of an increasing function, one a trace, by secants inside a bracket (the Illinois rule) and beyond it."""

    def __init__(self, start: Array, floor: Array, step: Array) -> None:
        xp = arrays.xp(start)
        self.floor, self.step = floor, step
        self.low, self.high = xp.zeros_like(start) - np.inf, xp.zeros_like(start) + np.inf
        self.below, self.above = xp.zeros_like(start), xp.zeros_like(start)  # values at either end
        self.side = xp.zeros_like(start)  # of the last value: -1 below, 1 above

    def settled(self, x: Array, value: Array) -> Array:
        """Whether x is the root, or the lowest point there is and too high."""
        return (abs(value) <= TOLERANCE) | ((value > 0) & (x <= self.floor))

    def next(self, x: Array, value: Array) -> Array:
        """Where to look after `value` was found at x."""
        xp = arrays.xp(x)
        up = value > 0
        again = self.side == xp.where(up, 1.0, -1.0)  # the other end has stayed twice: it counts half
        self.below = xp.where(up, xp.where(again, self.below / 2, self.below), value)
        self.above = xp.where(up, value, xp.where(again, self.above, self.above))
        self.above = xp.where(~up & again, self.above / 2, self.above)
        self.low, self.high = xp.where(up, self.low, x), xp.where(up, x, self.high)
        self.side = xp.where(up, 1.0, -1.0)
        inside = xp.isfinite(self.low) & xp.isfinite(self.high)
        width = xp.where(inside, self.high - self.low, 0.0)
        fall = xp.where(self.above > self.below, self.above - self.below, 1.0)
        secant = xp.where(inside, self.low, 0.0) - width * self.below / fall
        beyond = x + xp.where(up, -self.step, self.step)
        self.step = xp.where(inside, self.step, LARGEST_STEP * self.step)
        return xp.maximum(xp.where(inside, secant, beyond), self.floor)


def slower_root(g: NDArray[np.float64]) -> NDArray[np.float64]:
    """Larger root d of x^2 - g_1 x - g_2 for each row of `g` (K, 2), real: the decay per frame."""
    return (g[:, 0] + np.sqrt(np.maximum(g[:, 0] ** 2 + 4 * g[:, 1], 0))) / 2


def _free_decay(g: NDArray[np.float64], n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Calcium of n frames that follow a sample of 1 after one of 0, and those that follow 0 after 1: (K, n) each."""
    h = np.ones((len(g), n + 1))
    h[:, 1:2] = g[:, :1]
    for j in range(2, n + 1):
        h[:, j] = g[:, 0] * h[:, j - 1] + g[:, 1] * h[:, j - 2]
    return h[:, 1:], g[:, 1:] * h[:, :-1]
