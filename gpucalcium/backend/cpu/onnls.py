"""Spikes of AR(2) calcium by non-negative least squares, one trace per thread. Twin: backend/cuda/onnls.py

With spikes at given times the best calcium follows from a recursion over spikes alone: a spike frees its own
sample, so a stretch between spikes hangs on the one before only through the last sample there. The set of
times grows and shrinks by Lawson & Hanson's rules (1974, ch. 23), many far-apart spikes at a time. What calcium there
is at t = 0 came from spikes before: it decays by the slower root, and is handled as a spike of that shape.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._threads import share

NO_DECAY = 1e-30  # a slower root below which what there is at t = 0 is gone at t = 1
MOST_ROUNDS = 1000  # of additions; a hundred is rare
APART = 8  # frames: spikes added in one round are local maxima of the gradient over this distance
H, HH, HG, W, C, GRADIENT, OLD, NEW, FREE, BOUND = range(10)  # rows of the scratch of a thread


def nnls_ar2(
    y: NDArray,
    g: NDArray[np.float64],
    b: NDArray[np.float64],
    lam: NDArray[np.float64],
    allowed: NDArray[np.uint8],
    tolerance: float,
    warm: bool,
    c: NDArray[np.float32],
    s: NDArray[np.float32],
) -> None:
    """Calcium and spikes that minimise |y - b - c|^2 / 2 + lam sum s over s >= 0, s = 0 where not `allowed`.

    s_t = c_t - g_1 c_{t-1} - g_2 c_{t-2}; where t = 0 is allowed, c may start at any c_0 >= 0 that decays by the slower
    root. y, allowed, c, s (K, T); g (K, 2) with real roots, b, lam (K,). A gradient below `tolerance` times the largest
    correlation of data and impulse response counts as zero. If `warm`, the search starts from the spikes in s, of which
    all must be allowed, and the start in c. Writes c and s, s = 0 at t = 0.
    """

    def work(first, last):
        scratch, times = np.empty((10, y.shape[1] + 2)), np.empty(y.shape[1] + 2, np.int64)
        _nnls_ar2(y, g, b, lam, allowed, tolerance, warm, c, s, scratch, times, first, last)

    share(len(y), work)


def gradient_ar2(
    y: NDArray,
    g: NDArray[np.float64],
    b: NDArray[np.float64],
    lam: NDArray[np.float64],
    c: NDArray[np.float32],
    gradient: NDArray[np.float64],
) -> None:
    """By how much a spike at t would lower the cost of `nnls_ar2` per unit: writes `gradient` (K, T).

    y, c (K, T); g (K, 2), b, lam (K,). At t = 0 the spike is one that decays by the slower root.
    """
    share(len(y), lambda first, last: _gradients(y, g, b, lam, c, gradient, first, last))


def near_large(c: NDArray[np.float32], s: NDArray[np.float32], least: float, reach: int) -> NDArray[np.uint8]:
    """1 within `reach` samples of spikes above `least` times the largest of the trace, else 0: (K, T).

    The first sample is marked if c, not s, is above that there.
    """
    marks = np.empty(c.shape, np.uint8)
    share(len(c), lambda first, last: _near_large(c, s, np.float32(least), reach, marks, first, last))
    return marks


def residual_sums(
    y: NDArray, c: NDArray[np.float32], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum over t of y - c - b, and of its square: (K,), (K,)."""
    sums, squares = np.empty(len(y)), np.empty(len(y))
    share(len(y), lambda first, last: _residual_sums(y, c, b, sums, squares, first, last))
    return sums, squares


@nb.njit(nogil=True, cache=True)
def _near_large(c, s, least, reach, marks, first, last):
    T = c.shape[1]
    for k in range(first, last):
        bound = np.float32(0)
        for t in range(T):
            bound = max(bound, s[k, t])
        bound *= least
        marked = 0  # samples before this one are written
        for t in range(T):
            if s[k, t] > bound:
                low, high = max(t - reach, marked), min(t + reach + 1, T)
                marks[k, marked:low] = 0
                marks[k, low:high] = 1
                marked = high
        marks[k, marked:] = 0
        if c[k, 0] > bound:
            marks[k, 0] = 1


@nb.njit(nogil=True, cache=True)
def _residual_sums(y, c, b, sums, squares, first, last):
    for k in range(first, last):
        r0 = r1 = r2 = r3 = q0 = q1 = q2 = q3 = 0.0  # four partial sums, which do not wait for each other
        whole = y.shape[1] // 4 * 4
        for t in range(0, whole, 4):
            e0, e1 = y[k, t] - c[k, t] - b[k], y[k, t + 1] - c[k, t + 1] - b[k]
            e2, e3 = y[k, t + 2] - c[k, t + 2] - b[k], y[k, t + 3] - c[k, t + 3] - b[k]
            r0, r1, r2, r3 = r0 + e0, r1 + e1, r2 + e2, r3 + e3
            q0, q1, q2, q3 = q0 + e0 * e0, q1 + e1 * e1, q2 + e2 * e2, q3 + e3 * e3
        for t in range(whole, y.shape[1]):
            e0 = y[k, t] - c[k, t] - b[k]
            r0, q0 = r0 + e0, q0 + e0 * e0
        sums[k], squares[k] = (r0 + r1) + (r2 + r3), (q0 + q1) + (q2 + q3)


@nb.njit(nogil=True, cache=True)
def _nnls_ar2(y, g, b, lam, allowed, tolerance, warm, c, s, scratch, times, first, last):
    for k in range(first, last):
        _one(y[k], g[k, 0], g[k, 1], b[k], lam[k], allowed[k], tolerance, warm, c[k], s[k], scratch, times)


@nb.njit(nogil=True, cache=True)
def _gradients(y, g, b, lam, c, gradient, first, last):
    for k in range(first, last):
        _correlate_residual(y[k], g[k, 0], g[k, 1], b[k], lam[k], c[k], gradient[k])


@nb.njit
def _one(y, g1, g2, b, lam, allowed, tolerance, warm, c, s, x, times):
    """One trace. Rows OLD and NEW of `x` hold the spikes of `times`: the feasible ones, and the least-squares ones."""
    T = len(y)
    smallest = tolerance * _prepare(y, g1, g2, b, lam, x)
    n, single = 0, False
    if warm:
        for t in range(T):
            if s[t] > 0 or (t == 0 and c[t] > 0):
                times[n], x[OLD, n] = t, s[t] if t > 0 else c[t]
                n += 1
        n = _settle(g1, g2, T, times, n, x)
    for _ in range(MOST_ROUNDS):
        _gradient(y, g1, g2, b, lam, times, n, x)
        before = n
        n = _add(allowed, smallest, single, times, n, x)
        if n == before:
            break
        n = _settle(g1, g2, T, times, n, x)
        single = n <= before and not single
    _calcium(g1, g2, T, times, n, x)
    s[:] = 0
    for i in range(n):
        if times[i] > 0:
            s[times[i]] = x[OLD, i]
    for t in range(T):
        c[t] = x[C, t]


@nb.njit
def _prepare(y, g1, g2, b, lam, x):
    """Impulse response h, sums of h_j^2 and h_j h_{j-1}, and correlations W of the data with h; the largest of W."""
    T = len(y)
    last, before = 1.0, 0.0
    squares = products = 0.0
    for j in range(T + 1):
        x[H, j], x[HH, j], x[HG, j] = last, squares, products
        squares += last * last
        products += last * before
        last, before = g1 * last + g2 * before, last
    x[W, T] = x[W, T + 1] = 0.0
    largest = 0.0
    for t in range(T - 1, -1, -1):
        x[W, t] = _datum(y, t, g1, g2, b, lam) + g1 * x[W, t + 1] + g2 * x[W, t + 2]
        largest = max(largest, abs(x[W, t]))
    return largest


@nb.njit(inline="always")
def _datum(y, t, g1, g2, b, lam):
    """y - b less what a unit of calcium at t costs: lam (1 - g1 - g2), at the last two samples more."""
    left = len(y) - 1 - t
    return y[t] - b - lam * (1 - (g1 if left > 0 else 0.0) - (g2 if left > 1 else 0.0))


@nb.njit
def _roots(g1, g2):
    """The slower and the faster root of x^2 - g1 x - g2."""
    slow = (g1 + np.sqrt(max(g1 * g1 + 4 * g2, 0.0))) / 2
    return slow, g1 - slow


@nb.njit
def _calcium(g1, g2, T, times, n, x):
    """Row C: calcium of the feasible spikes."""
    slow, _ = _roots(g1, g2)
    last = before = 0.0
    i = 0
    for t in range(T):
        last, before = g1 * last + g2 * before, last
        if i < n and times[i] == t:
            last += x[OLD, i]
            if t == 0 and slow > NO_DECAY:
                before = last / slow  # as if it had decayed before
            i += 1
        x[C, t] = last


@nb.njit
def _gradient(y, g1, g2, b, lam, times, n, x):
    """Row GRADIENT: by how much a spike at t would lower the cost, per unit; from the residual, backwards."""
    _calcium(g1, g2, len(y), times, n, x)
    _correlate_residual(y, g1, g2, b, lam, x[C], x[GRADIENT])


@nb.njit
def _correlate_residual(y, g1, g2, b, lam, c, gradient):
    later = latest = 0.0
    for t in range(len(y) - 1, -1, -1):
        later, latest = _datum(y, t, g1, g2, b, lam) - c[t] + g1 * later + g2 * latest, later
        gradient[t] = later
    gradient[0] -= _roots(g1, g2)[1] * latest


@nb.njit
def _add(allowed, smallest, single, times, n, x):
    """Insert the allowed local maxima of the gradient (or only the largest) with spike 0; new number of spikes."""
    T = len(allowed)
    if single:
        best, value = -1, smallest
        for t in range(T):
            if allowed[t] and x[GRADIENT, t] > value:
                best, value = t, x[GRADIENT, t]
        return n if best < 0 else _insert(best, times, n, x)
    t = 0
    while t < T:
        if allowed[t] and x[GRADIENT, t] > smallest:
            best = t
            for u in range(max(0, t - APART), min(T, t + APART + 1)):
                if allowed[u] and (x[GRADIENT, u], -u) > (x[GRADIENT, best], -best):
                    best = u
            if best == t:
                n = _insert(t, times, n, x)
                t += APART
        t += 1
    return n


@nb.njit
def _insert(t, times, n, x):
    i = np.searchsorted(times[:n], t)
    if i < n and times[i] == t:  # its gradient is zero but for rounding
        return n
    for j in range(n, i, -1):
        times[j], x[OLD, j] = times[j - 1], x[OLD, j - 1]
    times[i], x[OLD, i] = t, 0.0
    return n + 1


@nb.njit
def _settle(g1, g2, T, times, n, x):
    """Least squares on the given times; those whose spike would be negative are removed. New number of spikes."""
    while n > 0:
        _least_squares(g1, g2, T, times, n, x)
        step, fresh = 1.0, False
        for i in range(n):
            if x[NEW, i] <= 0:
                fresh = fresh or x[OLD, i] == 0
                if x[OLD, i] > 0:
                    step = min(step, x[OLD, i] / (x[OLD, i] - x[NEW, i]))
        if step == 1.0 and not fresh:
            x[OLD, :n] = x[NEW, :n]
            return n
        kept = 0
        for i in range(n):
            if fresh:  # a spike just added that wants to be negative goes first, at no cost
                value, stays = x[OLD, i], x[OLD, i] > 0 or x[NEW, i] > 0
            else:
                value = x[OLD, i] + step * (x[NEW, i] - x[OLD, i])
                stays = value > 1e-12 * x[OLD, i] or x[NEW, i] > 0
            if stays:
                times[kept], x[OLD, kept] = times[i], max(value, 0.0)
                kept += 1
        n = kept
    return n


@nb.njit
def _moment(t, length, g2, x):
    """sum_j h_j z_{t+j}, j < length: what W holds beyond is itself two values of W."""
    if length <= 0:
        return 0.0
    return (
        x[W, t]
        - x[H, length] * x[W, t + length]
        - g2 * x[H, length - 1] * x[W, min(t + length + 1, len(x[W]) - 1)]
    )


@nb.njit(error_model="numpy")
def _least_squares(g1, g2, T, times, n, x):
    """Row NEW: spikes at `times` without bounds.

    From spike i to the next calcium is h_j u + g2 h_{j-1} p, u its start and p the sample before. The cost of
    all that follows is alpha p^2 / 2 - gamma p + const; backwards over spikes this gives u = FREE - BOUND p.
    """
    slow, fast = _roots(g1, g2)
    alpha = gamma = 0.0
    for i in range(n - 1, -1, -1):
        t = times[i]
        length = (times[i + 1] if i + 1 < n else T) - t
        a, e = x[H, length - 1], g2 * x[H, length - 2] if length > 1 else 0.0  # the last sample is a u + e p
        cross = g2 * x[HG, length] + alpha * a * e
        moment, square = _moment(t, length, g2, x), x[HH, length]
        if t == 0:  # slow^j = h_j - fast h_{j-1}
            a -= fast * x[H, length - 2] if length > 1 else 0.0
            moment -= fast * _moment(1, length - 1, g2, x)
            square += fast * fast * x[HH, length - 1] - 2 * fast * x[HG, length]
        pull, stiffness = moment + gamma * a, square + alpha * a * a
        x[FREE, i], x[BOUND, i] = pull / stiffness, cross / stiffness
        gamma = g2 * _moment(t + 1, length - 1, g2, x) + gamma * e - pull * cross / stiffness
        alpha = g2 * g2 * x[HH, length - 1] + alpha * e * e - cross * cross / stiffness
    last = before = 0.0  # the two samples before the spike
    for i in range(n):
        length = (times[i + 1] if i + 1 < n else T) - times[i]
        u = x[FREE, i] - x[BOUND, i] * last
        x[NEW, i] = u - g1 * last - g2 * before
        if times[i] == 0 and slow > NO_DECAY:
            last = u / slow
        end = x[H, length - 1] * u + (g2 * x[H, length - 2] * last if length > 1 else 0.0)
        if length > 2:
            before = x[H, length - 2] * u + g2 * x[H, length - 3] * last
        else:
            before = u if length == 2 else last
        last = end
