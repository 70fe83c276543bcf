"""Displacement fields: frames warped by a field on a small grid. Twin: backend/cuda/field.py."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import fourier
from gpucalcium.backend.cpu._displace import BICUBIC_A, NAN, REFLECT, _reflected
from gpucalcium.backend.cpu._threads import share
from gpucalcium.backend.stencils import compiled_dtype

MARGIN = 4  # pixels that a frame is extended by on each side; beyond them samples are taken one by one
FAR = np.float32(1 << 20)  # pixels; no field reaches further, and NaN counts as that
ALONE = np.int64(-(1 << 62))  # in place of an address: this pixel is sampled by itself
MIN = fourier.BORDERS.index("min")


def warp_field(
    frames: NDArray,
    coefficients: NDArray[np.float32],
    first: tuple[NDArray[np.int32], ...],
    weights: tuple[NDArray[np.float32], ...],
    offset: float,
    border: str,
) -> NDArray[np.float32]:
    """Frames displaced by a field, each pixel by its own amount: bicubic (in volumes tricubic), not clipped.

    The displacement along axis a of pixel (i, j) is the tensor product
    ``sum_pq weights[0][p, i] weights[1][q, j] coefficients[t, first[0][i] + p, first[1][j] + q, a]``,
    and ``out[t, i, j] = frame[t](i - displacement_0, j - displacement_1)``. The sum is taken over differences from
    the node of ``p = q = 0``, so that a field of equal nodes moves every pixel by exactly that.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
    coefficients : (n, g1, g2[, g3], ndim) float32
        Pixels.
    first, weights : per axis (d,) int32 and (taps, d) float32
        `first` does not decrease, and ``first + taps <= g``; the weights of a pixel sum to one.
    offset : float
        Subtracted from the result.
    border : {"nan", "min", "copy", "reflect"}
        What pixels get that came in from outside the frame: NaN, the frame's minimum, the edge repeated,
        or the reflection.

    Returns
    -------
    (n, d1, d2[, d3]) float32
        NaN wherever a pixel of non-zero weight is. The twins agree to 1e-5 of the largest value for
        displacements that are small beside the frame.
    """
    frames = frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False)
    out = np.empty(frames.shape, np.float32)
    lead = (1,) * (4 - frames.ndim)
    dims = (len(frames), *lead, *frames.shape[1:])
    grid = coefficients.reshape(len(frames), *lead, *coefficients.shape[1:])
    starts = (*(np.zeros(1, np.int32) for _ in lead), *first)
    taps = (*(np.ones((1, 1), np.float32) for _ in lead), *weights)
    cells = np.r_[0, np.flatnonzero(np.diff(first[-1])) + 1, frames.shape[-1]].astype(np.int64)
    volumes, moved, mode = frames.reshape(dims), out.reshape(dims), fourier.BORDERS.index(border)

    def work(a: int, b: int) -> None:
        _warp(volumes[a:b], grid[a:b], starts, taps, cells, np.float32(offset), mode, moved[a:b])

    share(len(frames), work)
    return out


@nb.njit(nogil=True, cache=True)
def _warp(frames, grid, first, weights, cells, offset, border, out):
    n, d0, d1, d2 = frames.shape
    axes = grid.shape[4]
    low = 3 - axes  # the first axis there is
    m0 = MARGIN if axes == 3 else 0
    padded = np.empty((d0 + 2 * m0, d1 + 2 * MARGIN, d2 + 2 * MARGIN), np.float32)
    field = np.empty((axes, d2), np.float32)
    row = np.empty((axes, grid.shape[3]), np.float32)
    taps = np.empty((3, 4, d2), np.float32)
    leading = np.empty((16 if axes == 3 else 0, d2), np.float32)
    cell = np.zeros((3, d2), np.int32)
    address, outside = np.empty(d2, np.int64), np.empty(d2, np.bool_)
    for t in range(n):
        lowest = _extend(frames[t], m0, border, padded)
        for i in range(d0):
            for j in range(d1):
                _displacement(grid[t], i, j, first, weights, cells, row, field)
                outside[:] = False
                for a in range(low, 3):
                    at = i if a == 0 else j
                    _taps(field[a - low], at, a == 2, frames.shape[1 + a], cell[a], taps[a], outside)
                _addresses(cell, low, frames.shape, padded.shape, m0, address)
                line = out[t, i, j]
                if axes == 3:
                    _products(taps[0], taps[1], leading)
                _gather(padded, address, leading if axes == 3 else taps[1], taps[2], line)
                _finish(padded, m0, address, cell, taps, low, outside, border, lowest, offset, line)


@nb.njit(nogil=True, cache=True)
def _extend(frame, m0, border, padded):
    """Copy of a frame, as float32, with a margin repeated ('copy') or reflected; its smallest number."""
    d0, d1, d2 = frame.shape
    for i in range(padded.shape[0]):
        source = frame[_inside(i - m0, d0, border)]
        for j in range(padded.shape[1]):
            values, line = source[_inside(j - MARGIN, d1, border)], padded[i, j]
            middle = line[MARGIN : MARGIN + d2]
            for k in range(d2):
                middle[k] = np.float32(values[k])
            for k in range(MARGIN):
                line[k] = values[_inside(k - MARGIN, d2, border)]
                line[MARGIN + d2 + k] = values[_inside(d2 + k, d2, border)]
    lowest = np.float32(np.inf)
    if border == MIN:
        for v in frame.flat:
            lowest = np.float32(v) if v < lowest else lowest
    return lowest


@nb.njit(nogil=True, cache=True)
def _inside(i, n, border):
    """Where the pixel is taken from that stands at `i` of an axis of length `n`."""
    if 0 <= i < n:
        return i
    return _reflected(i, n) if border == REFLECT else min(max(i, 0), n - 1)


@nb.njit(nogil=True, cache=True)
def _displacement(grid, i, j, first, weights, cells, row, field):
    """Displacement of one line of pixels, (axes, d2): the grid is mixed down to a row, the row stretched."""
    axes = len(field)
    base = grid[first[0][i], first[1][j]]
    for a in range(axes):
        for g in range(len(base)):
            value = base[g, a]
            for p in range(len(weights[0])):
                for q in range(len(weights[1])):
                    node = grid[first[0][i] + p, first[1][j] + q, g, a]
                    value += weights[0][p, i] * weights[1][q, j] * (node - base[g, a])
            row[a, g] = value
        _stretch(row[a], first[2], weights[2], cells, field[a])


@nb.njit(nogil=True, cache=True)
def _stretch(row, first, weights, cells, out):
    """Values on the grid spread along a line of pixels; pixels of one cell share their nodes."""
    for piece in range(len(cells) - 1):
        node, start, stop = first[cells[piece]], np.uint64(cells[piece]), np.uint64(cells[piece + 1])
        for c in range(start, stop):
            out[c] = row[node]
        for p in range(1, len(weights)):
            _add_scaled(weights[p], row[node + p] - row[node], start, stop, out)


@nb.njit(nogil=True, cache=True)
def _add_scaled(x, factor, start, stop, out):
    for c in range(start, stop):
        out[c] += factor * x[c]


@nb.njit(nogil=True, cache=True)
def _taps(field, at, last, n, cell, taps, outside):
    """Pixel before each sample of a line, the four weights, and whether the sample lies outside the frame."""
    a, one, two, three = (
        np.float32(BICUBIC_A),
        np.float32(1),
        np.float32(BICUBIC_A + 2),
        np.float32(BICUBIC_A + 3),
    )
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    for c in range(len(field)):
        s = -field[c]
        s = s if s > -FAR else -FAR
        s = s if s < FAR else FAR
        whole = np.floor(s)
        t = s - whole
        u = one - t
        k = np.int32(whole) + np.int32(c if last else at)
        cell[c] = k
        t0[c] = a * t * u * u
        t1[c] = (two * t - three) * t * t + one
        t2[c] = (two * u - three) * u * u + one
        t3[c] = a * u * t * t
        outside[c] |= (k < 0) | (k >= n) | ((k == n - 1) & (t > 0))


@nb.njit(nogil=True, cache=True)
def _addresses(cell, low, dims, extended, m0, address):
    """Where the block of taps of each pixel begins in the extended frame, counted from the pixel's own column."""
    d0, d1, d2 = dims[1], dims[2], dims[3]
    e1, e2, first, m = extended[1], extended[2], m0 - 1 if low == 0 else 0, MARGIN - 1
    for c in range(len(address)):
        k0, k1, k2 = cell[0, c], cell[1, c], cell[2, c]
        near = (k1 > -MARGIN) & (k1 < d1 + MARGIN - 2) & (k2 > -MARGIN) & (k2 < d2 + MARGIN - 2)
        near &= (low > 0) | ((k0 > -MARGIN) & (k0 < d0 + MARGIN - 2))
        address[c] = ((k0 + first) * e1 + k1 + m) * e2 + k2 + m - c if near else ALONE


@nb.njit(nogil=True, cache=True)
def _products(x, y, products):
    """Weights of the 16 lines of pixels that a sample of a volume is mixed from."""
    for p in range(4):
        for q in range(4):
            u, v, line = x[p], y[q], products[4 * p + q]
            for c in range(len(line)):
                line[c] = u[c] * v[c]


@nb.njit(nogil=True, cache=True)
def _gather(padded, address, leading, taps, out):
    """Sum of taps. Neighbours that have moved by the same whole pixels are a run, read as lines, not one by one."""
    flat, e1, e2 = padded.reshape(-1), padded.shape[1], padded.shape[2]
    d2 = len(out)
    out[:] = 0
    start = 0
    while start < d2:
        here = address[start]
        stop = start + 1
        while stop < d2 and address[stop] == here:
            stop += 1
        if here != ALONE:
            for plane in range(len(leading) // 4):
                _add_run(
                    flat,
                    np.uint64(here + plane * e1 * e2),
                    np.uint64(e2),
                    leading,
                    np.uint64(4 * plane),
                    taps,
                    np.uint64(start),
                    np.uint64(stop),
                    out,
                )
        start = stop


@nb.njit(nogil=True, cache=True)
def _add_run(flat, address, step, leading, line, taps, start, stop, out):
    """Four lines of pixels, `step` apart, weighted. Indices have no sign: to test for one would cost the vectors."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for c in range(start, stop):
        t0, t1, t2, t3 = taps[np.uint64(0), c], taps[one, c], taps[two, c], taps[three, c]
        p = address + c
        v = leading[line, c] * (t0 * flat[p] + t1 * flat[p + one] + t2 * flat[p + two] + t3 * flat[p + three])
        p += step
        v += leading[line + one, c] * (
            t0 * flat[p] + t1 * flat[p + one] + t2 * flat[p + two] + t3 * flat[p + three]
        )
        p += step
        v += leading[line + two, c] * (
            t0 * flat[p] + t1 * flat[p + one] + t2 * flat[p + two] + t3 * flat[p + three]
        )
        p += step
        v += leading[line + three, c] * (
            t0 * flat[p] + t1 * flat[p + one] + t2 * flat[p + two] + t3 * flat[p + three]
        )
        out[c] += v


@nb.njit(nogil=True, cache=True)
def _finish(padded, m0, address, cell, taps, low, outside, border, lowest, offset, out):
    """Pixels that no run could do: far outside, or with NaN at a tap that has no weight; border and offset."""
    marks = border in (NAN, MIN)
    mark = np.float32(np.nan) if border == NAN else lowest - offset
    special = False
    for c in range(len(out)):
        v, gone = out[c], outside[c] & marks
        special |= (not gone) & ((address[c] == ALONE) | (v != v))
        out[c] = mark if gone else v - offset
    if not special:
        return
    for c in range(len(out)):
        if not (outside[c] and marks) and (address[c] == ALONE or out[c] != out[c]):
            out[c] = _sample(padded, m0, cell[:, c], taps[:, :, c], low, border) - offset


@nb.njit(nogil=True, cache=True)
def _sample(padded, m0, cell, taps, low, border):
    """One sample; taps without weight are not read, as 0 NaN is NaN."""
    d0, d1, d2 = padded.shape[0] - 2 * m0, padded.shape[1] - 2 * MARGIN, padded.shape[2] - 2 * MARGIN
    total = np.float32(0)
    for p in range(4 if low == 0 else 1):
        w0 = taps[0, p] if low == 0 else np.float32(1)
        i = m0 + _inside(cell[0] + p - 1, d0, border) if low == 0 else 0
        for q in range(4):
            j = MARGIN + _inside(cell[1] + q - 1, d1, border)
            for r in range(4):
                w = w0 * taps[1, q] * taps[2, r]
                if w != 0:
                    total += w * padded[i, j, MARGIN + _inside(cell[2] + r - 1, d2, border)]
    return total
