"""The search of `oasis.constrained_ar1` for one trace, in passes that take segments of it in any order.

A long trace is cut into segments. Each has pools of its own; where they meet, the same rule merges them, and since
merging is associative the pools are those of the whole trace, to rounding. Between passes `conclude` joins segments,
measures the fit and says what the next pass does. docs/theory/deconvolution.md derives all of it.
"""

from __future__ import annotations

import numba as nb
import numpy as np

SEGMENT = (
    8192  # samples: pools of a segment stay in the cache of a core. Fixed, so that threads change no result
)
TOLERANCE = 1e-5  # of the residual sum of squares against its target
TAIL_ROUNDS = 4  # of lambda against baseline; each shrinks the difference by about 1 / (T (1 - g))
MOST_TRIALS = 60  # of the search: halving alone would settle the target to 1e-18
START_PERCENTILE, START_SAMPLES, START_ROUNDS = 0.15, 512, 12
MOST_LOWERINGS = 12  # doublings of the step below the smallest sample

SUM, BUILD, RAISE, WRITE, DONE = range(5)  # what a pass does
# what a search knows between passes: the next pass and the stack in use (the other takes the pools of a trial), ...
PASS, USED, POOLS = 0, 1, 2
BETA, MOVE, ROOM, BEYOND = (
    3,
    4,
    5,
    6,
)  # the level, the step tried, one known to be too far, the residual there
LOWERED, TRIALS, ACCEPTED = 7, 8, 9
B, LAM, RSS, SLOPE, CURVATURE, LAST, TAIL = 10, 11, 12, 13, 14, 15, 16  # ... the fit, see `_measure`
ORIGIN, Y1, Y2, SMALLEST, LARGEST = 17, 18, 19, 20, 21  # ... and the samples, less the first of them
FIELDS = 22


@nb.njit(inline="always")
def _push(pools, start, base, n, v, w, gl, t, drop):
    """Add a pool to the stack base..n-1, merging with those below it; returns the new n.

    With `drop`, a bottom pool that would start at or below 0 is left out: calcium is 0 up to there, whatever follows.
    """
    while n > base and pools[0, n - 1] * pools[2, n - 1] * w > v * pools[1, n - 1]:
        n -= 1
        below = pools[2, n]
        v = pools[0, n] + below * v
        w = pools[1, n] + below * below * w
        gl = below * gl
        t = start[n]
    if drop and n == base and v <= 0:
        return base
    pools[0, n], pools[1, n], pools[2, n], start[n] = v, w, gl, t
    return n + 1


@nb.njit
def work(y, g, segment, search, ends, parts, pools, starts, c, s):
    """One segment's share of the next pass.

    ends[stack, segment] are the first and last pools of it, parts[segment] its sums, pools and starts two stacks.
    """
    first = segment * SEGMENT
    end = min(first + SEGMENT, len(y))
    used = int(search[USED])
    if search[PASS] == SUM:
        _sum_samples(y[first:end], np.float64(y[0]), parts[segment])
    elif search[PASS] == BUILD:
        n = first
        level = search[ORIGIN] + search[BETA]
        for t in range(first, end):
            n = _push(pools[used], starts[used], first, n, y[t] - level, 1.0, g, t, first == 0)
        ends[used, segment, 0], ends[used, segment, 1] = first, n
        _sum_pools(pools[used], first, n, g, parts[segment])
    elif search[PASS] == RAISE:
        low, high = ends[used, segment]
        n = first
        for i in range(low, high):
            left = pools[used, 0, i] - search[MOVE] * (1 - pools[used, 2, i]) / (1 - g)
            w, gl, t = pools[used, 1, i], pools[used, 2, i], starts[used, i]
            n = _push(pools[1 - used], starts[1 - used], first, n, left, w, gl, t, first == 0)
        ends[1 - used, segment, 0], ends[1 - used, segment, 1] = first, n
        _sum_pools(pools[1 - used], first, n, g, parts[segment])
    elif search[PASS] == WRITE:
        _write(segment, search, ends[used], pools[used], starts[used], g, c, s)


@nb.njit
def _sum_samples(y, origin, part):
    y1 = y2 = smallest = largest = 0.0
    for t in range(len(y)):
        z = y[t] - origin
        y1 += z
        y2 += z * z
        smallest, largest = min(smallest, z), max(largest, z)
    part[0], part[1], part[2], part[3] = y1, y2, smallest, largest


@nb.njit(error_model="numpy")
def _sum_pools(pools, first, n, g, part):
    """Sums over pools of calcium, of what they explain, and of the squared change of calcium with the level."""
    inverse = 1 / (1 - g)
    part[:] = 0.0
    for i in range(first, n):
        _count(pools[0, i], pools[1, i], pools[2, i], inverse, 1.0, part)


@nb.njit(inline="always", error_model="numpy")
def _count(v, w, gl, inverse, sign, part):
    a, ones = v / w, (1 - gl) * inverse
    part[0] += sign * a * ones
    part[1] += sign * a * v
    part[2] += sign * ones * ones / w


@nb.njit
def _before(at, segment, ends):
    """The pool before pool `at` of a segment, and its own segment; -1 if there is none."""
    while at == ends[segment, 0]:
        segment -= 1
        if segment < 0:
            return -1, -1
        at = ends[segment, 1]
    return at - 1, segment


@nb.njit
def _join(ends, pools, start, g, parts):
    """Merge pools across the ends of segments, then leave out those at the bottom that start at or below 0."""
    inverse = 1 / (1 - g)
    for segment in range(1, len(ends)):
        if ends[segment, 0] == ends[segment, 1]:
            continue
        at = ends[segment, 0]
        settled = False
        while not settled:
            settled = True
            below, of = _before(at, segment, ends)
            while (
                below >= 0
                and pools[0, below] * pools[2, below] * pools[1, at] > pools[0, at] * pools[1, below]
            ):
                _merge(pools, start, below, at, at, inverse, parts[of], parts[segment])
                ends[of, 1] -= 1
                below, of = _before(at, segment, ends)
            above = at + 1
            if above < ends[segment, 1] and (
                pools[0, at] * pools[2, at] * pools[1, above] > pools[0, above] * pools[1, at]
            ):
                _merge(pools, start, at, above, above, inverse, parts[segment], parts[segment])
                ends[segment, 0] = at = above
                settled = False
    for segment in range(len(ends)):
        while ends[segment, 0] < ends[segment, 1]:
            i = ends[segment, 0]
            if pools[0, i] > 0:
                return
            _count(pools[0, i], pools[1, i], pools[2, i], inverse, -1.0, parts[segment])
            ends[segment, 0] += 1


@nb.njit
def _merge(pools, start, left, right, into, inverse, of_left, of_right):
    """Two neighbours as one, in the place of either; keeps the sums of their segments."""
    _count(pools[0, left], pools[1, left], pools[2, left], inverse, -1.0, of_left)
    _count(pools[0, right], pools[1, right], pools[2, right], inverse, -1.0, of_right)
    gl = pools[2, left]
    v, w = pools[0, left] + gl * pools[0, right], pools[1, left] + gl * gl * pools[1, right]
    pools[0, into], pools[1, into], pools[2, into] = v, w, gl * pools[2, right]
    start[into] = start[left]
    _count(v, w, pools[2, into], inverse, 1.0, of_right)


@nb.njit(error_model="numpy")
def conclude(y, g, theta, b, free_b, b_nonneg, max_iter, search, ends, parts, pools, starts):
    """What a pass has found, and what the next one is to do; b is the baseline if not `free_b`."""
    used = int(search[USED])
    floor = -search[ORIGIN] if b_nonneg else -np.inf
    if search[PASS] == SUM:
        _begin(y, b, free_b, b_nonneg, search, parts)
    elif search[PASS] == BUILD:
        _join(ends[used], pools[used], starts[used], g, parts)
        fit = _measure(pools[used], ends[used], parts, g, search[BETA], len(y), b, free_b, floor, search)
        _accept(fit, ends[used], search)
        low = search[LOWERED]
        if free_b and search[RSS] > theta * (1 + TOLERANCE) and search[BETA] > floor and low < MOST_LOWERINGS:
            beta = search[BETA]
            further = search[SMALLEST] - (2.0**low - 1) * (search[LARGEST] - search[SMALLEST])
            search[BETA] = max(min(beta, further), floor)
            search[ROOM], search[BEYOND] = beta - search[BETA], search[RSS]
            search[LOWERED] += 1
        else:
            _plan(theta, max_iter, search)
    elif search[PASS] == RAISE:
        other = 1 - used
        level = search[BETA] + search[MOVE]
        _join(ends[other], pools[other], starts[other], g, parts)
        fit = _measure(pools[other], ends[other], parts, g, level, len(y), b, free_b, floor, search)
        if fit[2] > theta * (1 + TOLERANCE):
            search[ROOM], search[BEYOND] = search[MOVE], fit[2]
        else:
            _accept(fit, ends[other], search)
            search[USED], search[BETA] = other, level
            search[ROOM] -= search[MOVE]
            search[ACCEPTED] += 1
        _plan(theta, max_iter, search)
    else:
        search[PASS] = DONE


@nb.njit
def _begin(y, b, free_b, b_nonneg, search, parts):
    """The samples as a whole, and a level to start from. Levels are relative to the first sample, so that sums of
    squares keep their digits."""
    search[ORIGIN] = y[0]
    search[Y1], search[Y2] = parts[:, 0].sum(), parts[:, 1].sum()
    search[SMALLEST], search[LARGEST] = parts[:, 2].min(), parts[:, 3].max()
    search[ROOM] = search[BEYOND] = np.inf
    if free_b:
        floor = -search[ORIGIN] if b_nonneg else -np.inf
        low = _low_percentile(y, search[ORIGIN], search[SMALLEST], search[LARGEST])
        search[BETA] = max(low, floor)
    else:
        search[BETA] = b - search[ORIGIN]
    search[PASS] = BUILD


@nb.njit
def _accept(fit, ends, search):
    search[B : TAIL + 1] = np.array(fit)
    search[POOLS] = (ends[:, 1] - ends[:, 0]).sum()


@nb.njit
def _plan(theta, max_iter, search):
    """The next step of the search, or its end."""
    near = search[RSS] >= theta * (1 - TOLERANCE)
    if near or search[POOLS] == 0 or search[ACCEPTED] >= max_iter or search[TRIALS] >= MOST_TRIALS:
        search[PASS] = WRITE
        return
    most = search[LARGEST] - search[BETA]
    search[MOVE] = _step(
        search[RSS], search[SLOPE], search[CURVATURE], theta, search[ROOM], search[BEYOND], most
    )
    search[TRIALS] += 1
    search[PASS] = RAISE


@nb.njit(error_model="numpy")
def _measure(pools, ends, parts, g, beta, T, b, free_b, b_floor, search):
    """Baseline, lambda and residual sum of squares of the pools at level beta, from sums over pools alone.

    And how the residual sum of squares grows with beta while the pools stay as they are: rss + 2 slope d +
    curvature d^2. And the tail: from pool `last` to the end runs one pool that starts at `tail`, since the last
    sample bears the extra penalty lambda g.
    """
    inverse = 1 / (1 - g)
    y1, y2 = search[Y1], search[Y2]
    z1, z2 = y1 - T * beta, y2 - 2 * beta * y1 + T * beta * beta  # sums of y - beta and of its squares
    sum_c, explained, phi = parts[:, 0].sum(), parts[:, 1].sum(), parts[:, 2].sum()
    b = b - search[ORIGIN]
    residual, rest, last, tail = z1 - sum_c, z2 - explained, -1, 0.0
    slope = curvature = along = 0.0
    held = not free_b
    if free_b:
        b, held = _baseline(beta + residual / T, b_floor)
    top, top_of = _before(ends[-1, 1], len(ends) - 1, ends)
    for _ in range(TAIL_ROUNDS if top >= 0 else 0):
        penalty = max((beta - b) * inverse, 0.0)
        v, w, gl = 0.0, 0.0, 1.0
        body_c, body_explained, body_phi = sum_c, explained, phi
        at, of = top, top_of
        while at >= 0 and (w == 0 or pools[0, at] * pools[2, at] * w > (v - penalty * gl) * pools[1, at]):
            last, below = at, pools[2, at]
            a, ones = pools[0, at] / pools[1, at], (1 - below) * inverse
            body_c -= a * ones
            body_explained -= a * pools[0, at]
            body_phi -= ones * ones / pools[1, at]
            v, w, gl = pools[0, at] + below * v, pools[1, at] + below * below * w, below * gl
            at, of = _before(at, of, ends)
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
    return b, (beta - b) * inverse, rss, slope, curvature, float(last), tail


@nb.njit(inline="always")
def _baseline(b, b_floor):
    """The baseline and whether its bound holds it."""
    return (b_floor, True) if b < b_floor else (b, False)


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
def _write(segment, search, ends, pools, start, g, c, s):
    """Calcium and spikes of a segment's pools, as far as the tail; of the first pool, also the zeros before it."""
    T, last = len(c), int(search[LAST])
    first, _ = _after(ends[0, 0] - 1, 0, ends)
    if segment == 0:
        zeros = start[first] if first >= 0 else T
        c[:zeros] = 0
        s[:zeros] = 0
    for i in range(ends[segment, 0], ends[segment, 1]):
        if i > last:
            return
        a = pools[0, i] / pools[1, i] if i < last else search[TAIL]
        below, _ = _before(i, segment, ends)
        above, _ = _after(i, segment, ends)
        t, end = start[i], start[above] if i < last else T
        before = pools[0, below] / pools[1, below] * pools[2, below] if below >= 0 else 0.0
        s[t] = a - before if t > 0 else 0.0
        c[t] = a
        for u in range(t + 1, end):
            a *= g
            c[u] = a
            s[u] = 0


@nb.njit
def _after(at, segment, ends):
    """The pool after pool `at` of a segment, and its own segment; -1 if there is none."""
    at += 1
    while at >= ends[segment, 1]:
        segment += 1
        if segment == len(ends):
            return -1, -1
        at = ends[segment, 0]
    return at, segment
