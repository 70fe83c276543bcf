"""Rigid registration: find the shift of every frame, and apply it. Twin: backend/cuda/registration.py."""

from __future__ import annotations

from functools import partial

import numba as nb
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gpucalcium.backend import fourier
from gpucalcium.backend.cpu._displace import mark_frames, warp_frames
from gpucalcium.backend.cpu._peak import find_peaks
from gpucalcium.backend.cpu._threads import share
from gpucalcium.backend.device import threads
from gpucalcium.backend.stencils import compiled_dtype

BATCH_BYTES = 1 << 19  # of float32 frames: these, their spectra and the products stay in a core's own cache
BLOCK_BYTES = 16 << 20  # float32 frames that one call should get: what it returns is then still in the cache
POWER_BYTES = 8 << 20  # float32 frames transformed at a time, shared among threads
ADD_BLOCK = 1024  # pixels whose sums stay in L1 while the frames go by


def locate(
    frames: NDArray,
    fill: NDArray[np.float32],
    offset: float,
    kernel: NDArray[np.complex64],
    bound: tuple[int, ...],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Where each frame lies with respect to a template, to a fraction of a pixel.

    The correlation c(s) = Re sum_k Y[k] kernel[k] exp(2 pi i k.s / n) is searched at whole-pixel s in the
    closed window ``-bound..bound``, then climbed by Newton's method on the trigonometric polynomial itself.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
    fill : (d1, d2[, d3]) float32
        What stands for pixels that are not finite (the template), `offset` subtracted already.
    offset : float
        Subtracted from each pixel, so that float32 keeps its digits.
    kernel : (b1, b2[, b3]) complex64
        Weighted, conjugated template spectrum at the lowest frequencies (see `fourier.frequencies`).
    bound : (m1, m2[, m3])
        Largest shift searched, pixels.

    Returns
    -------
    shifts : (n, ndim) float32
        Displacement of the frame's content against the template, pixels, at most ``bound + 1`` in size;
        the twins agree to 1e-3.
    peaks : (n,) float32
        c at that shift.
    missing : (n,) int32
        Pixels that were not finite.
    """
    n, shape = len(frames), frames.shape[1:]
    frames = frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False).reshape(n, -1)
    plan = fourier.SearchPlan.make(shape, kernel.shape, bound)
    shifts = np.empty((n, len(shape)), np.float32)
    peaks, missing = np.empty(n, np.float32), np.empty(n, np.int32)
    batch = max(1, BATCH_BYTES // max(1, 4 * fill.size))

    def work(first: int, last: int) -> None:
        for start in range(first, last, batch):
            part = slice(start, min(start + batch, last))
            ready = np.empty((part.stop - start, fill.size), np.float32)
            _prepare(frames[part], fill.reshape(-1), np.float32(offset), ready, missing[part])
            products = _products(ready.reshape(-1, *shape), kernel, plan)
            find_peaks(products, plan, shifts[part], peaks[part])

    share(n, work, grain=min(batch, max(1, n // 4)))
    return shifts, peaks, missing


def power(
    frames: NDArray, fill: NDArray[np.float32], offset: float, window: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Sum over frames of |rfftn(window * (frame - offset))|^2, (d1, d2//2 + 1) or with three axes.

    Pixels that are not finite are taken from `fill`, as in `locate`.
    """
    n, shape = len(frames), frames.shape[1:]
    frames = frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False).reshape(n, -1)
    total = np.zeros((*shape[:-1], shape[-1] // 2 + 1))
    batch = max(threads(), POWER_BYTES // max(1, 4 * fill.size))
    missing = np.empty(batch, np.int32)
    for start in range(0, n, batch):
        part = frames[start : start + batch]
        ready = np.empty((len(part), fill.size), np.float32)
        _prepare(part, fill.reshape(-1), np.float32(offset), ready, missing)
        tapered = ready.reshape(-1, *shape)
        tapered *= window
        spectra = scipy.fft.rfftn(tapered, axes=range(1, tapered.ndim), workers=threads())
        add = partial(_add_power, spectra.reshape(len(part), -1), total.reshape(-1))
        share(total.size, add, grain=ADD_BLOCK)
    return total


def warp(frames: NDArray, shifts: NDArray[np.float32], offset: float, border: str) -> NDArray[np.float32]:
    """Frames displaced by `shifts`: bicubic, reflecting at the edge, clipped to the frame's own range.

    Parameters
    ----------
    frames : (n, d1, d2), any real dtype
    shifts : (n, 2) float32
        ``out[r, c] = frame[r - shift[0], c - shift[1]]``, pixels.
    offset : float
        Subtracted from the result.
    border : {"nan", "min", "copy", "reflect"}
        What pixels get that came in from outside the frame: NaN, the frame's minimum, the nearest line
        that is inside, or the reflection.

    Returns
    -------
    (n, d1, d2) float32
        NaN wherever the 4 x 4 pixels of a sample hold one. The twins agree to 1e-5 of the largest value.
    """
    frames = frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False)
    out = np.empty(frames.shape, np.float32)
    mode = fourier.BORDERS.index(border)
    share(len(frames), lambda a, b: warp_frames(frames[a:b], shifts[a:b], np.float32(offset), mode, out[a:b]))
    return out


def mark_border(frames: NDArray[np.float32], shifts: NDArray[np.float32], border: str) -> None:
    """Replace, in place, pixels of displaced frames (n, d1, d2[, d3]) that came from outside; `border` as in `warp`."""
    mode = fourier.BORDERS.index(border)
    if border == "reflect" or not frames.size:
        return
    volumes = frames.reshape(len(frames), *(1,) * (4 - frames.ndim), *frames.shape[1:])
    moves = np.zeros((len(frames), 3), np.float32)
    moves[:, 3 - shifts.shape[1] :] = shifts
    share(len(frames), lambda a, b: mark_frames(volumes[a:b], moves[a:b], mode))


def add_frames(frames: NDArray, sums: NDArray[np.float64], counts: NDArray[np.int32]) -> None:
    """Add frames (n, ...) of any real dtype to `sums` (...) in order, and to `counts` (...) where they are finite."""
    flat = frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False).reshape(len(frames), sums.size)
    total, count = sums.reshape(-1), counts.reshape(-1)
    share(sums.size, lambda a, b: _add(flat, a, b, total, count), grain=ADD_BLOCK)


def add_squares(frames: NDArray, mean: NDArray[np.float32], sums: NDArray[np.float64]) -> None:
    """Add (frame - mean)^2 to `sums` (...), frame by frame, where it is finite; frames as in `add_frames`."""
    flat = frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False).reshape(len(frames), sums.size)
    middle, total = mean.reshape(-1), sums.reshape(-1)
    share(sums.size, lambda a, b: _add_squares(flat, middle, a, b, total), grain=ADD_BLOCK)


# ---------------------------------------------------------------------------- finding the shift


@nb.njit(nogil=True, cache=True)
def _prepare(frames, fill, offset, out, missing):
    for t in range(frames.shape[0]):
        lost = 0
        for p in range(frames.shape[1]):
            v = np.float32(frames[t, p]) - offset
            finite = abs(v) < np.float32(np.inf)
            out[t, p] = v if finite else fill[p]
            lost += not finite
        missing[t] = lost


def _products(
    ready: NDArray[np.float32], kernel: NDArray[np.complex64], plan: fourier.SearchPlan
) -> NDArray[np.complex64]:
    """Spectra of the frames times the kernel, at the kernel's frequencies only."""
    spectra = scipy.fft.rfft(ready, axis=-1)[..., : kernel.shape[-1]]
    for axis in range(ready.ndim - 2, 0, -1):
        spectra = scipy.fft.fft(spectra, axis=axis)
    out = np.empty((len(ready), *kernel.shape), np.complex64)
    width = kernel.shape[-1]
    _weigh(
        spectra.reshape(len(ready), -1, width),
        plan.rows,
        kernel.reshape(-1, width),
        out.reshape(len(ready), -1, width),
    )
    return out


@nb.njit(nogil=True, cache=True)
def _weigh(spectra, rows, kernel, out):
    for t in range(out.shape[0]):
        for r in range(out.shape[1]):
            for k in range(out.shape[2]):
                out[t, r, k] = spectra[t, rows[r], k] * kernel[r, k]


@nb.njit(nogil=True, cache=True)
def _add_power(spectra, total, first, last):
    part = total[first:last]
    for t in range(spectra.shape[0]):
        values = spectra[t, first:last]
        for k in range(len(values)):
            re, im = np.float64(values[k].real), np.float64(values[k].imag)
            part[k] += re * re + im * im


@nb.njit(nogil=True, cache=True)
def _add(frames, first, last, sums, counts):
    for start in range(first, last, ADD_BLOCK):
        stop = min(start + ADD_BLOCK, last)
        total, count = sums[start:stop], counts[start:stop]
        for t in range(frames.shape[0]):
            values = frames[t, start:stop]
            for p in range(len(values)):
                v = np.float32(values[p])
                finite = abs(v) < np.float32(np.inf)
                total[p] += np.float64(v if finite else np.float32(0))
                count[p] += np.int32(1) if finite else np.int32(0)


@nb.njit(nogil=True, cache=True)
def _add_squares(frames, mean, first, last, sums):
    for start in range(first, last, ADD_BLOCK):
        stop = min(start + ADD_BLOCK, last)
        total, middle = sums[start:stop], mean[start:stop]
        for t in range(frames.shape[0]):
            values = frames[t, start:stop]
            for p in range(len(values)):
                v = np.float32(values[p]) - middle[p]
                v = v if abs(v) < np.float32(np.inf) else np.float32(0)
                total[p] += np.float64(v) * np.float64(v)
