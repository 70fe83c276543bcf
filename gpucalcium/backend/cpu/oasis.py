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

from gpucalcium.backend.device import threads

TOLERANCE = 1e-5  # of the residual sum of squares against its target
TAIL_ROUNDS = 4  # of lambda against baseline; each shrinks the difference by about 1 / (T (1 - g))
MOST_TRIALS = 60  # of the search: halving alone would settle the target to 1e-18
START_PERCENTILE, START_SAMPLES, START_ROUNDS = 0.15, 512, 12
MOST_LOWERINGS = 12  # doublings of the step below the smallest sample


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

    y, c, s (K, T); g in [0, 1), theta, b, lam (K,). At most `max_iter` accepted steps of the search.
    """
    scratch, starts = _scratch(y)
    _constrained_ar1(y, g, theta, b, free_b, b_nonneg, max_iter, c, s, lam, scratch, starts)


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
    scratch, starts = _scratch(y)
    _ar1(y, g, b, lam, s_min, c, s, scratch, starts)


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
    scratch, starts = _scratch(y)
    _greedy_ar1(y, g, theta, b, c, s, scratch, starts)


def _scratch(y):
    """Two stacks of pools for each thread: v, w, g^l as float64, and start times."""
    workers = max(1, min(threads(), len(y)))
    return np.empty((workers, 2, 3, y.shape[1])), np.empty((workers, 2, y.shape[1]), np.int64)


@nb.njit(parallel=True, nogil=True, cache=True)
def _constrained_ar1(y, g, theta, b, free_b, b_nonneg, max_iter, c, s, lam, scratch, starts):
    workers = len(scratch)
    for worker in nb.prange(workers):
        for k in range(worker, len(y), workers):
            b[k], lam[k] = _constrain(
                y[k],
                g[k],
                theta[k],
                b[k],
                free_b,
                b_nonneg,
                max_iter,
                c[k],
                s[k],
                scratch[worker],
                starts[worker],
            )


@nb.njit(parallel=True, nogil=True, cache=True)
def _ar1(y, g, b, lam, s_min, c, s, scratch, starts):
    workers = len(scratch)
    for worker in nb.prange(workers):
        for k in range(worker, len(y), workers):
            _decay_pools(
                y[k], g[k], b[k], lam[k], s_min[k], c[k], s[k], scratch[worker, 0], starts[worker, 0]
            )


@nb.njit(parallel=True, nogil=True, cache=True)
def _greedy_ar1(y, g, theta, b, c, s, scratch, starts):
    workers = len(scratch)
    for worker in nb.prange(workers):
        for k in range(worker, len(y), workers):
            _insert_spikes(y[k], g[k], theta[k], b[k], c[k], s[k], scratch[worker, 0], starts[worker])


@nb.njit(inline="always")
def _push(pools, start, n, v, w, gl, t):
    """Add a pool to the stack of n, merging with those below it; returns the new n.

    A bottom pool that would start at or below 0 is dropped: calcium is 0 up to there, whatever follows.
    """
    while n > 0 and pools[0, n - 1] * pools[2, n - 1] * w > v * pools[1, n - 1]:
        n -= 1
        below = pools[2, n]
        v = pools[0, n] + below * v
        w = pools[1, n] + below * below * w
        gl = below * gl
        t = start[n]
    if n == 0 and v <= 0:
        return 0
    pools[0, n], pools[1, n], pools[2, n], start[n] = v, w, gl, t
    return n + 1


@nb.njit
def _build(y, beta, g, pools, start):
    """Pools of y - beta, from single samples."""
    n = 0
    for t in range(len(y)):
        n = _push(pools, start, n, y[t] - beta, 1.0, g, t)
    return n


@nb.njit
def _raise_level(pools, start, n, rise, g, raised, raised_start):
    """The pools after beta has grown by `rise` (>= 0: pools then merge and never split)."""
    m = 0
    for i in range(n):
        fall = rise * (1 - pools[2, i]) / (1 - g)
        m = _push(raised, raised_start, m, pools[0, i] - fall, pools[1, i], pools[2, i], start[i])
    return m


@nb.njit(error_model="numpy")
def _measure(pools, n, g, beta, T, y1, y2, b, free_b, b_floor):
    """Baseline, lambda and residual sum of squares of the pools at level beta, from sums over pools alone.

    Also the tail: from pool `last` to the end runs one pool that starts at `tail`, since the last sample
    bears the extra penalty lambda g. And how the residual sum of squares grows with beta while the pools
    stay as they are: rss + 2 slope d + curvature d^2.
    """
    inverse = 1 / (1 - g)
    z1, z2 = y1 - T * beta, y2 - 2 * beta * y1 + T * beta * beta  # sums of y - beta and of its squares
    sum_c = explained = phi = 0.0
    for i in range(n):
        a, ones = pools[0, i] / pools[1, i], (1 - pools[2, i]) * inverse
        sum_c += a * ones
        explained += a * pools[0, i]
        phi += ones * ones / pools[1, i]
    residual, rest, last, tail = z1 - sum_c, z2 - explained, n, 0.0
    slope = curvature = along = 0.0
    held = not free_b
    if free_b:
        b, held = _baseline(beta + residual / T, b_floor)
    for _ in range(TAIL_ROUNDS if n > 0 else 0):
        penalty = max((beta - b) * inverse, 0.0)
        last, v, w, gl = n, 0.0, 0.0, 1.0
        body_c, body_explained, body_phi = sum_c, explained, phi
        while last == n or (
            last > 0 and pools[0, last - 1] * pools[2, last - 1] * w > (v - penalty * gl) * pools[1, last - 1]
        ):
            last -= 1
            below = pools[2, last]
            a, ones = pools[0, last] / pools[1, last], (1 - below) * inverse
            body_c -= a * ones
            body_explained -= a * pools[0, last]
            body_phi -= ones * ones / pools[1, last]
            v, w, gl = pools[0, last] + below * v, pools[1, last] + below * below * w, below * gl
        tail, ones = max((v - penalty * gl) / w, 0.0), (1 - gl) * inverse
        residual = z1 - body_c - tail * ones
        rest = z2 - body_explained - 2 * tail * v + tail * tail * w
        if free_b:
            b, held = _baseline(beta + residual / T, b_floor)
        growth = inverse if held else (1 - phi / T) * inverse  # of lambda with beta
        fall = (ones + gl * growth) / w if tail > 0 else 0.0  # of the tail's start with beta
        slope = (beta - b) * body_phi + fall * (v - tail * w + (beta - b) * ones)
        curvature, along = body_phi + fall * fall * w, body_phi + fall * ones
    if not held:
        curvature -= along * along / T
    rss = rest + 2 * (beta - b) * residual + (beta - b) ** 2 * T
    return b, (beta - b) * inverse, rss, slope, curvature, last, tail


@nb.njit(inline="always")
def _baseline(b, b_floor):
    """The baseline and whether its bound holds it."""
    return (b_floor, True) if b < b_floor else (b, False)


@nb.njit(error_model="numpy")
def _constrain(y, g, theta, b, free_b, b_nonneg, max_iter, c, s, scratch, starts):
    """One trace of `constrained_ar1`: searches the level beta = b + lambda (1 - g) where the residual has theta.

    Returns b and lambda. All levels are relative to the first sample, so that sums of squares keep their digits.
    """
    T = len(y)
    origin = np.float64(y[0])
    y1 = y2 = smallest = largest = 0.0
    for t in range(T):
        z = y[t] - origin
        y1 += z
        y2 += z * z
        smallest, largest = min(smallest, z), max(largest, z)
    b -= origin
    b_floor = -origin if b_nonneg else -np.inf
    beta = max(_low_percentile(y, origin, smallest, largest), b_floor) if free_b else b
    h = 0  # the stack in use: the other one takes the pools of a trial
    n = _build(y, origin + beta, g, scratch[h], starts[h])
    now = _measure(scratch[h], n, g, beta, T, y1, y2, b, free_b, b_floor)
    room, beyond = np.inf, np.inf  # a step known to be too far, and its residual sum of squares
    lowered = 0
    while free_b and now[2] > theta * (1 + TOLERANCE) and beta > b_floor and lowered < MOST_LOWERINGS:
        room, beyond = beta, now[2]
        further = smallest - (2.0**lowered - 1) * (largest - smallest)
        beta = max(min(beta, further), b_floor)
        room -= beta
        n = _build(y, origin + beta, g, scratch[h], starts[h])
        now = _measure(scratch[h], n, g, beta, T, y1, y2, b, free_b, b_floor)
        lowered += 1
    accepted = 0
    for _ in range(MOST_TRIALS):
        if n == 0 or accepted >= max_iter or now[2] >= theta * (1 - TOLERANCE):
            break
        step = _step(now[2], now[3], now[4], theta, room, beyond, largest - beta)
        m = _raise_level(scratch[h], starts[h], n, step, g, scratch[1 - h], starts[1 - h])
        then = _measure(scratch[1 - h], m, g, beta + step, T, y1, y2, b, free_b, b_floor)
        if then[2] > theta * (1 + TOLERANCE):
            room, beyond = step, then[2]
            continue
        h, n, now = 1 - h, m, then
        beta += step
        room -= step
        accepted += 1
    _write(scratch[h], starts[h], n, now[5], now[6], g, c, s)
    return now[0] + origin, now[1]


@nb.njit(error_model="numpy")
def _step(rss, slope, curvature, theta, room, beyond, most):
    """Rise of beta that should bring the residual sum of squares to theta.

    Exact while no pools merge; within a bracket, by the parabola through its far end.
    """
    missing = theta - rss
    if room < np.inf:
        curvature = (beyond - rss - 2 * slope * room) / (room * room)
    root = np.sqrt(max(slope * slope + curvature * missing, 0.0))
    step = missing / (slope + root) if slope + root > 0 else most
    return min(max(step, 0.05 * room), 0.95 * room) if room < np.inf else step


@nb.njit
def _low_percentile(y, origin, smallest, largest):
    """About the 15th percentile of y - origin: every so many samples, to 1/4096 of the range."""
    stride = max(1, len(y) // START_SAMPLES)
    wanted = START_PERCENTILE * ((len(y) + stride - 1) // stride)
    low, high = smallest, largest
    for _ in range(START_ROUNDS):
        middle = 0.5 * (low + high)
        below = 0
        for t in range(0, len(y), stride):
            below += y[t] - origin < middle
        if below > wanted:
            high = middle
        else:
            low = middle
    return low


@nb.njit
def _write(pools, start, n, last, tail, g, c, s):
    """Calcium and spikes of pools 0..last-1 and of the tail that starts where pool `last` does."""
    c[:] = 0
    s[:] = 0
    for i in range(min(last + 1, n)):
        a = pools[0, i] / pools[1, i] if i < last else tail
        end = start[i + 1] if i < last else len(c)
        before = np.float64(c[start[i] - 1]) if start[i] > 0 else 0.0
        if start[i] > 0:
            s[start[i]] = a - g * before
        for t in range(start[i], end):
            c[t] = a
            a *= g


@nb.njit(error_model="numpy")
def _decay_pools(y, g, b, lam, s_min, c, s, pools, start):
    """One trace of `ar1`: pools merge unless the spike between them is s_min or more; too small ones are cleared."""
    T = len(y)
    level = b + lam * (1 - g)
    n = 0
    for i in range(T):
        v, w, gl, t = y[i] - level - (lam * g if i == T - 1 else 0.0), 1.0, g, i
        while n > 0 and pools[0, n - 1] / pools[1, n - 1] * pools[2, n - 1] + s_min > v / w:
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
def _insert_spikes(y, g, theta, b, c, s, pools, starts):
    """One trace of `greedy_ar1`."""
    T = len(y)
    tails, powers, order = pools[0], pools[1], np.argsort(-s)  # tails[t] = sum_j g^j (y - b)_{t+j}
    tail, power, squares = 0.0, 1.0, 0.0
    for t in range(T - 1, -1, -1):
        tail = (y[t] - b) + g * tail
        tails[t] = tail
        squares += (y[t] - b) ** 2
    for t in range(T):
        powers[t] = power
        power *= g
    start, n = starts[0], 1
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
