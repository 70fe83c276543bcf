"""Sums and covariances of a window that moves along a movie. Twin: backend/cuda/sliding.py."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._centred import centre, flat_frames
from gpucalcium.backend.cpu._threads import share


def slide(
    frames: NDArray,
    first: int,
    window: int,
    pilot: NDArray,
    offsets: NDArray[np.int64],
    sums: NDArray[np.float64],
    last: NDArray[np.float32],
    counts: NDArray[np.int32],
    at: int,
    every: int,
    snapshots: NDArray[np.float64],
) -> None:
    """Move a window on, frame by frame: what enters is added to its sums, what leaves is subtracted.

    x and its products are those of `add_products`, but a value that is not finite counts as 0 and is counted.
    Sums are rounded in order of time, so twins agree bit for bit; on integers they are exact.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
    first : int
        The first frame to enter; frame ``t - window``, if there is one, leaves when frame t enters.
    window : int
        Frames; more than n: nothing leaves.
    pilot, offsets
        As for `add_products`.
    sums : (2 + m, pixels) float64, read and written
        Zeros before the first frame; later as it was left.
    last : (pixels,) float32, read and written
        The last x of each pixel; NaN before the first frame.
    counts : (2, pixels) int32, read and written
        For how many frames x has been the same; how many x in the window are not finite. Zeros before the first.
    at, every : int
        After frames ``at``, ``at + every`` ... the sums are copied, as often as `snapshots` is long; the frame
        of the last copy is the last to enter.
    snapshots : (s, 2 + m, pixels) float64, written
        Rows 0 and 1 are NaN where an x in the window is not finite, 0 where all are the same: what is left of
        rounding is then no variance.
    """
    flat, base, steps, tile = flat_frames(frames, pilot, offsets)
    stop = at + every * (len(snapshots) - 1) + 1
    share(
        sums.shape[1],
        lambda a, b: _slide(
            flat[:stop], first, window, base, steps, tile, a, b, sums, last, counts, at, every, snapshots
        ),
        tile,
    )


@nb.njit(nogil=True, cache=True)
def _slide(frames, first, window, pilot, steps, tile, a, b, sums, last, counts, at, every, snapshots):
    reach = steps.max()
    pixels = frames.shape[1]
    x = np.zeros(tile + reach, np.float32)
    y = np.zeros(tile + reach, np.float32)  # what leaves
    for start in range(a, b, tile):
        stop = min(start + tile, b)
        end = min(stop + reach, pixels)
        for t in range(first, len(frames)):
            leaves = t >= window
            centre(frames[t, start:end], pilot[start:end], x)
            _watch(x[: stop - start], last[start:stop], counts[0, start:stop], counts[1, start:stop])
            _without_nan(x[: end - start])
            if leaves:
                centre(frames[t - window, start:end], pilot[start:end], y)
                _forget(y[: stop - start], counts[1, start:stop])
                _without_nan(y[: end - start])
            _exchange(x, y, leaves, sums[0, start:stop])
            for k in range(len(steps)):
                n = max(0, min(stop, pixels - steps[k]) - start)
                _exchange_products(x, y, leaves, steps[k], sums[1 + k, start : start + n])
            if t >= at and (t - at) % every == 0:
                e = (t - at) // every
                for row in range(len(sums)):
                    _copy(sums[row, start:stop], snapshots[e, row, start:stop])
                _mark(counts[:, start:stop], window, snapshots[e, 0, start:stop], snapshots[e, 1, start:stop])


@nb.njit(nogil=True, cache=True)
def _watch(x, last, same, bad):
    for p in range(len(x)):
        same[p] = same[p] + 1 if x[p] == last[p] else 1
        last[p] = x[p]
        bad[p] += 0 if np.isfinite(x[p]) else 1


@nb.njit(nogil=True, cache=True)
def _forget(x, bad):
    for p in range(len(x)):
        bad[p] -= 0 if np.isfinite(x[p]) else 1


@nb.njit(nogil=True, cache=True)
def _without_nan(x):
    for p in range(len(x)):
        x[p] = x[p] if np.isfinite(x[p]) else np.float32(0)


@nb.njit(nogil=True, cache=True)
def _exchange(x, y, leaves, sums):
    for p in range(len(sums)):
        sums[p] += np.float64(x[p])
    if leaves:
        for p in range(len(sums)):
            sums[p] -= np.float64(y[p])


@nb.njit(nogil=True, cache=True)
def _exchange_products(x, y, leaves, offset, sums):
    x_there, y_there = x[offset:], y[offset:]
    if not leaves:
        for p in range(len(sums)):
            sums[p] += np.float64(x[p]) * np.float64(x_there[p])
        return
    for p in range(len(sums)):
        total = sums[p] + np.float64(x[p]) * np.float64(x_there[p])
        sums[p] = total - np.float64(y[p]) * np.float64(y_there[p])


@nb.njit(nogil=True, cache=True)
def _copy(source, target):
    for p in range(len(target)):  # a loop: several times faster than assigning a slice
        target[p] = source[p]


@nb.njit(nogil=True, cache=True)
def _mark(counts, window, total, squares):
    for p in range(len(total)):
        if counts[1, p] > 0:
            total[p] = squares[p] = np.nan
        elif counts[0, p] >= window:
            total[p] = squares[p] = 0.0


def fade(
    frames: NDArray,
    rate: float,
    pilot: NDArray,
    offsets: NDArray[np.int64],
    mean: NDArray[np.float64],
    moments: NDArray[np.float64],
) -> None:
    """Let frames into exponentially weighted means and covariances, each with the weight `rate`.

    With d = x - mean before the frame: mean += rate d, cov = (1 - rate)(cov + rate d d'), which is no difference of
    large numbers. Rounded step by step, in order of time: twins agree bit for bit.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
    rate : float, 0 < rate <= 1
    pilot, offsets
        As for `add_products`.
    mean : (pixels,) float64, read and written
    moments : (2 + m, pixels) float64, read and written
        Laid out as sums of weight 1 are, about the mean. Row 0 stays as it is: zero. Row 1: variance.
        Row 2 + k: covariance with the pixel that lies ``offsets[k]`` further on.

    References
    ----------
    West (1979), Commun. ACM 22:532; Finch (2009), "Incremental calculation of weighted mean and variance", eq. 143.
    """
    flat, base, steps, tile = flat_frames(frames, pilot, offsets)
    departures = np.empty(flat.shape)
    share(len(mean), lambda a, b: _departures(flat, base, rate, mean, a, b, departures), tile)
    share(len(mean), lambda a, b: _fade(departures, rate, steps, tile, a, b, moments), tile)


@nb.njit(nogil=True, cache=True)
def _departures(frames, pilot, rate, mean, a, b, departures):
    x = np.empty(b - a, np.float32)
    for t in range(len(frames)):
        centre(frames[t, a:b], pilot[a:b], x)
        row, m = departures[t, a:b], mean[a:b]
        for p in range(b - a):
            row[p] = np.float64(x[p]) - m[p]
            m[p] += rate * row[p]


@nb.njit(nogil=True, cache=True)
def _fade(departures, rate, steps, tile, a, b, moments):
    pixels = departures.shape[1]
    for start in range(a, b, tile):
        stop = min(start + tile, b)
        for t in range(len(departures)):
            for k in range(len(steps)):
                n = max(0, min(stop, pixels - steps[k]) - start)
                own = departures[t, start : start + n]
                there = departures[t, start + steps[k] : start + steps[k] + n]
                _fade_row(own, there, rate, moments[1 + k, start : start + n])


@nb.njit(nogil=True, cache=True)
def _fade_row(own, there, rate, covariance):
    keep = 1.0 - rate
    for p in range(len(covariance)):
        covariance[p] = keep * (covariance[p] + rate * (own[p] * there[p]))
