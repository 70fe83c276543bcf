"""Spike inference of AR(1) calcium by pools, one trace per thread. Twin: backend/cuda/oasis.py

A pool is a stretch [t, t + l) in which calcium only decays, c = a g^j. It holds v = sum_j g^j (y - beta)_{t+j},
w = sum_j g^{2j} and g^l; its best start is a = v / w. Neighbours merge while the decay of the left one
ends above the start of the right one (J. Friedrich, P. Zhou, L. Paninski 2017, PLoS Comput. Biol. 13:e1005423).
docs/theory/deconvolution.md derives the search for beta, lambda and the baseline.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._pools import (
    DONE,
    FIELDS,
    LAM,
    ORIGIN,
    PASS,
    SEGMENT,
    B,
    conclude,
    work,
)
from gpucalcium.backend.cpu._threads import share
from gpucalcium.backend.device import threads

FEW_SEGMENTS = 8  # of a trace: fewer are done before threads have met as often as a search has passes


def constrained_ar1(
    y: NDArray,
    g: NDArray[np.float64],
    theta: NDArray[np.float64],
    b: NDArray[np.float64],
    free_b: bool,
    b_nonneg: bool,
    max_iter: int,
    c: NDArray[np.float32],
    s: NDArray[np.float32],
    lam: NDArray[np.float64],
) -> None:
    """Least sum of spikes with residual sum of squares theta: writes c, s, lam and, if `free_b`, b.

    y, c, s (K, T); g in [0, 1), theta, b, lam (K,). At most `max_iter` accepted steps of the search. Threads share
    traces, or the segments of one long trace at a time; which of the two changes no bit.
    """
    if len(y) >= threads() or y.shape[1] < FEW_SEGMENTS * SEGMENT:

        def some(first: int, last: int) -> None:
            room = _workspace(y)
            _constrained_ar1(y, g, theta, b, free_b, b_nonneg, max_iter, c, s, lam, room, first, last)

        share(len(y), some)
        return
    for k in range(len(y)):
        search = (y[k], g[k], theta[k], b[k], free_b, b_nonneg, max_iter, c[k], s[k])
        b[k], lam[k] = _by_all_threads(*search, *_workspace(y))


def _by_all_threads(
    y, g, theta, b, free_b, b_nonneg, max_iter, c, s, search, ends, parts, pools, starts
) -> tuple[float, float]:
    """Baseline and penalty of one trace whose segments threads share."""
    while search[PASS] != DONE:
        share(
            len(parts),
            lambda first, last: _segments(y, g, search, ends, parts, pools, starts, c, s, first, last),
        )
        conclude(y, g, theta, b, free_b, b_nonneg, max_iter, search, ends, parts, pools, starts)
    return search[B] + search[ORIGIN], search[LAM]


def ar1(
    y: NDArray,
    g: NDArray[np.float64],
    b: NDArray[np.float64],
    lam: NDArray[np.float64],
    s_min: NDArray[np.float64],
    c: NDArray[np.float32],
    s: NDArray[np.float32],
) -> None:
    """Calcium and spikes of y - b for penalty `lam` and smallest spike `s_min`, all (K,); writes c, s (K, T)."""
    T = y.shape[1]

    def work(first, last):
        _ar1(y, g, b, lam, s_min, c, s, np.empty((3, T)), np.empty(T, np.int64), first, last)

    share(len(y), work)


def block_means(y: NDArray, k: int) -> NDArray:
    """Means of k samples of each trace (K, T): (K, T // k) of the dtype of `y`; what is left at the end is left out."""
    means = np.empty((len(y), y.shape[1] // k), y.dtype)
    share(len(y), lambda first, last: _block_means(y, k, means, first, last))
    return means


@nb.njit(nogil=True, cache=True)
def _block_means(y, k, means, first, last):
    for row in range(first, last):
        for i in range(means.shape[1]):
            total = 0.0
            for t in range(i * k, (i + 1) * k):
                total += y[row, t]
            means[row, i] = total / k


def greedy_ar1(
    y: NDArray,
    g: NDArray[np.float64],
    theta: NDArray[np.float64],
    b: NDArray[np.float64],
    c: NDArray[np.float32],
    s: NDArray[np.float32],
) -> None:
    """Few unpenalised spikes: those of `s` by decreasing size until the residual sum of squares is below theta.

    Overwrites c and s (K, T).
    """
    T = y.shape[1]

    def work(first, last):
        _greedy_ar1(y, g, theta, b, c, s, np.empty((2, T)), np.empty(T, np.int64), first, last)

    share(len(y), work)


def _workspace(y):
    """What a search knows, ends and sums of segments, and two stacks of pools: v, w, g^l, and start times."""
    T = y.shape[1]
    segments = -(-T // SEGMENT)
    stacks = np.empty((2, 3, T)), np.empty((2, T), np.int64)
    return np.zeros(FIELDS), np.zeros((2, segments, 2), np.int64), np.zeros((segments, 4)), *stacks


@nb.njit(nogil=True, cache=True)
def _constrained_ar1(y, g, theta, b, free_b, b_nonneg, max_iter, c, s, lam, workspace, first, last):
    search, ends, parts, pools, starts = workspace
    for k in range(first, last):
        search[:] = 0
        while search[PASS] != DONE:
            for segment in range(len(parts)):
                work(y[k], g[k], segment, search, ends, parts, pools, starts, c[k], s[k])
            conclude(
                y[k], g[k], theta[k], b[k], free_b, b_nonneg, max_iter, search, ends, parts, pools, starts
            )
        b[k], lam[k] = search[B] + search[ORIGIN], search[LAM]


@nb.njit(nogil=True, cache=True)
def _segments(y, g, search, ends, parts, pools, starts, c, s, first, last):
    for segment in range(first, last):
        work(y, g, segment, search, ends, parts, pools, starts, c, s)


@nb.njit(nogil=True, cache=True)
def _ar1(y, g, b, lam, s_min, c, s, pools, start, first, last):
    for k in range(first, last):
        _decay_pools(y[k], g[k], b[k], lam[k], s_min[k], c[k], s[k], pools, start)


@nb.njit(nogil=True, cache=True)
def _greedy_ar1(y, g, theta, b, c, s, work, start, first, last):
    for k in range(first, last):
        _insert_spikes(y[k], g[k], theta[k], b[k], c[k], s[k], work, start)


@nb.njit(error_model="numpy")
def _decay_pools(y, g, b, lam, s_min, c, s, pools, start):
    """One trace of `ar1`: pools merge unless the spike between them is s_min or more; too small ones are cleared.

    Rows of `pools` are v, w and g^l; spikes are compared times w of both pools, which spares the divisions.
    """
    T = len(y)
    level = b + lam * (1 - g)
    n = 0
    for i in range(T):
        v, w, gl, t = y[i] - level - (lam * g if i == T - 1 else 0.0), 1.0, g, i
        while n > 0 and (
            pools[0, n - 1] * pools[2, n - 1] * w + s_min * pools[1, n - 1] * w > v * pools[1, n - 1]
        ):
            n -= 1
            below = pools[2, n]
            v, w, gl, t = pools[0, n] + below * v, pools[1, n] + below * below * w, below * gl, start[n]
        pools[0, n], pools[1, n], pools[2, n], start[n] = v, w, gl, t
        n += 1
    c[:] = 0
    s[:] = 0
    before = 0.0
    for i in range(n):
        a = pools[0, i] / pools[1, i]
        if a < (s_min if i > 0 else 0.0) or a < 0:
            a = 0.0
        end = start[i + 1] if i + 1 < n else T
        if start[i] > 0:
            s[start[i]] = max(a - g * before, 0.0)
        for t in range(start[i], end):
            c[t] = a
            before = a
            a *= g


@nb.njit(error_model="numpy")
def _insert_spikes(y, g, theta, b, c, s, work, start):
    """One trace of `greedy_ar1`."""
    T = len(y)
    tails, powers, order = work[0], work[1], np.argsort(-s)  # tails[t] = sum_j g^j (y - b)_{t+j}
    tail, power, squares = 0.0, 1.0, 0.0
    for t in range(T - 1, -1, -1):
        tail = (y[t] - b) + g * tail
        tails[t] = tail
        squares += (y[t] - b) ** 2
    for t in range(T):
        powers[t] = power
        power *= g
    n = 1
    start[0] = 0
    rss = squares - _explained(tails, powers, g, 0, T)
    for k in order:
        if rss < theta or not s[k] > 0:
            break
        i = np.searchsorted(start[:n], k, side="right")
        left, right = start[i - 1], start[i] if i < n else T
        rss += _explained(tails, powers, g, left, right)
        rss -= _explained(tails, powers, g, left, k) + _explained(tails, powers, g, k, right)
        start[i + 1 : n + 1] = start[i:n].copy()
        start[i] = k
        n += 1
    c[:] = 0
    s[:] = 0
    before = 0.0
    for i in range(n):
        end = start[i + 1] if i + 1 < n else T
        v, w = _moments(tails, powers, g, start[i], end)
        a = max(v / w, 0.0)
        if i > 0:
            s[start[i]] = a - g * before
        for t in range(start[i], end):
            c[t] = a
            before = a
            a *= g


@nb.njit(error_model="numpy")
def _moments(tails, powers, g, left, right):
    """v and w of the pool from `left` to `right` (exclusive)."""
    T = len(tails)
    decayed = powers[right - left] if right - left < T else powers[T - 1] * g
    v = tails[left] - (decayed * tails[right] if right < T else 0.0)
    return v, (1 - decayed * decayed) / (1 - g * g)


@nb.njit
def _explained(tails, powers, g, left, right):
    """By how much a pool lowers the residual sum of squares."""
    v, w = _moments(tails, powers, g, left, right)
    return v * v / w if v > 0 else 0.0


def take_start(c: NDArray[np.float32], decay: NDArray[np.float64], c1: NDArray[np.float64]) -> None:
    """Move the calcium there is at t = 0, and its decay c1 decay^t, out of `c` (K, T) into `c1` (K,)."""
    _take_start(c, decay, c1)


@nb.njit(nogil=True, cache=True)
def _take_start(c, decay, c1):
    for k in range(len(c)):
        c1[k] = left = np.float64(c[k, 0])
        for t in range(c.shape[1]):
            if not left > 0:
                break
            c[k, t] = max(c[k, t] - left, 0.0)
            left *= decay[k]
