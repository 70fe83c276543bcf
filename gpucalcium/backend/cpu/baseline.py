"""Levels of every pixel over time: percentiles, means that leave NaN out, and frames without them.

Twin: backend/cuda/baseline.py. Frames come as (n, pixels), C order. Every result equals the twin's bit for bit.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import stencils
from gpucalcium.backend.cpu._threads import share

WIDE, NARROW = 64, 16  # pixels whose keys are searched side by side: four cache lines, or one
LONG = 2048  # frames up to which the keys of WIDE pixels stay in the second-level cache
INTEGER_OFFSET = 1 << 15  # added to 16-bit integers of either sign, to make keys of them
TILE = 2048  # pixels whose float64 sums (16 kB) stay in the first-level cache
ONLY, RATIO, ROOT = range(3)
"""What `subtract` makes of y and its level b: y - b, (y - b) / b, (y - b) / sqrt(b)."""


def percentile(frames: NDArray, quantile: float, skip_nan: bool, out: NDArray[np.float32]) -> None:
    """Percentile of each pixel over the frames, linear between values, into `out` (pixels,).

    Parameters
    ----------
    frames : (n, pixels), n >= 1, any real dtype
    quantile : float
        0 to 100.
    skip_nan : bool
        Leave NaN out (a pixel without a number is NaN); otherwise a pixel with a NaN is NaN.
    out : (pixels,) float32, written
        Interpolated in float64, rounded once.

    Notes
    -----
    A value is found by the bits of its key, an integer that grows with it, from the highest in which the keys
    differ: each bit costs one count of the smaller keys, over many pixels at a time. Nothing is sorted or transposed.
    """
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f8"), copy=False)
    key = np.uint64 if frames.dtype.itemsize == 8 else np.uint32
    is_float = frames.dtype.kind == "f"
    bits = frames.view(f"i{frames.dtype.itemsize}") if is_float else frames
    span = WIDE if len(frames) <= LONG else NARROW

    def work(first: int, last: int) -> None:
        keys = np.empty((len(frames), span), key)
        found = np.empty((2, last - first), key)
        shares = np.empty(last - first)
        _search(bits, is_float, quantile, skip_nan, first, keys, found, shares)
        lower, upper = _values(found, frames.dtype)
        with np.errstate(invalid="ignore"):  # infinities
            between = lower + shares * (upper - lower)
        out[first:last] = np.where((shares == 0) | (lower == upper), lower, between)
        out[first:last][np.isnan(shares)] = np.nan

    share(len(out), work, WIDE)


def _values(keys: NDArray, dtype: np.dtype) -> NDArray[np.float64]:
    """What `_to_keys` made the keys of."""
    if dtype.kind != "f":
        return keys.astype(np.float64) - INTEGER_OFFSET
    sign = keys.dtype.type(1 << (8 * dtype.itemsize - 1))
    bits = np.where(keys & sign, keys ^ sign, ~keys)
    return bits.view(dtype).astype(np.float64)


@nb.njit(nogil=True, cache=True)
def _search(bits, is_float, quantile, skip_nan, first, keys, found, shares):
    """Keys of the two values around the percentile, and where it lies between them; NaN: there is none."""
    n, span = keys.shape
    missing, rank = np.empty(span, np.int32), np.empty(span, np.int64)
    for at in range(0, len(shares), span):
        width = min(span, len(shares) - at)
        missing[:] = 0
        if is_float:
            _floats_to_keys(bits, first + at, width, keys, missing)
        else:
            _integers_to_keys(bits, first + at, width, keys)
        for j in range(width):
            present = n - missing[j]
            place = quantile / 100.0 * (present - 1)
            rank[j] = max(0, min(int(place), present - 1))
            shares[at + j] = place - rank[j]
            if present == 0 or (missing[j] and not skip_nan):
                shares[at + j] = np.nan
        _select(keys, rank[:width], found[0, at : at + width], found[1, at : at + width])


@nb.njit(nogil=True, cache=True)
def _integers_to_keys(values, first, width, keys):
    for t in range(len(values)):
        row, key = values[t, first : first + width], keys[t]
        for j in range(len(row)):
            key[j] = np.int32(row[j]) + np.int32(INTEGER_OFFSET)


@nb.njit(nogil=True, cache=True)
def _floats_to_keys(bits, first, width, keys, missing):
    """Bits of negative numbers turn round, others get a leading one; NaN of either sign have the largest key."""
    wide = keys.itemsize == 8
    last = np.int64(63 if wide else 31)
    size = np.int64(0x7FFFFFFFFFFFFFFF if wide else 0x7FFFFFFF)
    infinity = np.int64(0x7FF0000000000000 if wide else 0x7F800000)
    for t in range(len(bits)):
        row, key = bits[t, first : first + width], keys[t]
        for j in range(len(row)):
            value = np.int64(row[j])
            is_missing = (value & size) > infinity
            ordered = size if is_missing else value ^ ((value >> last) & size)
            key[j] = ordered ^ ~size
            missing[j] += np.int32(is_missing)


@nb.njit(nogil=True, cache=True)
def _select(keys, rank, least, following):
    """The keys of `rank` and of the next rank among each column of `keys`, whose rows stay whole: vectors of them."""
    n, width = len(keys), len(rank)
    low, high = keys[0, :width].copy(), keys[0, :width].copy()
    for t in range(1, n):
        row = keys[t]
        for j in range(width):
            low[j] = min(low[j], row[j])
            high[j] = max(high[j], row[j])
    differ = np.uint64(0)
    for j in range(width):
        differ |= np.uint64(low[j] ^ high[j])
    bits = 0
    while bits < 64 and differ >> np.uint64(bits):
        bits += 1
    searched = (np.uint64(1) << np.uint64(bits)) - np.uint64(1) if bits < 64 else ~np.uint64(0)
    trial, count = np.empty_like(low), np.empty(width, np.int32)
    for j in range(width):
        least[j] = low[j] & ~searched  # what all keys of a column share
    for bit in range(bits - 1, -1, -1):
        for j in range(width):
            trial[j] = least[j] | (np.uint64(1) << np.uint64(bit))
        _count_below(keys, trial, count)
        for j in range(width):
            if count[j] <= rank[j]:  # not more than `rank` keys are smaller: the key has this bit
                least[j] = trial[j]
    _next(keys, rank, least, following)


@nb.njit(nogil=True, cache=True)
def _count_below(keys, trial, count):
    n, width = len(keys), len(trial)
    count[:] = 0
    t = 0
    while t + 4 <= n:  # four frames per visit of a count
        a, b, c, d = keys[t], keys[t + 1], keys[t + 2], keys[t + 3]
        for j in range(width):
            x = trial[j]
            count[j] += np.int32(a[j] < x) + np.int32(b[j] < x) + np.int32(c[j] < x) + np.int32(d[j] < x)
        t += 4
    while t < n:
        a = keys[t]
        for j in range(width):
            count[j] += np.int32(a[j] < trial[j])
        t += 1


@nb.njit(nogil=True, cache=True)
def _next(keys, rank, least, following):
    """The same key where it comes again, else the smallest above it; the largest key has none."""
    n, width = len(keys), len(rank)
    up_to = np.zeros(width, np.int32)
    following[:] = ~np.uint64(0)
    for t in range(n):
        row = keys[t]
        for j in range(width):
            is_above = row[j] > least[j]
            up_to[j] += np.int32(not is_above)
            following[j] = row[j] if is_above and row[j] < following[j] else following[j]
    for j in range(width):
        if up_to[j] > rank[j] + 1 or up_to[j] == n:
            following[j] = least[j]


def frame_medians(frames: NDArray, out: NDArray[np.float64]) -> None:
    """Median of each frame (n, pixels), NaN left out (NaN if there is nothing else), into `out` (n,) float64."""
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f8"), copy=False)

    def work(first: int, last: int) -> None:
        if frames.dtype.kind in "iu":
            _medians_by_counts(frames[first:last], out[first:last])
            return
        for t in range(first, last):
            known = frames[t][~np.isnan(frames[t])]
            out[t] = np.median(known) if len(known) else np.nan

    share(len(frames), work)


@nb.njit(nogil=True, cache=True)
def _medians_by_counts(frames, out):
    """Of 16-bit integers: how often each value comes is counted, nothing is sorted."""
    counts = np.zeros(2 * INTEGER_OFFSET, np.int64)
    for t in range(len(frames)):
        low, high = frames[t].min(), frames[t].max()
        for value in frames[t]:
            counts[np.int64(value) - low] += 1
        lower, upper = (len(frames[t]) - 1) // 2, len(frames[t]) // 2  # ranks of the middle values
        seen, total = 0, 0.0
        for value in range(np.int64(high) - low + 1):
            before, seen = seen, seen + counts[value]
            total += (np.int64(before <= lower < seen) + np.int64(before <= upper < seen)) * (value + low)
            counts[value] = 0
        out[t] = total / 2


def add_present(frames: NDArray, sums: NDArray[np.float64], counts: NDArray[np.float64]) -> None:
    """Add each pixel's values that are finite to `sums` and how many they are to `counts`, in order of the frames.

    `frames` is (n, pixels), any real dtype; `sums` and `counts` are (pixels,).
    """
    share(len(sums), lambda first, last: _add_present(frames, first, last, sums, counts), TILE)


@nb.njit(nogil=True, cache=True)
def _add_present(frames, first, last, sums, counts):
    for start in range(first, last, TILE):
        stop = min(start + TILE, last)
        total, number = sums[start:stop], counts[start:stop]
        for t in range(len(frames)):
            row = frames[t, start:stop]
            for p in range(stop - start):
                value = np.float64(row[p])
                is_there = value - value == 0.0  # neither NaN nor infinite
                total[p] += value if is_there else 0.0
                number[p] += 1.0 if is_there else 0.0


def take_means(sums: NDArray[np.float64], counts: NDArray[np.float64], means: NDArray[np.float32]) -> None:
    """means = sums / counts, rounded to float32, NaN where nothing was counted; both start anew from zero."""
    share(
        len(sums),
        lambda first, last: _take_means(sums[first:last], counts[first:last], means[first:last]),
        TILE,
    )


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _take_means(sums, counts, means):
    for p in range(len(sums)):
        means[p] = sums[p] / counts[p]
        sums[p] = 0.0
        counts[p] = 0.0


def between(
    levels: NDArray[np.float32], lower: NDArray[np.int64], shares: NDArray[np.float32], out: NDArray
) -> None:
    """out[t] = levels[lower[t]] + shares[t] (levels[lower[t] + 1] - levels[lower[t]]), in float32.

    `levels` is (N, pixels), `out` (n, pixels) of floats; the last level is its own next one.
    """
    share(len(out), lambda first, last: _between(levels, lower, shares, first, last, out))


@nb.njit(nogil=True, cache=True)
def _between(levels, lower, shares, first, last, out):
    for t in range(first, last):
        a, b = levels[lower[t]], levels[min(lower[t] + 1, len(levels) - 1)]
        part, row = shares[t], out[t]
        for p in range(len(row)):
            row[p] = a[p] + part * (b[p] - a[p])


def subtract(
    frames: NDArray,
    levels: NDArray[np.float32],
    lower: NDArray[np.int64],
    shares: NDArray[np.float32],
    method: int,
    out: NDArray,
) -> None:
    """Frames without a level that changes in time, as in `between`, divided as `method` says.

    Parameters
    ----------
    frames : (n, pixels), any real dtype
    levels, lower, shares
        As in `between`.
    method : {ONLY, RATIO, ROOT}
    out : (n, pixels) float32 or float64, written
        Computed in float32; in float64 if the frames are float64 or longer integers. May be `frames`.
    """
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f8"), copy=False)
    wide = np.empty(0, np.float64 if frames.dtype.itemsize == 8 else np.float32)
    share(
        len(out),
        lambda first, last: _subtract(frames, levels, lower, shares, method, wide, first, last, out),
    )


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _subtract(frames, levels, lower, shares, method, wide, first, last, out):
    as_wide = wide.dtype.type
    for t in range(first, last):
        a, b = levels[lower[t]], levels[min(lower[t] + 1, len(levels) - 1)]
        part, y, row = shares[t], frames[t], out[t]
        if method == ONLY:
            for p in range(len(row)):
                row[p] = as_wide(y[p]) - as_wide(a[p] + part * (b[p] - a[p]))
        elif method == RATIO:
            for p in range(len(row)):
                level = as_wide(a[p] + part * (b[p] - a[p]))
                row[p] = (as_wide(y[p]) - level) / level
        else:
            for p in range(len(row)):
                level = as_wide(a[p] + part * (b[p] - a[p]))
                row[p] = (as_wide(y[p]) - level) / np.sqrt(level)
