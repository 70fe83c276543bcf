"""Median of 3 x 3 pixels by a network of minima and maxima, many pixels at a time."""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(nogil=True, cache=True)
def median_of_nine(frames, step, out):
    """Median of each pixel and its 8 neighbours; beyond the border the edge repeats.

    Parameters
    ----------
    frames : (n, d1, d2 * step) array
        `step` values a pixel, each with its like in the neighbouring pixels.
    step : int
    out : as `frames`, written

    Notes
    -----
    The three values of each column are sorted once; the median of nine is the median of the largest low, the median
    middle and the smallest high value of three columns (J. Smith 1996, Xcell 23:16).
    """
    n, rows, length = frames.shape
    long = length + 2 * step
    low, middle, high = (
        np.empty(long, frames.dtype),
        np.empty(long, frames.dtype),
        np.empty(long, frames.dtype),
    )
    a, b = np.empty(length, frames.dtype), np.empty(length, frames.dtype)
    for t in range(n):
        for i in range(rows):
            above, here, below = frames[t, max(i - 1, 0)], frames[t, i], frames[t, min(i + 1, rows - 1)]
            _order(above, here, a, b)
            _order(b, below, b, high[step : step + length])
            _order(a, b, low[step : step + length], middle[step : step + length])
            for row in (low, middle, high):
                row[:step] = row[step : 2 * step]
                row[length + step :] = row[length : length + step]
            _largest(low[:length], low[step : step + length], low[2 * step :], a)
            _smallest(high[:length], high[step : step + length], high[2 * step :], b)
            _middle_of(middle[:length], middle[step : step + length], middle[2 * step :], high)
            _middle_of(a, high[:length], b, out[t, i])


# Few arrays to a loop: the compiler fills its vectors only where it can rule out that many of them overlap


@nb.njit(nogil=True, cache=True)
def _order(a, b, smaller, larger):
    for j in range(len(a)):
        x, y = a[j], b[j]
        smaller[j] = x if x < y else y
        larger[j] = y if x < y else x


@nb.njit(nogil=True, cache=True)
def _largest(a, b, c, out):
    for j in range(len(out)):
        x = a[j] if a[j] > b[j] else b[j]
        out[j] = x if x > c[j] else c[j]


@nb.njit(nogil=True, cache=True)
def _smallest(a, b, c, out):
    for j in range(len(out)):
        x = a[j] if a[j] < b[j] else b[j]
        out[j] = x if x < c[j] else c[j]


@nb.njit(nogil=True, cache=True)
def _middle_of(a, b, c, out):
    for j in range(len(b)):
        x, y, z = a[j], b[j], c[j]
        less, more = x if x < y else y, y if x < y else x
        more = more if more < z else z
        out[j] = more if less < more else less
