"""Time constants fitted anew to the largest transients of each trace.

Friedrich, Zhou & Paninski 2017, PLoS Comput. Biol. 13:e1005423, section on hyperparameters; which spikes are fitted,
and why, is in docs/theory/deconvolution.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, arrays

ROUNDS = 8  # of spikes and time constants in turn
SETTLED = 1e-4  # change of the roots of a trace that ends its rounds
SCRATCH_PER_SAMPLE = 10 * 8 + 4 + 4 * 4  # bytes: rows of the least squares, spikes allowed, data and results
BEFORE = 3  # frames of a stretch before its spike
SIZEABLE = (
    0.15  # of the spike of a stretch: of calcium that rises, smaller ones would stand in for a wrong rise
)
DECAYS = 4.0  # time constants of a stretch
SHORTEST = 16  # frames of a stretch
REACH = 2.5  # factor by which one round may change a time constant
GOLDEN_STEPS = 17  # narrow that down to 5e-4 of it: 0.618^17 2 ln(2.5)
GOLDEN = (np.sqrt(5) - 1) / 2
FASTEST, SLOWEST = 0.001, 0.999  # bounds of a root

FASTEST_LOG, SLOWEST_LOG = (float(np.log(-1 / np.log(root))) for root in (FASTEST, SLOWEST))

FewSpikes = Callable[[NDArray[np.float64]], tuple[Array, Array]]
"""Calcium and the few spikes of all traces for roots (K, 2)."""


def refit_roots(
    traces: Array,
    roots: NDArray[np.float64],
    b: NDArray[np.float64] | None,
    events: int,
    few: FewSpikes,
    *,
    b_nonneg: bool,
) -> NDArray[np.float64]:
    """Roots (K, 2), slower first, that fit the `events` largest transients of each trace best.

    In turns, `few` finds few and large spikes for the roots, and the roots are moved to the least squares of
    stretches of the trace about the largest of them, sizes of spikes refitted and their times kept. A fast root of 0
    (AR(1)) stays 0. A baseline `b` of None is the mean of what calcium leaves. A trace without spikes keeps its roots.
    """
    xp, roots = arrays.xp(traces), roots.copy()
    sizeable = SIZEABLE if (roots[:, 1] > 0).any() else 0.0
    going = np.ones(len(roots), bool)
    for _ in range(ROUNDS):
        c, s = few(roots)
        if b is None:
            level = (traces - c).mean(axis=1, dtype="float64")
            level = xp.maximum(level, 0) if b_nonneg else level
        else:
            level = xp.asarray(b)
        fitted = roots.copy()
        lengths = _stretch_lengths(roots[:, 0], traces.shape[1])
        for length in np.unique(lengths[going]):
            alike = np.flatnonzero(going & (lengths == length))
            tile = max(1, int(backend.budget() // (2 * SCRATCH_PER_SAMPLE * events * length)))
            for rows in np.split(alike, range(tile, len(alike), tile)):
                part = xp.asarray(rows)
                stretches = _Stretches(traces[part], s[part], level[part], events, int(length), sizeable)
                fitted[rows] = stretches.best_roots(roots[rows])
        going = np.abs(fitted - roots).max(axis=1) >= SETTLED
        roots = fitted
        if not going.any():
            break
    return roots


def _stretch_lengths(decay: NDArray[np.float64], T: int) -> NDArray[np.int64]:
    """Frames of a stretch, from a ladder of powers of 2, so that traces of all kinds are few batches."""
    wanted = np.maximum(-DECAYS / np.log(np.maximum(decay, FASTEST)), SHORTEST)
    return np.minimum(2 ** np.ceil(np.log2(wanted)).astype(np.int64) + BEFORE, T)


class _Stretches:
    """Stretches of K traces about the largest spikes of each."""

    def __init__(self, traces: Array, s: Array, b: Array, events: int, length: int, sizeable: float) -> None:
        xp = arrays.xp(traces)
        K, T = traces.shape
        n = min(events, T)
        largest = xp.argsort(-s, axis=1)[:, :n]
        own = xp.arange(K)[:, None]
        self.counts = (s[own, largest] > 0).astype("float64")
        start = xp.clip(largest - BEFORE, 0, T - length)
        frames = start[:, :, None] + xp.arange(length)
        self.y = xp.ascontiguousarray(traces[own[:, :, None], frames].reshape(K * n, length))
        sizes = s[own[:, :, None], frames]
        least = sizeable * s[own, largest][:, :, None]
        self.spikes = (sizes > least).astype("uint8").reshape(K * n, length)
        self.spikes[:, 0] = 1  # what calcium there is from before
        self.b = xp.ascontiguousarray(xp.stack([b] * n, axis=1).reshape(-1))
        self.c, self.s = (xp.empty(self.y.shape, "float32") for _ in range(2))
        self.shape = (K, n)

    def best_roots(self, roots: NDArray[np.float64]) -> NDArray[np.float64]:
        """The roots of least squares, the slower and then the faster; those of traces without spikes as they are."""
        found = self._golden(roots, 0)
        if (roots[:, 1] > 0).any():
            found = self._golden(found, 1)
        any_spikes = backend.to_numpy(self.counts.sum(axis=1)) > 0
        return np.where(any_spikes[:, None], found, roots)

    def _golden(self, roots: NDArray[np.float64], which: int) -> NDArray[np.float64]:
        """Golden-section search of one root of all traces at once, in the logarithm of its time constant."""
        slow, fast = _log_time_constants(roots[:, 0]), _log_time_constants(roots[:, 1])
        middle = (slow, fast)[which]
        least, most = (fast, SLOWEST_LOG) if which == 0 else (FASTEST_LOG, slow)  # the slower root stays that
        low = np.maximum(middle - np.log(REACH), least)
        high = np.maximum(np.minimum(middle + np.log(REACH), most), low)
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        at_left, at_right = self._cost(roots, which, left), self._cost(roots, which, right)
        for _ in range(GOLDEN_STEPS):
            lower = at_left < at_right
            low, high = np.where(lower, low, left), np.where(lower, right, high)
            fresh = np.where(lower, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
            cost = self._cost(roots, which, fresh)
            left, right = np.where(lower, fresh, right), np.where(lower, left, fresh)
            at_left, at_right = np.where(lower, cost, at_right), np.where(lower, at_left, cost)
        return _replaced(roots, which, (low + high) / 2)

    def _cost(
        self, roots: NDArray[np.float64], which: int, log_tau: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Residual sum of squares of each trace's stretches with one root replaced."""
        xp, (K, n) = arrays.xp(self.y), self.shape
        tried = _replaced(roots, which, log_tau)
        g = np.repeat(np.stack([tried.sum(axis=1), -tried.prod(axis=1)], axis=1), n, axis=0)
        backend.wing(self.y).onnls.nnls_ar2(
            self.y, xp.asarray(g), self.b, 0 * self.b, self.spikes, 1e-9, False, self.c, self.s
        )
        residual = self.y - self.c - self.b[:, None]
        squares = (residual * residual).sum(axis=1, dtype="float64").reshape(K, n)
        return backend.to_numpy((squares * self.counts).sum(axis=1))


def _log_time_constants(roots: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(-1 / np.log(np.clip(roots, FASTEST, SLOWEST)))


def _replaced(roots: NDArray[np.float64], which: int, log_tau: NDArray[np.float64]) -> NDArray[np.float64]:
    """`roots` with that of a time constant in place of one; one that is 0 stays 0."""
    out = roots.copy()
    out[:, which] = np.where(roots[:, which] > 0, np.exp(-np.exp(-log_tau)), roots[:, which])
    return out
