"""Bicubic displacement of frames, and what stands where nothing was recorded."""

from __future__ import annotations

import numba as nb
import numpy as np

from gpucalcium.backend import fourier

BICUBIC_A = -0.75  # OpenCV's cubic
NAN, COPY, REFLECT = (fourier.BORDERS.index(name) for name in ("nan", "copy", "reflect"))


@nb.njit(nogil=True, cache=True)
def _cubic(x):
    a, x = BICUBIC_A, abs(x)
    if x <= 1.0:
        return np.float32((a + 2.0) * x**3 - (a + 3.0) * x**2 + 1.0)
    return np.float32(a * x**3 - 5.0 * a * x**2 + 8.0 * a * x - 4.0 * a)


@nb.njit(nogil=True, cache=True)
def _bicubic(fraction):
    """Weights of the pixels at -1, 0, 1 and 2 for a sample at `fraction`, 0 to 1."""
    return _cubic(fraction + 1.0), _cubic(fraction), _cubic(fraction - 1.0), _cubic(fraction - 2.0)


@nb.njit(nogil=True, cache=True)
def _reflected(i, n):
    i = i % (2 * n)
    return i if i < n else 2 * n - 1 - i


@nb.njit(nogil=True, cache=True)
def _valid(shift, n):
    """First and one past the last position along an axis of length n that came from inside the frame."""
    first = min(max(np.int64(np.ceil(shift)), 0), n - 1)
    last = max(n - max(np.int64(np.ceil(-shift)), 0), first + 1)
    return first, last


@nb.njit(nogil=True, cache=True)
def warp_frames(frames, shifts, offset, border, out):
    """Bicubic displacement of frames [n, d1, d2] into `out` of the same shape; see `registration.warp`."""
    n, d1, d2 = frames.shape
    low, high = np.empty(d2, np.float32), np.empty(d2, np.float32)
    row, line = np.empty(d2, np.float32), np.empty(d2 + 3, np.float32)
    volume = out.reshape(n, 1, d1, d2)
    move = np.zeros(3, np.float32)
    for t in range(n):
        lowest, highest = _extremes(frames[t], low, high)
        r0, c0 = np.int64(np.floor(-shifts[t, 0])), np.int64(np.floor(-shifts[t, 1]))
        wr, wc = _bicubic(-np.float64(shifts[t, 0]) - r0), _bicubic(-np.float64(shifts[t, 1]) - c0)
        for r in range(d1):
            _mix_rows(frames[t], r + r0 - 1, wr, row)
            _take_line(row, c0 - 1, line)
            _mix_columns(line, wc, lowest, highest, offset, out[t, r])
        move[1], move[2] = shifts[t, 0], shifts[t, 1]
        if border != REFLECT:
            _mark(volume[t], move, border, lowest - offset)


@nb.njit(nogil=True, cache=True)
def _mix_rows(frame, first, weights, row):
    """Weighted sum of four rows from `first` on; of one alone where the shift is whole, as 0 NaN is NaN."""
    n = len(frame)
    b = frame[_reflected(first + 1, n)]
    if weights[1] == 1:
        for c in range(len(row)):
            row[c] = b[c]
        return
    a, d, e = frame[_reflected(first, n)], frame[_reflected(first + 2, n)], frame[_reflected(first + 3, n)]
    w0, w1, w2, w3 = weights
    for c in range(len(row)):
        row[c] = w0 * np.float32(a[c]) + w1 * np.float32(b[c]) + w2 * np.float32(d[c]) + w3 * np.float32(e[c])


@nb.njit(nogil=True, cache=True)
def _mix_columns(line, weights, lowest, highest, offset, out):
    """Weighted sum of four neighbours, or the one, as `_mix_rows`; clipped, minus offset."""
    w0, w1, w2, w3 = weights
    whole = w1 == 1
    for c in range(len(out)):
        v = line[c + 1] if whole else w0 * line[c] + w1 * line[c + 1] + w2 * line[c + 2] + w3 * line[c + 3]
        v = lowest if v < lowest else v
        out[c] = (highest if v > highest else v) - offset


@nb.njit(nogil=True, cache=True)
def _take_line(row, start, line):
    """line[c] = row[start + c], reflected at both ends; the middle is a plain copy."""
    n, length = len(row), len(line)
    first, last = min(max(-start, 0), length), max(min(n - start, length), 0)
    for c in range(first):
        line[c] = row[_reflected(start + c, n)]
    if first < last:
        line[first:last] = row[start + first : start + last]
    for c in range(max(first, last), length):
        line[c] = row[_reflected(start + c, n)]


@nb.njit(nogil=True, cache=True)
def _extremes(frame, low, high):
    """Smallest and largest number of a frame, inf and -inf if there is none; by columns, so that it vectorises."""
    low[:] = np.inf
    high[:] = -np.inf
    for r in range(frame.shape[0]):
        for c in range(frame.shape[1]):
            v = np.float32(frame[r, c])
            low[c] = v if v < low[c] else low[c]
            high[c] = v if v > high[c] else high[c]
    return low.min(), high.max()


@nb.njit(nogil=True, cache=True)
def mark_frames(volumes, moves, border):
    """Overwrite what came from outside in displaced volumes [n, d0, d1, d2]; moves [n, 3], pixels."""
    for t in range(volumes.shape[0]):
        lowest = np.float32(np.inf)
        for v in volumes[t].flat:
            lowest = v if v < lowest else lowest
        _mark(volumes[t], moves[t], border, lowest)


@nb.njit(nogil=True, cache=True)
def _mark(volume, move, border, lowest):
    """One volume; `lowest` is what stands for its minimum."""
    d0, d1, d2 = volume.shape
    a0, b0 = _valid(move[0], d0)
    a1, b1 = _valid(move[1], d1)
    a2, b2 = _valid(move[2], d2)
    value = np.float32(np.nan) if border == NAN else lowest
    for i in range(d0):
        for j in range(d1):
            inside = a0 <= i < b0 and a1 <= j < b1
            if border == COPY:
                source = volume[min(max(i, a0), b0 - 1), min(max(j, a1), b1 - 1)]
                volume[i, j, :a2] = source[a2]
                volume[i, j, b2:] = source[b2 - 1]
                if not inside:
                    volume[i, j, a2:b2] = source[a2:b2]
            elif inside:
                volume[i, j, :a2] = value
                volume[i, j, b2:] = value
            else:
                volume[i, j] = value
