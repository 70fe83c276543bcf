"""Sums over time from which correlations of neighbouring pixels follow. Twin: backend/cuda/correlation.py."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._centred import centre, flat_frames
from gpucalcium.backend.cpu._threads import share

UNROLL = 8  # frames per visit of a sum: the loads and stores of sums are then few beside those of pixels


def add_products(
    frames: NDArray, pilot: NDArray, offsets: NDArray[np.int64], sums: NDArray[np.float64]
) -> None:
    """Add to `sums` what the frames hold of x, of x^2, and of x times the x that lies `offsets[k]` further on.

    x = float32(y - pilot). Differences are rounded to float32, so their products are exact in float64,
    and each sum is added in order of t: chunk size, tile size, number of threads, device and fused
    multiply-adds cannot change a bit.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
    pilot : (d1, d2[, d3]), same dtype
        Subtracted from every frame; the first frame of the movie keeps the sums small and well conditioned.
    offsets : (m,) int64, 0 < offsets < number of pixels
        In pixels of the flat frame.
    sums : (2 + m, pixels) float64, read and written
        Row 0: sum of x. Row 1: of x^2. Row 2 + k: of x[p] x[p + offsets[k]], pixels p in C order; pairs that
        straddle the end of a row are summed like any other, the last `offsets[k]` entries are left alone.
    """
    flat, base, steps, tile = flat_frames(frames, pilot, offsets)
    share(sums.shape[1], lambda first, last: _add_products(flat, base, steps, tile, first, last, sums), tile)


@nb.njit(nogil=True, cache=True)
def _add_products(frames, pilot, steps, tile, first, last, sums):
    reach = steps.max()
    n, pixels = frames.shape
    x = np.zeros((UNROLL, tile + reach), np.float32)
    for start in range(first, last, tile):
        stop = min(start + tile, last)
        width = min(stop + reach, pixels) - start
        for t in range(0, n, UNROLL):
            full = t + UNROLL <= n
            for u in range(min(UNROLL, n - t)):
                centre(frames[t + u, start : start + width], pilot[start : start + width], x[u])
                _add(x[u], sums[0, start:stop])
            for k in range(len(steps)):  # the first is 0: squares
                m = min(stop - start, width - steps[k])
                row = sums[1 + k, start : start + max(m, 0)]
                if full:
                    _add_eight_products(x, steps[k], row)
                else:
                    for u in range(n - t):
                        _add_product(x[u], x[u, steps[k] :], row)


@nb.njit(nogil=True, cache=True)
def _add(x, sums):
    for p in range(len(sums)):
        sums[p] += np.float64(x[p])


@nb.njit(nogil=True, cache=True)
def _add_product(x, there, sums):
    for p in range(len(sums)):
        sums[p] += np.float64(x[p]) * np.float64(there[p])


@nb.njit(nogil=True, cache=True)
def _add_eight_products(x, offset, sums):
    # Whole contiguous rows of x, so that the compiler sees unit strides and fills its vectors.
    a0, a1, a2, a3, a4, a5, a6, a7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    b0, b1, b2, b3 = x[0, offset:], x[1, offset:], x[2, offset:], x[3, offset:]
    b4, b5, b6, b7 = x[4, offset:], x[5, offset:], x[6, offset:], x[7, offset:]
    for p in range(len(sums)):
        total = sums[p]
        total += np.float64(a0[p]) * np.float64(b0[p])
        total += np.float64(a1[p]) * np.float64(b1[p])
        total += np.float64(a2[p]) * np.float64(b2[p])
        total += np.float64(a3[p]) * np.float64(b3[p])
        total += np.float64(a4[p]) * np.float64(b4[p])
        total += np.float64(a5[p]) * np.float64(b5[p])
        total += np.float64(a6[p]) * np.float64(b6[p])
        total += np.float64(a7[p]) * np.float64(b7[p])
        sums[p] = total


def images(
    sums: NDArray[np.float64],
    weight: float,
    dims: tuple[int, ...],
    steps: NDArray[np.int64],
    order: int,
    out: NDArray[np.float32],
) -> None:
    """Mean correlation of each pixel with its neighbours, from sums.

    Rounded step by step (no fused operations), each pixel's terms added in the order of `steps`, its earlier
    neighbour before its later one: twins agree bit for bit where `order` is 1, else but for `pow` and `exp`.

    Parameters
    ----------
    sums : (n, 2 + m, pixels) float64
        As `add_products` makes them, of n images. NaN in row 0 or 1: the pixel is NaN and no neighbour.
    weight : float
        What to divide sums by to get means, greater than 0.
    dims : (d1, d2[, d3])
    steps : (m, axes) int64
        To each forward neighbour, each component -1, 0 or 1, the first that is not 0 is 1.
    order : int
        0: geometric mean; k > 0: k-th root of the mean k-th power, with the sign of that mean.
    out : (n, pixels) float32, written
        0 where nothing varies or there is no neighbour.
    """
    cubes = np.zeros((len(steps), 3), np.int64)
    cubes[:, 3 - len(dims) :] = steps
    size = np.array((1,) * (3 - len(dims)) + tuple(dims))
    share(len(sums), lambda first, last: _images(sums, weight, size, cubes, order, first, last, out))


@nb.njit(nogil=True, cache=True)
def _images(sums, weight, dims, steps, order, first, last, out):
    pixels = sums.shape[2]
    mean, inverse = np.empty(pixels), np.zeros(pixels)
    total, term = np.empty(pixels), np.empty(dims[2])
    every, some = (
        np.empty(pixels),
        np.empty(pixels),
    )  # numbers of neighbours: of all, and of those that are finite
    _count(inverse, dims, steps, every)
    share_of_one = 1.0 / weight
    for e in range(first, last):
        finite = _scales(sums[e, 0], sums[e, 1], share_of_one, mean, inverse)
        if not finite:
            _count(inverse, dims, steps, some)
        total[:] = 0
        for k in range(len(steps)):
            s0, s1, s2 = steps[k]
            n = dims[2] - abs(s2)
            for i in range(max(0, -s0), dims[0] - max(0, s0)):
                for j in range(max(0, -s1), dims[1] - max(0, s1)):
                    a = (i * dims[1] + j) * dims[2] + max(0, -s2)
                    b = a + (s0 * dims[1] + s1) * dims[2] + s2
                    _terms(
                        sums[e, 2 + k, a : a + n],
                        share_of_one,
                        mean[a : a + n],
                        mean[b : b + n],
                        inverse[a : a + n],
                        inverse[b : b + n],
                        term,
                    )
                    if order != 1:
                        _raise_terms(inverse[a : a + n], inverse[b : b + n], order, term)
                    # The earlier pixel of a pair is the later one's earlier neighbour: those go first.
                    _gather(term, total[b : b + n])
                    _gather(term, total[a : a + n])
        _finish(total, every if finite else some, inverse, order, out[e])


@nb.njit(nogil=True, cache=True)
def _count(inverse, dims, steps, number):
    """Neighbours of each pixel that are not NaN."""
    number[:] = 0
    for s0, s1, s2 in steps:
        offset = (s0 * dims[1] + s1) * dims[2] + s2
        for i in range(max(0, -s0), dims[0] - max(0, s0)):
            for j in range(max(0, -s1), dims[1] - max(0, s1)):
                row = (i * dims[1] + j) * dims[2]
                for a in range(row + max(0, -s2), row + dims[2] - max(0, s2)):
                    number[a + offset] += inverse[a] == inverse[a]
                    number[a] += inverse[a + offset] == inverse[a + offset]


@nb.njit(nogil=True, cache=True, error_model="numpy")  # no branch for a division by zero: vectors
def _scales(total, squares, share_of_one, mean, inverse):
    """Mean and 1 / standard deviation of each pixel (0: constant; NaN: not finite); whether all are finite."""
    bad = 0
    for p in range(len(total)):
        m = total[p] * share_of_one
        variance = squares[p] * share_of_one - m * m
        zero = variance - variance  # or NaN
        mean[p] = m
        inverse[p] = 1.0 / np.sqrt(variance) + zero if variance > 0 else zero
        bad += 1 if zero != zero else 0
    return bad == 0


@nb.njit(nogil=True, cache=True)
def _terms(products, share_of_one, mean_a, mean_b, inverse_a, inverse_b, term):
    """The correlation of each pair; 0 where one of its pixels is NaN."""
    for p in range(len(products)):
        scale = inverse_a[p] * inverse_b[p]
        rho = (products[p] * share_of_one - mean_a[p] * mean_b[p]) * scale
        rho = rho if rho < 1.0 else 1.0  # selections, which fill vectors, as min and max do not
        rho = rho if rho > -1.0 else -1.0
        term[p] = rho if scale == scale else 0.0


@nb.njit(nogil=True, cache=True)
def _raise_terms(inverse_a, inverse_b, order, term):
    """Powers of terms; for the geometric mean, their logarithms."""
    for p in range(len(inverse_a)):
        if inverse_a[p] != inverse_a[p] or inverse_b[p] != inverse_b[p]:
            continue
        rho = term[p]
        if order == 0:
            term[p] = np.log(max(rho, 0.0))
        else:
            for _ in range(order - 1):
                term[p] *= rho


@nb.njit(nogil=True, cache=True)
def _gather(term, total):
    for p in range(len(total)):
        total[p] += term[p]


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _finish(total, number, inverse, order, out):
    for p in range(len(out)):
        mean = total[p] / (number[p] if number[p] > 0 else 1.0)
        if order == 0:
            mean = np.exp(mean) if number[p] > 0 else 0.0
        elif order > 1:
            mean = np.copysign(np.abs(mean) ** (1.0 / order), mean)
        out[p] = np.float32(mean if inverse[p] == inverse[p] else np.nan)
