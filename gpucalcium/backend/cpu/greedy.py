"""Greedy search for cells: one after the other where the filtered movie has most energy."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._threads import share

EPSILON = 2.0**-23  # keeps an empty footprint from dividing by zero
SAMPLES_PER_TASK = 1 << 19  # fewer are done sooner than another thread has started


def energy(
    filtered: NDArray[np.float32], pixels: NDArray[np.int64], window: int, out: NDArray[np.float32]
) -> None:
    """out[p] = the largest mean of filtered[p, t]^2 over `window` frames that end at t; the past is 0.

    `filtered` is (d, T), `out` (d,); only the entries in `pixels` (n,) are written. `window` 0: the sum over all.
    """
    share(
        len(pixels),
        lambda first, last: _energy(filtered, pixels[first:last], window, out),
        _grain(filtered),
    )


def _grain(movie: NDArray) -> int:
    """Pixels that are worth a thread of their own."""
    return max(1, SAMPLES_PER_TASK // max(1, movie.shape[1]))


@nb.njit(nogil=True, cache=True)
def _energy(filtered, pixels, window, out):
    for p in pixels:
        trace = filtered[p]
        total = best = 0.0
        for t in range(len(trace)):
            value = np.float64(trace[t])
            total += value * value
            if window:
                if t >= window:
                    gone = np.float64(trace[t - window])
                    total -= gone * gone
                best = max(best, total)
        out[p] = best / window if window else total


def search(
    residual: NDArray[np.float32],
    filtered: NDArray[np.float32],
    dims: tuple[int, int, int],
    half: tuple[int, int, int],
    kernel: NDArray[np.float32],
    window: int,
    iterations: int,
    values: NDArray[np.float32],
    seeds: NDArray[np.int64],
    shapes: NDArray[np.float32],
    traces: NDArray[np.float32],
) -> None:
    """Find ``len(seeds)`` cells in turn, and take each out of `residual` and `filtered`.

    A cell is sought where `values`, the `energy` of `filtered`, is largest (the first such pixel). In the box of
    +- `half` pixels around it, cut at the edges, the residual is fitted by footprint x trace, starting from the
    filtered trace: `iterations` times a = max(Y c, 0) / sqrt(|Y c|^2 + eps), c = Y'a.

    Parameters
    ----------
    residual, filtered : (d, T) float32, both written
        The movie without its median, and the same filtered with `kernel`; pixels in C order of `dims`.
    dims, half : three each; 2-D has a last axis of 1 and 0
    kernel : (k1, k2, k3) float32, odd sides
        ``filtered[p] = sum_q kernel[q - p + centre] residual[q]``.
    window : int
        As in `energy`.
    values : (d,) float32, written
    seeds : (K,) int64, read and written
        Pixel of each cell; where it is not negative it is taken as given.
    shapes : (K, n) float32, written
        Footprints, in C order of the box of 2 half + 1 pixels; zero outside the field of view.
    traces : (K, T) float32, written
    """
    for k in range(len(seeds)):
        if seeds[k] < 0:
            seeds[k] = values.argmax()
        seed = int(seeds[k])
        inside, pixels = _box(seed, dims, half)
        shape, trace = _fit(residual, pixels, filtered[seed], iterations)
        shapes[k, inside] = shape
        traces[k] = trace
        _subtract(residual, pixels, shape, trace)
        reach = tuple(h + side // 2 for h, side in zip(half, kernel.shape, strict=True))
        _, around = _box(seed, dims, reach)
        blurred = _blur(shape, pixels, around, dims, kernel)
        share(len(around), _subtract_task(filtered, around, blurred, trace), _grain(filtered))
        energy(filtered, around, window, values)


def _subtract_task(movie: NDArray, pixels: NDArray, weights: NDArray, trace: NDArray) -> Any:
    return lambda first, last: _subtract(movie, pixels[first:last], weights[first:last], trace)


@nb.njit(nogil=True, cache=True)
def _subtract(movie, pixels, weights, trace):
    for i in range(len(pixels)):
        row = movie[pixels[i]]
        for t in range(len(trace)):
            row[t] -= weights[i] * trace[t]


@nb.njit(nogil=True, cache=True)
def _box(centre, dims, half):
    """Positions in the full box, and pixels of the field of view, of what both have in common."""
    c0, c1, c2 = centre // (dims[1] * dims[2]), centre // dims[2] % dims[1], centre % dims[2]
    n = (2 * half[0] + 1) * (2 * half[1] + 1) * (2 * half[2] + 1)
    inside, pixels = np.empty(n, np.int64), np.empty(n, np.int64)
    found = at = 0
    for i in range(c0 - half[0], c0 + half[0] + 1):
        for j in range(c1 - half[1], c1 + half[1] + 1):
            for k in range(c2 - half[2], c2 + half[2] + 1):
                if 0 <= i < dims[0] and 0 <= j < dims[1] and 0 <= k < dims[2]:
                    inside[found] = at
                    pixels[found] = (i * dims[1] + j) * dims[2] + k
                    found += 1
                at += 1
    return inside[:found].copy(), pixels[:found].copy()


@nb.njit(nogil=True, cache=True)
def _fit(residual, pixels, start, iterations):
    """Footprint (n,) and trace (T,) of the best non-negative rank-one fit to the rows `pixels`."""
    trace = start.astype(np.float32)
    shape = np.zeros(len(pixels), np.float32)
    sums = np.empty(len(trace), np.float64)
    for _ in range(iterations):
        norm = 0.0
        for i in range(len(pixels)):
            shape[i] = max(_dot(residual[pixels[i]], trace), 0.0)
            norm += np.float64(shape[i]) * shape[i]
        scale = 1.0 / np.sqrt(norm + EPSILON)
        sums[:] = 0.0
        for i in range(len(pixels)):
            shape[i] *= scale
            row = residual[pixels[i]]
            for t in range(len(trace)):
                sums[t] += shape[i] * row[t]
        trace[:] = sums
    return shape, trace


@nb.njit(nogil=True, cache=True)
def _dot(x, y):
    sums = np.zeros(8)
    whole = len(x) // 8 * 8
    for t in range(0, whole, 8):
        for lane in range(8):  # eight sums side by side fill a vector register
            sums[lane] += np.float64(x[t + lane]) * y[t + lane]
    for t in range(whole, len(x)):
        sums[t - whole] += np.float64(x[t]) * y[t]
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))


@nb.njit(nogil=True, cache=True)
def _blur(shape, pixels, around, dims, kernel):
    """What `kernel` makes, at the pixels `around`, of a footprint that is `shape` on `pixels`."""
    out = np.zeros(len(around), np.float32)
    middle = (kernel.shape[0] // 2, kernel.shape[1] // 2, kernel.shape[2] // 2)
    for n in range(len(around)):
        total = 0.0
        for i in range(len(pixels)):
            a = pixels[i] // (dims[1] * dims[2]) - around[n] // (dims[1] * dims[2]) + middle[0]
            b = pixels[i] // dims[2] % dims[1] - around[n] // dims[2] % dims[1] + middle[1]
            c = pixels[i] % dims[2] - around[n] % dims[2] + middle[2]
            if 0 <= a < kernel.shape[0] and 0 <= b < kernel.shape[1] and 0 <= c < kernel.shape[2]:
                total += np.float64(kernel[a, b, c]) * shape[i]
        out[n] = total
    return out
