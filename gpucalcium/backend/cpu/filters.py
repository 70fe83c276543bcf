"""Spatial filters of frames: Gaussian, box, and correlation with any small kernel. Twin: backend/cuda/filters.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gpucalcium.backend import stencils
from gpucalcium.backend.cpu._median import median_of_nine
from gpucalcium.backend.cpu._threads import share

BLOCK = 2048  # pixels summed at a time: 8 KiB of output and as much input per tap stay in L1


def gaussian(
    frames: NDArray, sigma: Sequence[float], radius: Sequence[int], border: str
) -> NDArray[np.float32]:
    """Frames filtered by a sampled, unit-sum Gaussian of side ``2 radius + 1``, axis after axis.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
    sigma, radius : one per spatial axis, pixels
    border : {"constant", "replicate", "reflect", "reflect101"}

    Returns
    -------
    (n, d1, d2[, d3]) float32
        Summed in float32 in the order of the taps. The twins differ by rounding only, for each pass at most
        6e-8 times the number of taps, the sum of |weights| and the largest |value|.
        NaN wherever the kernel touches a NaN.
    """
    return _filtered(frames, stencils.separable_gaussian(sigma, radius), border)


def box(frames: NDArray, size: Sequence[int], border: str) -> NDArray[np.float32]:
    """Mean over a box of `size` pixels per axis, the centre at ``size // 2``; else as `gaussian`."""
    return _filtered(frames, stencils.separable_box(size), border)


def correlate(frames: NDArray, kernel: NDArray, border: str) -> NDArray[np.float32]:
    """Frames correlated with an n-dimensional `kernel` (not flipped), centre at ``size // 2``; else as `gaussian`."""
    return _filtered(frames, [np.asarray(kernel, np.float64)], border)


def bilateral(frames: NDArray, radius: int, sigma_value: float, sigma_space: float) -> NDArray[np.float32]:
    """Mean of the disc around each pixel, weighted by Gaussians of the distance and of the change of value.

    Parameters
    ----------
    frames : (n, d1, d2), any real dtype
        Mirrored beyond the border, the edge not repeated.
    radius : int
        Of the disc, pixels.
    sigma_value, sigma_space : float
        Standard deviations in units of the values and in pixels, greater than 0.

    Returns
    -------
    (n, d1, d2) float32
        Summed in float32 in the order of the taps. The twins differ by the rounding of exp and of sums, at most
        6e-8 times the number of taps and the largest |value|. NaN wherever the disc touches a NaN.

    References
    ----------
    Tomasi & Manduchi (1998), ICCV 839, equations 3 to 7.
    """
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f4"), copy=False)
    at, weights = stencils.disc(radius, sigma_space)
    dims = frames.shape[1:]
    rows, columns = (stencils.border_index(n, radius, radius, "reflect101") for n in dims)
    fall = np.float32(-0.5 / sigma_value**2)
    out = np.empty(frames.shape, np.float32)
    share(
        len(frames),
        lambda first, last: _bilateral(
            frames[first:last], at + radius, weights, rows, columns, fall, out[first:last]
        ),
    )
    return out


@nb.njit(nogil=True, cache=True)
def _bilateral(frames, at, weights, rows, columns, fall, out):
    n, d1, d2 = frames.shape
    for t in range(n):
        for i in range(d1):
            for j in range(d2):
                centre = np.float32(frames[t, i, j])
                total = np.float32(0)
                weighted = np.float32(0)
                for k in range(len(weights)):
                    there = np.float32(frames[t, rows[i + at[k, 0]], columns[j + at[k, 1]]])
                    change = there - centre
                    weight = weights[k] * math.exp(fall * change * change)
                    weighted += weight * change
                    total += weight
                out[t, i, j] = centre + weighted / total


def median(frames: NDArray, size: Sequence[int]) -> NDArray:
    """Median of the box of `size` pixels per axis (odd) around each pixel; beyond the border the edge repeats.

    Of the dtype of `frames`, and exact. Where NaN are in the box, the result is not defined.
    """
    out = np.empty_like(frames)
    is_nine = tuple(size) == (3, 3, *(1,) * (frames.ndim - 3))
    step = frames[0, 0, 0].size
    rows, results = (x.reshape(*x.shape[:2], -1) for x in (frames, out))

    def work(first: int, last: int) -> None:
        if is_nine:
            median_of_nine(rows[first:last], step, results[first:last])
        else:
            ndimage.median_filter(frames[first:last], (1, *size), output=out[first:last], mode="nearest")

    share(len(frames), work)
    return out


class _Pass(NamedTuple):
    """One kernel, made ready for frames of one shape (2-D frames have a first axis of length 1)."""

    rows: tuple[NDArray[np.int64], ...]
    """Per axis, the source index of each position of the padded frame, -1 for zero."""
    before: tuple[int, ...]
    offsets: NDArray[np.int64]
    """Per tap, how far it lies from the first one in the flat padded frame."""
    weights: NDArray[np.float32]


def _filtered(frames: NDArray, kernels: Sequence[NDArray[np.float64]], border: str) -> NDArray[np.float32]:
    frames = frames.astype(stencils.compiled_dtype(frames.dtype, wide="f4"), copy=False)
    dims = (1,) * (4 - frames.ndim) + frames.shape[1:]
    passes = tuple(_pass(k.reshape((1,) * (3 - k.ndim) + k.shape), dims, border) for k in kernels)
    out = np.empty(frames.shape, np.float32)
    volumes, results = frames.reshape((-1, *dims)), out.reshape((-1, *dims))
    share(len(frames), lambda first, last: _filter_frames(volumes, passes, first, last, results))
    return out


def _pass(kernel: NDArray[np.float64], dims: tuple[int, ...], border: str) -> _Pass:
    at, weights = stencils.taps(kernel)
    before = tuple(int(b) for b in np.maximum(-at.min(0), 0))
    after = tuple(int(a) for a in np.maximum(at.max(0), 0))
    rows = tuple(stencils.border_index(n, b, a, border) for n, b, a in zip(dims, before, after, strict=True))
    strides = np.array([len(rows[1]) * len(rows[2]), len(rows[2]), 1])
    return _Pass(rows, before, (at + before) @ strides, weights)


@nb.njit(nogil=True, cache=True)
def _filter_frames(frames, passes, first, last, out):
    d0, d1, d2 = out.shape[1:]
    longest = 0
    for p in passes:
        longest = max(longest, len(p.rows[0]) * len(p.rows[1]) * len(p.rows[2]))
    padded = np.empty(longest, np.float32)
    summed = np.empty(longest, np.float32)
    for t in range(first, last):
        for k in range(len(passes)):
            p = passes[k]
            if k == 0:
                _pad(frames[t], p.rows, p.before, padded)
            else:
                _pad(out[t], p.rows, p.before, padded)
            p1, p2 = len(p.rows[1]), len(p.rows[2])
            # In the flat padded frame a tap is one constant shift, whatever the axis: the sums run over
            # whole planes, and those that straddle a row end are left out when the frame is cut out.
            _sum_taps(padded, p.offsets, p.weights, summed[: ((d0 - 1) * p1 + d1 - 1) * p2 + d2])
            for i in range(d0):
                for j in range(d1):
                    _copy(summed[(i * p1 + j) * p2 :], out[t, i, j])


@nb.njit(nogil=True, cache=True)
def _copy(source, target):
    for c in range(len(target)):  # a loop: several times faster than assigning a slice, and it converts
        target[c] = source[c]


@nb.njit(nogil=True, cache=True)
def _pad(frame, rows, before, padded):
    columns = rows[2]
    d2, p2, left = frame.shape[2], len(columns), before[2]
    at = 0
    for i in rows[0]:
        for j in rows[1]:
            line = padded[at : at + p2]
            at += p2
            if i < 0 or j < 0:
                line[:] = 0
                continue
            row = frame[i, j]
            _copy(row, line[left : left + d2])
            for c in range(left):
                line[c] = row[columns[c]] if columns[c] >= 0 else 0
            for c in range(left + d2, p2):
                line[c] = row[columns[c]] if columns[c] >= 0 else 0


@nb.njit(nogil=True, cache=True)
def _sum_taps(padded, offsets, weights, out):
    for start in range(0, len(out), BLOCK):
        sums = out[start : start + BLOCK]
        n = len(sums)
        sums[:] = 0
        k = 0
        while k + 4 <= len(weights):  # four taps at a time: a quarter of the loads and stores of the sums
            w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
            y0 = padded[start + offsets[k] :][:n]
            y1 = padded[start + offsets[k + 1] :][:n]
            y2 = padded[start + offsets[k + 2] :][:n]
            y3 = padded[start + offsets[k + 3] :][:n]
            for c in range(n):
                sums[c] = (((sums[c] + w0 * y0[c]) + w1 * y1[c]) + w2 * y2[c]) + w3 * y3[c]
            k += 4
        while k < len(weights):
            w0 = weights[k]
            y0 = padded[start + offsets[k] :][:n]
            for c in range(n):
                sums[c] += w0 * y0[c]
            k += 1
