"""The ring model of a one-photon background: products of pixel pairs, weights of rings, and what they predict.

Twin: backend/cuda/ring.py. Pixels are flat, in C order; a step is the displacement to another pixel, in pixels of a
flat frame. Pairs and rings that cross the border of the field are left out by whoever reads the sums.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._threads import share

TILE = 512  # pixels: their sums (4 kB) stay in the first-level cache while the frames of a chunk go by


def add_pair_products(
    frames: NDArray[np.float32], steps: NDArray[np.int64], sums: NDArray[np.float64]
) -> None:
    """sums[k, p] += sum over t, in order, of frames[t, p] * frames[t, p + steps[k]].

    `frames` is (n, d) float32, so each product is exact; `steps` (m,), 0 <= step < d; `sums` (m, d) float64, of which
    the last ``steps[k]`` entries of row k are left alone.
    """
    share(len(steps), lambda first, last: _add_pair_products(frames, steps, first, last, sums))


@nb.njit(nogil=True, cache=True)
def _add_pair_products(frames, steps, first, last, sums):
    n, d = frames.shape
    for begin in range(0, d, TILE):
        for k in range(first, last):
            step = steps[k]
            count = min(TILE, d - step - begin)
            if count <= 0:
                continue
            target = sums[k, begin : begin + count]
            t = 0
            while t + 3 < n:  # a sum is loaded and stored once for four frames
                x0, y0 = frames[t, begin:], frames[t, begin + step :]
                x1, y1 = frames[t + 1, begin:], frames[t + 1, begin + step :]
                x2, y2 = frames[t + 2, begin:], frames[t + 2, begin + step :]
                x3, y3 = frames[t + 3, begin:], frames[t + 3, begin + step :]
                for i in range(count):
                    total = target[i]
                    total += np.float64(x0[i]) * np.float64(y0[i])
                    total += np.float64(x1[i]) * np.float64(y1[i])
                    total += np.float64(x2[i]) * np.float64(y2[i])
                    total += np.float64(x3[i]) * np.float64(y3[i])
                    target[i] = total
                t += 4
            while t < n:
                x0, y0 = frames[t, begin:], frames[t, begin + step :]
                for i in range(count):
                    target[i] += np.float64(x0[i]) * np.float64(y0[i])
                t += 1


def ring_weights(
    sums: NDArray[np.float64],
    pairs: NDArray[np.int64],
    ring: NDArray[np.int64],
    dims: tuple[int, int],
    ridge: float,
    out: NDArray[np.float32],
) -> None:
    """Least-squares weights of every pixel's ring: (X_R X_R' + ridge trace I)^-1 X_R x, by Cholesky.

    Parameters
    ----------
    sums : (m, d) float64
        Of `add_pair_products` for a field of `dims`.
    pairs : (n + 1, n + 1) int64
        Row of `sums` for the step from place a to place b >= a; places are the ring's and, in its turn, the middle.
    ring : (n + 1, 2) int64
        Displacements (row, column), sorted in C order, the middle (0, 0) among them.
    ridge : float
        Relative to the trace of the ring's Gram matrix.
    out : (n + 1, d) float32, written
        0 for the middle and for places beyond the border; all 0 where the ring or its signal is empty.
    """
    share(out.shape[1], lambda first, last: _ring_weights(sums, pairs, ring, dims, ridge, first, last, out))


@nb.njit(nogil=True, cache=True)
def _ring_weights(sums, pairs, ring, dims, ridge, first, last, out):
    n = len(ring)
    places = np.empty(n, np.int64)
    L = np.empty((n + 1, n + 1))
    column = np.empty(n + 1)
    for p in range(first, last):
        k = _ring_inside(ring, dims, p, places)
        trace = _gram(sums, pairs, ring, dims[1], p, places[:k], L)
        out[:, p] = 0
        if not trace > 0:
            continue
        for a in range(k):
            L[a, a] += ridge * trace
        _factor(L, k, column)
        for j in range(k - 1, -1, -1):  # L' w = y, y being the last row
            weight = L[k, j] / L[j, j]
            for i in range(j):
                L[k, i] -= L[j, i] * weight
            out[places[j], p] = weight


@nb.njit(nogil=True, cache=True)
def _ring_inside(ring, dims, p, places):
    """Which places of the ring around pixel p lie inside the field, without the middle; how many."""
    k = 0
    for a in range(len(ring)):
        row, col = p // dims[1] + ring[a, 0], p % dims[1] + ring[a, 1]
        middle = ring[a, 0] == 0 and ring[a, 1] == 0
        if 0 <= row < dims[0] and 0 <= col < dims[1] and not middle:
            places[k] = a
            k += 1
    return k


@nb.njit(nogil=True, cache=True)
def _gram(sums, pairs, ring, width, p, places, L):
    """Lower triangle of the Gram matrix of the ring around p, and under it the products with p; its trace."""
    k = len(places)
    middle = 0
    while ring[middle, 0] != 0 or ring[middle, 1] != 0:
        middle += 1
    trace = 0.0
    for i in range(k):
        b = places[i]
        for j in range(i + 1):
            a = places[j]
            L[i, j] = sums[pairs[a, b], p + ring[a, 0] * width + ring[a, 1]]
        trace += L[i, i]
        low, high = min(b, middle), max(b, middle)
        L[k, i] = sums[pairs[low, high], p + ring[low, 0] * width + ring[low, 1]]
    return trace


@nb.njit(nogil=True, cache=True)
def _factor(L, k, column):
    """Cholesky of the first k rows in place; row k becomes the solution of L y = row k."""
    for j in range(k):
        pivot = np.sqrt(L[j, j])
        L[j, j] = pivot
        for i in range(j + 1, k + 1):
            L[i, j] /= pivot
            column[i] = L[i, j]
        for i in range(j + 1, k + 1):
            factor = L[i, j]
            row = L[i]
            for c in range(j + 1, min(i, k - 1) + 1):
                row[c] -= factor * column[c]


def predict(
    frames: NDArray[np.float32],
    weights: NDArray[np.float32],
    steps: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """out[t, p] = sum over k of weights[k, p] * frames[t, p + steps[k]], in order of k.

    `frames` and `out` are (n, d) float32, `weights` (n_steps, d); where p + step lies outside the frame nothing is
    added. Summed in float32: the twins differ by rounding.
    """
    share(len(frames), lambda first, last: _predict(frames[first:last], weights, steps, out[first:last]))


@nb.njit(nogil=True, cache=True)
def _predict(frames, weights, steps, out):
    n, d = frames.shape
    out[:] = 0
    for begin in range(0, d, TILE):
        for k in range(len(steps)):
            low, high = max(begin, -steps[k]), min(begin + TILE, d, d - steps[k])
            if high <= low:
                continue
            weight = weights[k, low:high]
            for t in range(n):
                target = out[t, low:high]
                pixels = frames[t, low + steps[k] :]
                for i in range(high - low):
                    target[i] += weight[i] * pixels[i]
