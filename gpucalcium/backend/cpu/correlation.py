"""Sums over time from which correlations of neighbouring pixels follow. Twin: backend/cuda/correlation.py."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import stencils
from gpucalcium.backend.cpu._threads import share

TILE = 2048  # pixels at a time: eight centred rows of it (64 KiB) and one row of sums (16 KiB) stay in L2
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
    dtype = stencils.compiled_dtype(frames.dtype, wide="f8")
    flat = frames.reshape(len(frames), -1).astype(dtype, copy=False)
    base = pilot.reshape(-1).astype(dtype).astype(np.result_type(dtype, np.float32))
    steps = np.concatenate(([0], offsets))
    tile = max(TILE, int(steps.max()))  # longer than its halo, which is centred twice
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
            for u in range(UNROLL):
                if t + u < n:
                    _centre(frames[t + u, start : start + width], pilot[start : start + width], x[u])
                else:
                    x[u] = 0  # adds nothing
            _add(x, sums[0, start:stop])
            for k in range(len(steps)):  # the first is 0: squares
                m = min(stop - start, width - steps[k])
                _add_product(x, steps[k], sums[1 + k, start : start + max(m, 0)])


@nb.njit(nogil=True, cache=True)
def _centre(y, pilot, x):
    for p in range(len(y)):
        x[p] = np.float32(y[p] - pilot[p])  # floats: exact for 16-bit integers, no wrapping


@nb.njit(nogil=True, cache=True)
def _add(x, sums):
    for u in range(UNROLL):
        row = x[u]
        for p in range(len(sums)):
            sums[p] += np.float64(row[p])


@nb.njit(nogil=True, cache=True)
def _add_product(x, offset, sums):
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
